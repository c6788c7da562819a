r"""L0 regularisation by hard-concrete gates (Louizos et al. 2018).

Every channel gets a gate z in [0, 1], random while training, and the penalty is the expected number of weights in use:

    penalty = sum_channels  P(z_c > 0) * ( |weights of c| + d/2 * sum of their squares ),
    P(z > 0) = 1 - sigmoid(T log(-a/b) - alpha)

After training a channel goes when its gate is shut: ``Budget(below=0.0)``. There is no target; how sparse the network
becomes follows from the strength of the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn

from pruning_core.checks import Constraints
from pruning_core.checks import Real
from pruning_core.discovery import find_groups
from pruning_core.errors import Unprunable
from pruning_core.groups import Group
from pruning_core.groups import Member
from pruning_core.layers.gates import Gated
from pruning_core.layers.gates import HardConcreteGate
from pruning_core.masks import Masks
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.methods.base import weight_rows
from pruning_core.scores import Scores


@register
@dataclass(frozen=True)
class L0(Method):
    """Channels whose learned gate is shut go; the gates must have been trained (``Train(penalty=("l0", ...))``)."""

    name = "l0"
    citation = "louizos2018l0"
    unit = "channel"
    needs = "shape"

    constraints = Constraints(open_probability=Real(above=0, below=1), weight_decay=Real(at_least=0))

    open_probability: float = 0.5
    weight_decay: float = 0.0

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Put a gate behind every layer that alone produces a group of channels; returns the network, changed in place."""
        for group in find_groups(model, example_input):
            rows = weight_rows(group)
            if group.reason_fixed is None and len(rows) == 1 and len(rows[0].indices) == group.size:
                parent, _, child = rows[0].layer.rpartition(".")
                layer = model.get_submodule(rows[0].layer)
                gate = HardConcreteGate(group.size, self.open_probability).to(layer.weight)  # type: ignore[arg-type]
                setattr(model.get_submodule(parent), child, Gated(layer, gate))
        return model

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Expected number of weights in use behind gates; dead channels count nothing."""
        parts = []
        for name, module in model.named_modules():
            if isinstance(module, Gated) and isinstance(module.gate, HardConcreteGate):
                living = alive.get(f"{name}.gate.log_alpha")
                stored: Tensor = module.layer.weight  # type: ignore[assignment]
                weight = stored.movedim(module.output_dim, 0)
                each = weight.new_full((len(weight),), weight[0].numel())
                if self.weight_decay:
                    each = each + self.weight_decay / 2 * (weight**2).flatten(1).sum(1)
                    if module.layer.bias is not None:
                        each = each + self.weight_decay / 2 * module.layer.bias**2  # type: ignore[operator]
                used = module.gate.open_probability() * each
                parts.append((used if living is None else used * living.to(used)).sum())
        if not parts:
            raise Unprunable("the network has no gates; L0 prepares it before training.")
        return torch.stack(parts).sum()

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        return None if _gate(model, group) else "they have no gate of their own"

    def score(self, view: View) -> Scores:
        """The gate before it is clipped to [0, 1]: shut gates score 0 or less."""
        scores = {}
        for name, group in view.sites.groups.items():
            member = _gate(view.model, group)
            assert member is not None
            gate = view.model.get_submodule(member.layer)
            a, b = gate.limits  # type: ignore[misc]
            stretched = torch.sigmoid(view.parameter(member.parameter)) * (b - a) + a
            scores[name] = member.per_channel(stretched, group.size)
        return Scores(scores)


def _gate(model: nn.Module, group: Group) -> Member | None:
    found = [m for m in group.normalises if isinstance(model.get_submodule(m.layer), HardConcreteGate)]
    return found[0] if found else None
