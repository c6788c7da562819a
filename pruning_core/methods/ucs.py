"""Uniform channel scaling (UCS) of RNI's code (suteu2022rni): ``score(c) = |gamma_c|``, or sigma(g_c) of a sigmoid norm."""

from pruning_core.masks import Budget
from pruning_core.methods.base import Choice, View, register
from pruning_core.methods.shared.batch_norm_scales import Thresholded
from pruning_core.methods.shared.within_layers import within_layers


@register
class UniformChannelScaling(Thresholded):
    """In every layer the same fraction of channels goes, those with the smallest batch-norm scales; no penalty."""

    name, citation = "ucs", "suteu2022rni"
    spreads = "layers"

    def choose(self, view: View, budget: Budget) -> Choice:
        budget, remarks = within_layers(budget)
        choice = super().choose(view, budget)
        return choice._replace(remarks=choice.remarks + remarks)
