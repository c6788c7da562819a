"""SNIP-it (Verdenius et al. 2020): what its code counts and watches, and pictures of saliency."""

from pruning_core.experiments.observers import Elasticities, SignFlips, WeightStatistics
from pruning_core.papers.snipit.counts import (
    compressed_bits,
    harmonic_mean,
    reference_flops,
    saliency_maps,
    saliency_picture,
)
from pruning_core.papers.snipit.tags import OfficialTags

__all__ = [
    "Elasticities", "OfficialTags", "SignFlips", "WeightStatistics",
    "compressed_bits", "harmonic_mean", "reference_flops", "saliency_maps", "saliency_picture",
]  # fmt: skip
