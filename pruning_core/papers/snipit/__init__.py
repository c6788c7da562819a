"""SNIP-it (Verdenius et al. 2020): what its code counts and watches, and pictures of saliency."""

from pruning_core.papers.snipit.counts import (
    compressed_bits,
    harmonic_mean,
    reference_flops,
    saliency_maps,
    saliency_picture,
)
from pruning_core.papers.snipit.observers import Elasticities, OfficialTags, SignFlips, WeightStatistics

__all__ = [
    "Elasticities", "OfficialTags", "SignFlips", "WeightStatistics",
    "compressed_bits", "harmonic_mean", "reference_flops", "saliency_maps", "saliency_picture",
]  # fmt: skip
