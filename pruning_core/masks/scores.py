"""Scores: how much each weight, or each channel, matters. A value that refuses what cannot be ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pruning_core.errors import BadInput, BadType, known_name
from pruning_core.masks.masks import NamedTensors

NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda score: score,
    "sum": lambda score: score / _nonzero(score.abs().sum()),
    "mean": lambda score: score / _nonzero(score.abs().mean()),
    "max": lambda score: score / _nonzero(score.abs().max()),
    "l2": lambda score: score / _nonzero(score.norm()),
}

COMBINERS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda stacked: stacked.sum(0),
    "mean": lambda stacked: stacked.mean(0),
    "max": lambda stacked: stacked.amax(0),
    "first": lambda stacked: stacked[0],
}


class Scores(NamedTensors):
    """An immutable mapping from sites (parameter or channel group) to float tensors; larger means more important.

    NaN and infinite scores are refused by name: they would be ranked silently, and wrongly.

    >>> Scores({"fc.weight": torch.tensor([[1.0, float("nan")]])})
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the scores of 'fc.weight' hold 1 NaN or infinite value, first at position (0, 1).
    """

    def __init__(self, scores: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]):
        super().__init__(scores)
        self._tensors = {name: score.detach() for name, score in self._tensors.items()}
        for name, score in self.items():
            if not score.is_floating_point():
                raise BadType(f"the scores of {name!r} must be floating point, not {score.dtype}.")
            # One sum is much cheaper than isfinite over millions; an overflowing sum only means a second look.
            if not torch.isfinite(score.sum()) and not torch.isfinite(score).all():
                bad = (~torch.isfinite(score)).nonzero()
                values = "value" if len(bad) == 1 else "values"
                where = tuple(bad[0].tolist())
                raise BadInput(
                    f"the scores of {name!r} hold {len(bad)} NaN or infinite {values}, first at position {where}."
                )

    def __repr__(self) -> str:
        return f"Scores({', '.join(f'{name}: {tuple(score.shape)}' for name, score in self.items())})"

    def normalised(self, how: str) -> Scores:
        """Every site's scores divided by their own sum, mean, max or l2 norm of absolute values, or left as they are."""
        normaliser = NORMALISERS[known_name("normaliser", how, NORMALISERS)]
        return Scores({name: normaliser(score) for name, score in self.items()})


def combine(parts: Iterable[Tensor], how: str) -> Tensor:
    """Combine the scores of a group's members, each of shape (channels,), into one vector of that shape."""
    return COMBINERS[known_name("combination", how, COMBINERS)](torch.stack(list(parts)))


def _nonzero(value: Tensor) -> Tensor:
    """The divisor, or 1 where everything is zero: all-zero scores stay zero instead of becoming NaN."""
    return torch.where(value == 0, torch.ones_like(value), value)
