r"""Gate Decorators: a learned factor behind every batch norm, and its sensitivity (You et al. 2019, you2019gate).

    y_c = g_c * BN(x)_c,        score(c) = | g_c dL/dg_c | / sum over all gates of the same

Training goes in ticks, in which the gates alone are trained and channels are cut, and tocks, in which everything is
trained and the gates are pulled towards zero (recipe ``tick_tock``). Where no batch norm follows a layer, its gate sits
behind the layer itself. Gates start at one, which leaves the network as it is. The official code of SNIP-it starts them
from N(0, 1) and scores in training mode (``reference=True``). Its penalty has no gradient, and its tocks freeze the gates;
ours acts, because a penalty on gates can move nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.discovery import find_groups
from pruning_core.errors import Unprunable
from pruning_core.errors import known_name
from pruning_core.groups import Group
from pruning_core.groups import Member
from pruning_core.layers import ChannelGate
from pruning_core.layers import Gated
from pruning_core.masks import Masks
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.methods.base import weight_rows
from pruning_core.methods.shared.elasticities import loss_gradients
from pruning_core.methods.shared.elasticities import statistic_loss
from pruning_core.methods.snip import Sensitivity
from pruning_core.scores import COMBINERS
from pruning_core.scores import Scores
from pruning_core.scores import combine


@register
@dataclass(frozen=True)
class GateDecorators(Sensitivity):
    """Channels go whose gate matters least to the loss; the gates sit behind batch norms.

    ``combine``: how the gates of several norms on one channel become one score.
    """

    name = "gates"
    citation = "you2019gate"
    unit = "channel"

    combine: str = "sum"
    reference: bool = False

    def __post_init__(self):
        super().__post_init__()
        known_name("combination", self.combine, COMBINERS)

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Put a gate behind every batch norm, and behind the layers of channels that meet none; returns the network, changed
        in place."""
        gated = {name for name, module in model.named_modules() if isinstance(module, Gated)}
        norms = {
            n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and n.rpartition(".")[0] not in gated
        }
        for name, norm in norms.items():
            self._put_gate(model, name, norm.num_features)
        for group in find_groups(model, example_input):
            if group.reason_fixed is None and not _gates(model, group):
                for row in weight_rows(group):
                    self._put_gate(model, row.layer, model.get_parameter(row.parameter).shape[row.dim])
        return model

    def _put_gate(self, model: nn.Module, name: str, channels: int) -> None:
        gate = ChannelGate(channels).to(next(model.parameters()))
        if self.reference:
            nn.init.normal_(gate.weight)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Gated(model.get_submodule(name), gate))

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of the absolute gates that are alive."""
        parts = []
        for name, module in model.named_modules():
            if isinstance(module, ChannelGate):
                mask = alive.get(f"{name}.weight")
                parts.append((module.weight if mask is None else module.weight * mask.to(module.weight)).abs().sum())
        if not parts:
            raise Unprunable("the network has no gates; Gate Decorators prepare it before training.")
        return torch.stack(parts).sum()

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        return None if _gates(model, group) else "they have no gate"

    def score(self, view: View) -> Scores:
        groups = view.sites.groups
        gates = {name: _gates(view.model, group) for name, group in groups.items()}
        names = dict.fromkeys(member.parameter for members in gates.values() for member in members)
        loss = statistic_loss(self.loss, view.loss)
        gradients, _ = loss_gradients(
            view.model, names, view.batches or (), loss, self.batches, training=self.reference
        )
        scores = {
            name: combine(
                [
                    m.per_channel(view.parameter(m.parameter) * gradients[m.parameter], groups[name].size)
                    for m in members
                ],
                self.combine,
            ).abs()
            for name, members in gates.items()
        }
        total = torch.stack([score.sum() for score in scores.values()]).sum()
        return Scores({name: score / total if total > 0 else score for name, score in scores.items()})


def _gates(model: nn.Module, group: Group) -> list[Member]:
    return [m for m in group.normalises if isinstance(model.get_submodule(m.layer), ChannelGate)]
