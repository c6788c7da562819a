"""Golden checks of the networks of SNIP-it: their counts, and the official rules of counting."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.models.build import rebuild, recipe_for
from pruning_core.models.cost import count_parameters
from pruning_core.papers.snipit.counts import compressed_bits, harmonic_mean, reference_flops

NAMES = {
    "MLP5": "mlp5_snip",
    "LeNet300": "lenet300_snip",
    "LeNet5": "lenet5_snip",
    "Conv6": "conv6_snip",
    "ConvOnly": "conv_only_snip",
    "AlexNet": "alexnet_snip",
    "VGG16": "vgg16_snip",
    "ResNet18": "resnet18_snip",
    "ResNet34": "resnet34_snip",
    "LogisticRegression": "logistic",
}


def network_counts(z):
    """Parameters, weights, hidden units, FLOPs with and without the official over-count, bits of the dense network."""
    for start in dict.fromkeys("/".join(key.split("/")[:2]) for key in z if key.count("/") >= 2):
        name, _, size = start.partition("/")
        channels, side = map(int, re.fullmatch(r"(\d+)x(\d+)", size).groups())
        classes = int(z[f"{start}/classes"]) if f"{start}/classes" in z else 10
        model = rebuild(recipe_for(NAMES[name], (channels, side, side), classes))
        for parameter in model.parameters():  # sizes count what is not 0; the paper's weights would take a while
            nn.init.ones_(parameter)
        example = torch.zeros(1, channels, side, side)
        weights = {n: model.get_parameter(n).numel() for n in find_sites(model, channels=False).weights}
        layers = list(weights.values())
        norms = sum(m.num_features for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        flops = reference_flops(model, example)
        # The official code counts every layer's outputs but the last one's as nodes, whether or not they can be cut.
        outputs = [len(model.get_parameter(n)) for n in weights]
        found = {
            "parameters": count_parameters(model),
            "prunable_weights": sum(layers),
            "weight_count_incl_norm": sum(layers) + norms,
            "hidden_nodes": sum(outputs) - outputs[-1],
            "first_layer_weights": layers[0],
            "last_layer_weights": layers[-1],
            "flops_batch1": flops,
            "flops_batch8_repo": reference_flops(model, example, reference=True),
            "compressed_size_bits_dense": compressed_bits(model),
        }
        for key, ours in found.items():
            if f"{start}/{key}" in z:
                # The official code adds FLOPs up in float32, so beyond 2^24 its sums are rounded.
                slack = 100 if key.startswith("compressed") else 5e-7 * found["flops_batch8_repo"] * ("flops" in key)
                slack = slack if key.startswith("compressed") or found[key] > 2**24 else 0
                assert abs(ours - float(z[f"{start}/{key}"])) <= slack, f"{start}/{key}: {ours}, {z[f'{start}/{key}']}"
        for key in (k for k in z if k.startswith(f"{start}/cumulative_after_")):
            batches, size_ = map(int, re.search(r"after_(\d+)_batches_of_(\d+)_batch1", key).groups())
            np.testing.assert_allclose(flops * batches * size_, z[key], rtol=5e-7 if flops > 2**24 else 0)
        groups = find_groups(model, example)
        assert sum(g.reason_fixed == "they are outputs of the network" for g in groups) == 1


def statistics(z):
    """Whatever of the statistics' definitions a file names: harmonic means, compressed sizes, sparsities of its weights."""
    checked = 0
    mean = next((z[name] for name in ("harmonic_mean", "hm", "sparse/hm") if name in z), None)
    if mean is not None and {"sparsity", "accuracy"} <= set(z):
        for s, a, m in zip(*(np.atleast_1d(part) for part in (z["sparsity"], z["accuracy"], mean)), strict=True):
            # The official accuracy is a fraction, ours percent.
            np.testing.assert_allclose(harmonic_mean(float(s), 100 * float(a)), m, rtol=1e-6)
            checked += 1
    weights = {name: array for name, array in z.items() if name.endswith("weight") and array.ndim in (1, 2, 4)}
    if weights:
        holder = nn.Module()
        for i, array in enumerate(weights.values()):
            part = nn.Module()
            part.register_parameter("weight", nn.Parameter(torch.from_numpy(array).double()))
            holder.add_module(str(i), part)
        bits = compressed_bits(holder)
        for name, ours in (("compressed_size_bits", bits), ("log_disk_size", np.log(bits))):
            if name in z:
                np.testing.assert_allclose(ours, z[name], rtol=1e-9)
                checked += 1
        zeros = sum(int((array == 0).sum()) for array in weights.values())
        if "pruned_percentage" in z:
            total = sum(array.size for array in weights.values())
            np.testing.assert_allclose(zeros / total, z["pruned_percentage"], rtol=0, atol=1e-6)
            checked += 1
    if not checked:
        pytest.skip(f"none of these is a statistic that is known here: {', '.join(z)}")


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {
    "network_counts": network_counts,
    "statistics": statistics,
}
