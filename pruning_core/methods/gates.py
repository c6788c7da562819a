r"""Gate Decorators: a learned factor behind every batch norm, and its sensitivity (You et al. 2019, you2019gate).

    y_c = g_c * BN(x)_c,        score(c) = | g_c dL/dg_c | / sum over all gates of the same

Training goes in ticks, in which the gates alone are trained and channels are cut, and tocks, in which everything is
trained and the gates are pulled towards zero (recipe ``tick_tock``). Where no batch norm follows a layer, its gate sits
behind the layer itself. Gates start at one, which leaves the network as it is. The official code of SNIP-it starts them
from N(0, 1) and scores in training mode (``reference=True``). Its penalty has no gradient, and its tocks freeze the gates;
ours acts, because a penalty on gates can move nothing else.
"""

import torch
from torch import Tensor, nn

from pruning_core.errors import Unprunable
from pruning_core.masks import Group, Masks, Scores
from pruning_core.masks.scores import combine
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.elasticities import Sensitivity
from pruning_core.methods.shared.penalties import living, pull_to_zero_
from pruning_core.methods.shared.swapping import gates_behind_norms, gates_of
from pruning_core.models.layers.gates import ChannelGate


@register
class GateDecorators(Sensitivity):
    """Channels go whose gate matters least to the loss; the gates sit behind batch norms.

    ``combine``: how the gates of several norms on one channel become one score. ``reference=True`` starts gates from N(0, 1)
    and scores in training mode.
    """

    name, citation = "gates", "you2019gate"
    unit, absolute = "channel", True
    combine: str = "sum"
    reference: bool = False

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Put a gate behind every batch norm, and behind the layers of channels that meet none, in place."""
        like = next(model.parameters())

        def gate(channels: int) -> ChannelGate:
            made = ChannelGate(channels).to(like)
            if self.reference:
                nn.init.normal_(made.weight)
            return made

        return gates_behind_norms(model, example_input, gate)

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of the absolute gates that are alive."""
        return torch.stack([living(gate, name, alive).abs().sum() for name, gate in _gates(model).items()]).sum()

    def pull_(self, model: nn.Module, alive: Masks, strength: float) -> None:
        pull_to_zero_(_gates(model).items(), alive, strength)

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        return None if gates_of(model, group, ChannelGate) else "they have no gate"

    def shrinks(self) -> bool:
        return not self.reference  # in training mode dropout draws as many numbers as there are channels

    def score(self, view: View) -> Scores:
        groups = view.sites.groups
        gates = {name: gates_of(view.model, group, ChannelGate) for name, group in groups.items()}
        names = dict.fromkeys(member.parameter for members in gates.values() for member in members)
        gradients, _ = self.gradients(view, names, training=self.reference)
        products = {name: view.parameter(name) * gradient for name, gradient in gradients.items()}
        scores = {}
        for name, members in gates.items():
            parts = [m.per_channel(products[m.parameter], groups[name].size) for m in members]
            scores[name] = combine(parts, self.combine).abs()
        total = torch.stack([score.sum() for score in scores.values()]).sum()
        return Scores({name: score / total if total > 0 else score for name, score in scores.items()})


def _gates(model: nn.Module) -> dict[str, nn.Parameter]:
    """The gates of channels, by the name of the parameter; raises Unprunable if there are none."""
    found = {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, ChannelGate)}
    if not found:
        raise Unprunable("the network has no gates; Gate Decorators prepare it before training.")
    return found
