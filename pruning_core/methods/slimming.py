r"""Network Slimming: the scale of a batch norm says how much its channel matters (Liu et al. 2017, liu2017slimming).

    score(c) = |gamma_c|,        penalty = sum over all batch norms and channels of |gamma_c|

All layers are compared with each other. Where the norm is a sigmoid batch norm, gamma is the scale that acts on the
channel, sigma(g), not the raw g. ``reference=True`` cuts by the thresholds of the RNI code (shared/batch_norm_scales.py).
"""

from torch import Tensor, nn

from pruning_core.masks import Masks, Scores
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.batch_norm_scales import Thresholded, living_scales, norm_scales
from pruning_core.methods.shared.penalties import pull_to_zero_


@register
class Slimming(Thresholded):
    """Trained with the sum of absolute batch-norm scales as a penalty, the channels with the smallest scales go.

    ``normalise`` (scores.NORMALISERS) divides a layer's scores by their sum, mean, ...; the paper compares them as they are.
    """

    name, citation = "slimming", "liu2017slimming"
    absolute = True
    normalise: str = "none"

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of |gamma| over all ordinary batch norms, also of channels that cannot be pruned; dead ones count nothing."""
        return living_scales(model, alive, self.name, sigmoid=False).abs().sum()

    def pull_(self, model: nn.Module, alive: Masks, strength: float) -> None:
        pull_to_zero_(norm_scales(model, self.name, sigmoid=False).items(), alive, strength)

    def score(self, view: View) -> Scores:
        return super().score(view).normalised(self.normalise)
