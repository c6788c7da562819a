"""Channels ranked by the scales of their batch norms, and the thresholds by which the code of RNI cuts them.

The RNI code (Suteu and Guo 2022) finds its channels by thresholds: t is the p-quantile of all scores, or of a layer's, and
channels with a score above t stay. A layer in which fewer than m = 3 scores reach t takes its (m+1)-th largest score as t
instead. Because "reach" is >= and "above" is >, ties can empty a layer, p = 0 still removes the weakest, and p counts only
roughly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import Constraints, Maybe, OneOf, Real, Whole, check, checked
from pruning_core.errors import BadInput, BadType, Unprunable, known_name
from pruning_core.masks import Budget, Group, Masks, Member, Scores, expand
from pruning_core.masks.scores import COMBINERS, combine
from pruning_core.methods.base import Choice, Method, Spreads, View
from pruning_core.methods.shared.penalties import survivors
from pruning_core.methods.shared.swapping import with_norms
from pruning_core.models.layers.norms import SigmoidBatchNorm1d, SigmoidBatchNorm2d

SIGMOID = (SigmoidBatchNorm1d, SigmoidBatchNorm2d)
MINIMUM = 3  # filters that the thresholds of the RNI code leave in a layer, ties aside


@dataclass(frozen=True)
class BatchNormScale(Method):
    """What the methods share that rank channels by the scale of their batch norm.

    Channels that several norms scale, those of a residual sum above all, have no one score: they are left whole, as in the
    papers, unless ``tied`` names how the scales become one (scores.COMBINERS).
    """

    unit, needs = "channel", "shape"
    constraints = Constraints(tied=Maybe(OneOf(*COMBINERS, kind="combination")))

    tied: str | None = None

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Batch norms of every kind stay as they are; a network without any gets ordinary ones (``with_norms``)."""
        return with_norms(model, example_input)

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        norms = scales_of(model, group)
        if not norms:
            return "no batch norm with a scale acts on them"
        if len(norms) > 1 and self.tied is None:
            many = f"{len(norms)} batch norms scale them (a residual sum, or channels read again)"
            return f"{many}, so no one score is theirs; tied='max' would take the largest"
        if self.tied is None and any(member.is_buffer for member in group.produces):
            return "an index layer adds channels to them that other batch norms scale, so no one score is theirs"
        covered = torch.cat([member.channels for member in norms])
        return None if len(torch.unique(covered)) == group.size else "their batch norm acts on a part of them only"

    def score(self, view: View) -> Scores:
        scores = {}
        for name, group in view.sites.groups.items():
            parts = []
            for norm in scales_of(view.model, group):
                scales = self._importance(view, norm)
                # A mean, since behind a flatten a channel has several scales.
                entries = norm.per_channel(torch.ones_like(scales), group.size).clamp(min=1)
                parts.append(norm.per_channel(scales, group.size) / entries)
            scores[name] = combine(parts, self.tied or "first")
        return Scores(scores)

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

    spreads: ClassVar[Spreads] = "asked"

    reference: bool = False

    def meets_budget(self) -> bool:
        return not self.reference

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if not self.reference:
            return
        if budget.to is None or budget.of != "channels" or budget.across not in ("global", "layer"):
            raise BadInput(
                f"the thresholds of {self.name!r} (reference=True) take a fraction of the channels, 'global' or by 'layer'."
            )

    def choose(self, view: View, budget: Budget) -> Choice:
        if not self.reference:
            return super().choose(view, budget)
        assert budget.to is not None
        scope = "local" if budget.across == "layer" else "global"
        return self.cut(view, budget.to, scope, max(MINIMUM, budget.keep_at_least))


@checked(scores=None, fraction=None)
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
    """The threshold of every layer before the minimum rule, in the dtype of the scores; see :func:`quantile_masks`."""
    known_name("scope of a threshold", scope, ("global", "local"))
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


def norm_scales(model: nn.Module, method: str, sigmoid: bool) -> dict[str, nn.Parameter]:
    """The scales of all sigmoid (or of all ordinary) batch norms, by parameter name; raises Unprunable if none exist."""
    norms = [
        (n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and isinstance(m, SIGMOID) == sigmoid
    ]
    found = {f"{name}.weight".lstrip("."): norm.weight for name, norm in norms if norm.weight is not None}
    if not found:
        kind = "sigmoid batch norm" if sigmoid else "ordinary batch norm with a scale"
        raise Unprunable(f"{type(model).__name__} has no {kind}, so {method!r} can penalise nothing; prepare it first.")
    return found


def living_scales(model: nn.Module, alive: Masks, method: str, sigmoid: bool) -> Tensor:
    """All scales of sigmoid (or of ordinary) batch norms that are alive, as one vector; raises Unprunable if none exist."""
    return torch.cat([survivors(scale, name, alive) for name, scale in norm_scales(model, method, sigmoid).items()])
