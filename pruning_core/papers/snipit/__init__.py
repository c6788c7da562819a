"""SNIP-it (Verdenius et al. 2020): what its code counts, and pictures of saliency."""

from pruning_core.papers.snipit.counts import compressed_bits, harmonic_mean, reference_flops, saliency_maps

__all__ = ["compressed_bits", "harmonic_mean", "reference_flops", "saliency_maps"]
