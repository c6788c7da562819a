"""Random pruning, the floor that every method must beat: scores drawn uniformly from [0, 1)."""

from dataclasses import dataclass

from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, register


@register
@dataclass(frozen=True)
class Random(Method):
    """Every weight has the same chance to go."""

    name = "random"
    citation = "blalock2020state"

    def score(self, view: View) -> Scores:
        return view.random_scores(channels=False)


@register
@dataclass(frozen=True)
class RandomChannels(Method):
    """Every channel has the same chance to go."""

    name = "random_channels"
    citation = "blalock2020state"
    unit = "channel"
    needs = "shape"

    def score(self, view: View) -> Scores:
        return view.random_scores(channels=True)
