r"""L0 regularisation by hard-concrete gates (Louizos et al. 2018).

Every channel gets a gate z in [0, 1], random while training, and the penalty is the expected number of weights in use:

    penalty = sum_channels  P(z_c > 0) * ( |weights of c| + d/2 * sum of their squares ),
    P(z > 0) = 1 - sigmoid(T log(-a/b) - alpha)

After training a channel goes when its gate is shut: ``Budget(below=0.0)``. There is no target; how sparse the network
becomes follows from the strength of the penalty.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, Real
from pruning_core.masks import Group, Masks, Scores
from pruning_core.methods.base import Method, View, register
from pruning_core.methods.shared.penalties import living, summed
from pruning_core.methods.shared.swapping import gates_behind_layers, gates_of
from pruning_core.models.layers.gates import Gated, HardConcreteGate


@register
class L0(Method):
    """Channels whose learned gate is shut go; the gates must have been trained (``Train(penalty=("l0", ...))``).

    ``open_probability``: that a gate is open before training. ``weight_decay`` is d of the formula.
    """

    name, citation = "l0", "louizos2018l0"
    unit, needs = "channel", "shape"
    constraints = Constraints(open_probability=Real(above=0, below=1), weight_decay=Real(at_least=0))

    open_probability: float = 0.5
    weight_decay: float = 0.0

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Put a gate behind every layer that alone produces a group of channels, in place."""
        gate = partial(HardConcreteGate, open_probability=self.open_probability)
        return gates_behind_layers(model, example_input, gate)

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Expected number of weights in use behind gates; dead channels count nothing."""
        gated = [(n, m, m.gate) for n, m in model.named_modules() if isinstance(m, Gated)]
        parts = (
            living(gate.open_probability() * _size(module, self.weight_decay), f"{name}.gate.log_alpha", alive).sum()
            for name, module, gate in gated
            if isinstance(gate, HardConcreteGate)
        )
        return summed(parts, "the network has no gates; L0 prepares it before training.")

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        return None if gates_of(model, group, HardConcreteGate) else "they have no gate of their own"

    def score(self, view: View) -> Scores:
        """The gate before it is clipped to [0, 1]: shut gates score 0 or less."""
        scores = {}
        for name, group in view.sites.groups.items():
            member = gates_of(view.model, group, HardConcreteGate)[0]
            gate: Any = view.model.get_submodule(member.layer)
            a, b = gate.limits
            stretched = torch.sigmoid(view.parameter(member.parameter)) * (b - a) + a
            scores[name] = member.per_channel(stretched, group.size)
        return Scores(scores)


def _size(gated: Gated, weight_decay: float) -> Tensor:
    """|weights of c| + d/2 * sum of their squares, for every channel c of one layer."""
    layer: Any = gated.layer
    weight: Tensor = layer.weight.movedim(gated.output_dim, 0)
    each = weight.new_full((len(weight),), weight[0].numel())
    if weight_decay:
        each = each + weight_decay / 2 * (weight**2).flatten(1).sum(1)
        if layer.bias is not None:
            each = each + weight_decay / 2 * layer.bias**2
    return each
