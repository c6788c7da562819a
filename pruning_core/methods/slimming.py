r"""Network Slimming: the scale of a batch norm says how much its channel matters (Liu et al. 2017, liu2017slimming).

    score(c) = |gamma_c|,        penalty = sum over all batch norms and channels of |gamma_c|

All layers are compared with each other. Uniform channel scaling (UCS), as the code of RNI has it (Suteu and Guo 2022),
ranks by the same scales, trains without a penalty, and takes the same fraction of every layer. Where the norm is a
sigmoid batch norm, gamma is the scale that acts on the channel, sigma(g), not the raw g.

The RNI code finds its channels by thresholds (``reference=True``): t is the p-quantile of all scores (UCS: of a layer's),
and channels with a score above t stay. A layer in which fewer than m = 3 scores reach t takes its (m+1)-th largest score
as t instead. Because "reach" is >= and "above" is >, ties can empty a layer, p = 0 still removes the weakest, and p counts
only roughly; by default the budget is met to the channel, and its ``keep_at_least`` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.budgets import Budget
from pruning_core.checks import Constraints
from pruning_core.checks import Maybe
from pruning_core.checks import OneOf
from pruning_core.checks import Real
from pruning_core.checks import Whole
from pruning_core.checks import check
from pruning_core.discovery import find_groups
from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import Unprunable
from pruning_core.errors import known_name
from pruning_core.groups import Group
from pruning_core.groups import Member
from pruning_core.groups import expand
from pruning_core.layers.norms import SigmoidBatchNorm1d
from pruning_core.layers.norms import SigmoidBatchNorm2d
from pruning_core.masks import Masks
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.methods.base import weight_rows
from pruning_core.scores import COMBINERS
from pruning_core.scores import NORMALISERS
from pruning_core.scores import Scores
from pruning_core.scores import combine

SIGMOID = (SigmoidBatchNorm1d, SigmoidBatchNorm2d)
SCOPES = ("global", "local")
MINIMUM = 3
"""Filters that the thresholds of the RNI code leave in a layer, ties aside."""


@dataclass(frozen=True)
class BatchNormScale(Method):
    """What the methods share that rank channels by the scale of their batch norm.

    Channels that several norms scale, those of a residual sum above all, have no one score: they are left whole, as in the
    papers, unless ``tied`` names how the scales become one (scores.COMBINERS).
    """

    unit = "channel"
    needs = "shape"

    constraints = Constraints(tied=Maybe(OneOf(*COMBINERS, kind="combination")))

    tied: str | None = None

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        norms = scales_of(model, group)
        if not norms:
            return "no batch norm with a scale acts on them"
        if len(norms) > 1 and self.tied is None:
            return (
                f"{len(norms)} batch norms scale them (a residual sum, or channels read again), so no one score is theirs; "
                "tied='max' would take the largest"
            )
        if self.tied is None and any(member.is_buffer for member in group.produces):
            return "an index layer adds channels to them that other batch norms scale, so no one score is theirs"
        covered = torch.cat([member.channels for member in norms])
        return None if len(torch.unique(covered)) == group.size else "their batch norm acts on a part of them only"

    def score(self, view: View) -> Scores:
        return Scores({name: self._scale(view, group) for name, group in view.sites.groups.items()})

    def _scale(self, view: View, group: Group) -> Tensor:
        parts = [
            mean_per_channel(member, self._importance(view, member), group.size)
            for member in scales_of(view.model, group)
        ]
        return combine(parts, self.tied or "first")

    def _importance(self, view: View, member: Member) -> Tensor:
        """The scale that acts on each channel of one norm: |gamma|, or sigma(g) of a sigmoid batch norm."""
        weight = view.parameter(member.parameter)
        return torch.sigmoid(weight) if isinstance(view.model.get_submodule(member.layer), SIGMOID) else weight.abs()

    def cut(self, view: View, fraction: float, scope: str = "global", minimum: int = MINIMUM) -> Choice:
        """What :func:`quantile_masks` leaves of the network, with ``fraction`` in [0, 1]."""
        groups = view.sites.groups
        if any(not bool(group.alive(view.alive).all()) for group in groups.values()):
            raise BadInput("the thresholds of the RNI code are defined for a network that is still whole; cut it once.")
        keep = quantile_masks(list(self.score(view).values()), fraction, scope, minimum)
        chosen = dict(zip(groups, keep, strict=True))
        kept, total = sum(int(mask.sum()) for mask in keep), sum(len(mask) for mask in keep)
        remark = f"thresholds removed {total - kept} of {total} channels, where {fraction:g} was asked for"
        empty = [name for name, mask in chosen.items() if not bool(mask.any())]
        if empty:
            raise Unprunable(
                f"the threshold leaves no channel of {empty[0]!r}, because scores are equal; without reference=True ties "
                "never empty a layer."
            )
        return Choice(view.alive & expand(chosen, groups, view.sites.shapes), {}, (remark,))


@dataclass(frozen=True)
class Thresholded(BatchNormScale):
    """Methods of the RNI code: by default the budget decides, with ``reference=True`` its quantiles do."""

    reference: bool = False

    def meets_budget(self) -> bool:
        return not self.reference

    def choose(self, view: View, budget: Budget) -> Choice:
        if not self.reference:
            return super().choose(view, budget)
        if budget.to is None or budget.of != "channels" or budget.across not in ("global", "layer"):
            raise BadInput(
                f"the thresholds of {self.name!r} (reference=True) take a fraction of the channels, 'global' or by 'layer'."
            )
        scope = "local" if budget.across == "layer" else "global"
        return self.cut(view, budget.to, scope, max(MINIMUM, budget.keep_at_least))


@register
@dataclass(frozen=True)
class Slimming(Thresholded):
    """Trained with the sum of absolute batch-norm scales as a penalty, the channels with the smallest scales go.

    ``normalise`` (scores.NORMALISERS) divides a layer's scores by their sum, mean, ...; the paper compares them as they are.
    """

    name = "slimming"
    citation = "liu2017slimming"

    constraints = Constraints(normalise=OneOf(*NORMALISERS, kind="normaliser"))

    normalise: str = "none"

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Ordinary batch norms stay as they are; a network without any gets them (``with_norms``)."""
        return with_norms(model, example_input, nn.BatchNorm1d, nn.BatchNorm2d)

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of |gamma| over all ordinary batch norms, also of channels that cannot be pruned; dead ones count nothing."""
        return living_scales(model, alive, self.name, sigmoid=False).abs().sum()

    def score(self, view: View) -> Scores:
        return super().score(view).normalised(self.normalise)


@register
@dataclass(frozen=True)
class UniformChannelScaling(Thresholded):
    """In every layer the same fraction of channels goes, those with the smallest batch-norm scales; no penalty."""

    name = "ucs"
    citation = "suteu2022rni"

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Batch norms of every kind stay as they are; a network without any gets ordinary ones (``with_norms``)."""
        return with_norms(model, example_input, nn.BatchNorm1d, nn.BatchNorm2d)

    def choose(self, view: View, budget: Budget) -> Choice:
        if budget.below is not None:
            raise BadInput("uniform channel scaling takes the same fraction of every layer; give a sparsity.")
        if budget.across != "global":
            return super().choose(view, budget)
        choice = super().choose(view, replace(budget, across="layer"))
        remark = "channels are compared within a layer only, so every layer lost the same fraction"
        return choice._replace(remarks=(*choice.remarks, remark))


def quantile_masks(
    scores: Sequence[Tensor], fraction: float, scope: str = "global", minimum: int = MINIMUM
) -> list[Tensor]:
    """Which channels the thresholds of the RNI code keep: a bool vector for each vector of scores, one a layer.

    ``fraction`` in [0, 1] is the quantile's; ``scope``: one quantile of all scores ("global"), or one of each layer
    ("local"). With distinct scores and no layer at its minimum, floor((n - 1) fraction) + 1 of n channels go. Everything is
    computed in the dtype of the scores. Raises BadType or BadInput, also where a layer would need its (minimum + 1)-th
    largest score and has no more than ``minimum``. Source: the official code of Suteu and Guo 2022, ties included.

    >>> [mask.tolist() for mask in quantile_masks([torch.arange(4.0), torch.arange(4.0) + 4], 0.5, minimum=1)]
    [[False, False, False, True], [True, True, True, True]]
    >>> [mask.tolist() for mask in quantile_masks([torch.ones(4)], 0.5)]
    [[False, False, False, False]]
    """
    minimum = check("minimum", minimum, Whole(at_least=0))
    keep = []
    for i, (score, quantile) in enumerate(zip(scores, quantile_thresholds(scores, fraction, scope), strict=True)):
        values, threshold = score.detach().cpu().numpy(), quantile.numpy()
        if int(np.count_nonzero(values >= threshold)) < minimum:
            if len(values) <= minimum:
                raise BadInput(
                    f"layer {i + 1} has {len(values)} channels; where the threshold leaves fewer than {minimum}, the rule "
                    f"of the RNI code needs at least {minimum + 1}."
                )
            threshold = np.sort(values)[-minimum - 1]
        keep.append(torch.from_numpy(values > threshold))
    return keep


def quantile_thresholds(scores: Sequence[Tensor], fraction: float, scope: str = "global") -> list[Tensor]:
    """The threshold of every layer before the minimum rule, a number in the dtype of the scores; arguments as in
    :func:`quantile_masks`."""
    known_name("scope of a threshold", scope, SCOPES)
    fraction = check("the fraction of a quantile", fraction, Real(at_least=0, at_most=1))
    if not scores:
        raise BadInput("there are no scores to find a threshold for.")
    for i, score in enumerate(scores):
        if not isinstance(score, Tensor) or not score.is_floating_point():
            raise BadType(f"the scores of layer {i + 1} must be a floating-point tensor.")
        if score.dim() != 1 or not len(score) or not bool(torch.isfinite(score).all()):
            raise BadInput(f"the scores of layer {i + 1} must be a vector of finite numbers, at least one.")
    vectors = [score.detach().cpu().numpy() for score in scores]
    pooled = [np.concatenate(vectors)] * len(vectors) if scope == "global" else vectors
    # A Python float as the fraction: one of numpy would turn the quantile of float32 scores into float64.
    return [torch.as_tensor(np.quantile(values, float(fraction))) for values in pooled]


def scales_of(model: nn.Module, group: Group) -> list[Member]:
    """The scale vectors of the batch norms that act on a group's channels, one a norm, in the order of the layers."""
    found = [m for m in group.normalises if m.parameter.endswith(".weight")]
    return [m for m in found if isinstance(model.get_submodule(m.layer), _BatchNorm)]


def mean_per_channel(member: Member, values: Tensor, size: int) -> Tensor:
    """``values`` along the member's dimension as a mean a channel, (size,): behind a flatten a channel has several."""
    return member.per_channel(values, size) / member.per_channel(torch.ones_like(values), size).clamp(min=1)


def living_scales(model: nn.Module, alive: Masks, method: str, sigmoid: bool) -> Tensor:
    """All scales of sigmoid (or of ordinary) batch norms that are alive, as one vector; raises Unprunable if none exist."""
    parts = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and isinstance(module, SIGMOID) == sigmoid and module.weight is not None:
            mask = alive.get(f"{name}.weight" if name else "weight")
            parts.append(module.weight if mask is None else module.weight[mask.to(module.weight.device)])
    if not parts:
        kind = "sigmoid batch norm" if sigmoid else "ordinary batch norm with a scale"
        raise Unprunable(
            f"{type(model).__name__} has no {kind}, so {method!r} has nothing to penalise; prepare it first."
        )
    return torch.cat(parts)


def with_norms(model: nn.Module, example_input, flat: type[nn.Module], image: type[nn.Module]) -> nn.Module:
    """Put a norm behind every layer that makes prunable channels, if the network has no batch norm at all; in place.

    ``flat(channels)`` goes behind linear layers and 1-d convolutions, ``image(channels)`` behind 2-d convolutions. The
    layer's bias, which a batch norm cancels, becomes the shift of the norm where it has one. Raises Unprunable where no
    such layer is found.
    """
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    places = {nn.Linear: flat, nn.Conv1d: flat, nn.Conv2d: image}
    found = 0
    for group in find_groups(model, example_input):
        if group.reason_fixed is not None:
            continue
        for row in weight_rows(group):
            layer = model.get_submodule(row.layer)
            kind = places.get(type(layer))
            if kind is not None:
                _insert(model, row.layer, layer, kind(len(layer.weight)))  # type: ignore[arg-type]
                found += 1
    if not found:
        raise Unprunable(f"{type(model).__name__} has no batch norm, and no layer that one could be put behind.")
    return model


def _insert(model: nn.Module, name: str, layer, norm) -> None:
    norm.to(layer.weight)
    if layer.bias is not None:
        if norm.bias is not None:
            norm.bias.data.copy_(layer.bias.data)
        layer.register_parameter("bias", None)
    parent, _, child = name.rpartition(".")
    together = nn.Sequential()
    together.add_module("layer", layer)
    together.add_module("norm", norm.train(layer.training))
    setattr(model.get_submodule(parent), child, together)


__all__ = ["BatchNormScale", "Slimming", "UniformChannelScaling", "quantile_masks", "quantile_thresholds"]
