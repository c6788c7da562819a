r"""Receding neuron importances: weak channels recede, strong ones are left alone (Suteu and Guo 2022, suteu2022rni).

    u = g + b,   s = sigma(u),       R(g) = s (1 - ln s),       dR/dg = -s (1 - s) ln s  >= 0
    penalty = sum over all sigmoid batch norms and channels of R(g),        score(c) = sigma(g_c)

g is the raw scale of a sigmoid batch norm, whose output is sigma(g) times the normalised input. The force dR/dg is largest
at s = 0.2356, that is g = -1.177 - b, and vanishes on both sides, faster on the upper one: exp(-2u) against |u| exp(u). The
sum is no mean: its strength scales with the width of the network. It covers channels that can never be pruned, too; which
they are, a penalty, which sees the network but no input, cannot know.

With ls = ln sigma(u) taken in one step, R = exp(ls) (1 - ls): sigma(u) itself underflows for large negative u, and its
logarithm is then infinite.
"""

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, Real, checked
from pruning_core.masks import Group, Masks, Member
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.batch_norm_scales import SIGMOID, Thresholded, living_scales, scales_of
from pruning_core.methods.shared.swapping import swap_norms, with_norms
from pruning_core.models.layers.norms import is_official


@register
class RecedingNeurons(Thresholded):
    """Trained with sigmoid batch norms and a penalty under which weak channels recede, the least important ones go.

    ``b`` shifts the penalty: the larger, the weaker a channel must be before it is pushed.
    """

    name, citation = "rni", "suteu2022rni"
    constraints = Constraints(b=Real())

    b: float = 0.0

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Swap ordinary batch norms for sigmoid ones with g ~ N(0, 1), in place; those that are there already stay.

        A network without any batch norm gets sigmoid ones (``with_norms``). g comes from torch's global random state, as
        all initial weights do.
        """
        return swap_norms(with_norms(model, example_input, *SIGMOID), *SIGMOID, lambda kind, norm: kind.fresh(norm))

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of R(g) over all sigmoid batch norms; dead channels count nothing."""
        return receding(living_scales(model, alive, self.name, sigmoid=True), self.b).sum()

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        ordinary = [m for m in scales_of(model, group) if not isinstance(model.get_submodule(m.layer), SIGMOID)]
        if ordinary and is_official(model.get_submodule(ordinary[0].layer)):
            return (
                "their norms are those of the code of RNI; pruning_core.papers.rni.from_official(model) takes them over"
            )
        if ordinary:
            return f"{ordinary[0].layer!r} is an ordinary batch norm, and RNI ranks by sigmoid ones; train with them"
        return super().refuses(model, group)

    def _importance(self, view: View, member: Member) -> Tensor:
        # In float32, sigma(g) of g < -104 is 0 and such channels would tie; the official code computes it there.
        weight = view.parameter(member.parameter)
        return torch.sigmoid(weight if self.reference else weight.double())


@checked
def receding(g: Tensor, b: float = 0.0) -> Tensor:
    """R(g) = s (1 - ln s) with s = sigma(g + b), for each entry of ``g``: between 0 and 1, rising, finite for every g.

    >>> receding(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000, 0.8466, 1.0000])
    """
    log_sigmoid = nn.functional.logsigmoid(g + b)
    return log_sigmoid.exp() * (1 - log_sigmoid)
