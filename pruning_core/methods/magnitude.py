"""Magnitude pruning: ``score(w) = |w|`` (Han et al. 2015). The oldest baseline, and still a hard one to beat."""

from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, register


@register
class Magnitude(Method):
    """The weights closest to zero go first.

    ``normalise`` divides a layer's scores by their own "sum", "mean", "max" or "l2" before layers are compared.
    """

    name, citation = "magnitude", "han2015learning"

    normalise: str = "none"

    def score(self, view: View) -> Scores:
        return Scores({name: weight.abs() for name, weight in view.weights().items()}).normalised(self.normalise)
