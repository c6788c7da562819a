"""Golden checks of the networks of SNIP-it: their counts, and the official rules of counting."""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.models.build import rebuild, recipe_for
from pruning_core.models.cost import count_parameters
from pruning_core.papers.snipit.counts import (
    compressed_bits,
    harmonic_mean,
    reference_flops,
    saliency_maps,
    saliency_picture,
)
from tests.golden.snipit.built import masked_layers, network

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
    """What the official code counts of a network with zeros, and its picture of saliency."""
    model = network(z, "masked")
    weights = {name: p.detach() for name, p in model.named_parameters() if name.endswith("weight")}
    total, zeros = sum(w.numel() for w in weights.values()), sum(int((w == 0).sum()) for w in weights.values())
    np.testing.assert_array_equal(total, z["weight_count"])
    np.testing.assert_array_equal(zeros, z["number_of_pruned_weights"])
    bits = compressed_bits(model)
    np.testing.assert_array_equal(bits, z["compressed_size_bits"])
    np.testing.assert_allclose(math.log(bits), z["log_disk_size"], rtol=1e-12)
    np.testing.assert_allclose(zeros / (total + 1e-6), z["pruned_percentage"], rtol=1e-9)
    outer = [weight.numel() for weight in masked_layers(model).values()]
    shares = [
        zeros / (total - spared + 1e-6) for spared in (0, outer[0] + outer[-1])
    ]  # with the outer layers, or without
    nearest = min(shares, key=lambda share: abs(share - float(z["pruned_percentage_of_prunable"])))
    np.testing.assert_allclose(nearest, z["pruned_percentage_of_prunable"], rtol=1e-9)
    np.testing.assert_allclose(0.0, z["structural_sparsity"], rtol=0, atol=1e-9)  # nothing has been removed
    sparsity, accuracy = (
        float(z["pruned_percentage"]),
        float(z["test_acc"]),
    )  # the accuracy is a fraction, ours is percent
    np.testing.assert_allclose(2 * sparsity * accuracy / (sparsity + accuracy + 1e-8), z["hm"], rtol=1e-9)
    np.testing.assert_allclose(harmonic_mean(sparsity, 100 * accuracy), z["hm"], rtol=1e-7)
    saliency(z)


def saliency(z):
    """The gradient of the top logit, and the picture that is made of it beside the inputs."""
    model, x = network(z, "sal/init"), torch.from_numpy(z["sal/x"])
    images = x.double().requires_grad_(True)
    (slopes,) = torch.autograd.grad(model(images).max(1).values.sum(), images)
    tolerance = 1e-9 if z["sal/input_gradient"].dtype == np.float64 else 1e-5
    scale = float(slopes.abs().max())
    np.testing.assert_allclose(slopes, z["sal/input_gradient"], rtol=tolerance, atol=tolerance * scale)
    shown = (slopes - slopes.mean()) / slopes.std() * 0.1 + 0.5
    np.testing.assert_allclose(saliency_maps(model, x.double(), reference=True), shown.clamp(0, 1), rtol=1e-9)
    picture = saliency_picture(model, x.double())
    np.testing.assert_allclose(picture, z["sal/image"].squeeze(), rtol=0, atol=1e-6)


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {
    "network_counts": network_counts,
    "statistics": statistics,
}
