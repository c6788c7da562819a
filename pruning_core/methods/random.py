"""Random pruning, the floor that every method must beat: scores drawn uniformly from [0, 1)."""

from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, register


@register
class Random(Method):
    """Every weight has the same chance to go."""

    name, citation = "random", "blalock2020state"

    def score(self, view: View) -> Scores:
        return view.random_scores(self.unit == "channel")


@register
class RandomChannels(Random):
    """Every channel has the same chance to go."""

    name = "random_channels"
    unit, needs = "channel", "shape"
