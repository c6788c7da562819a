"""Golden files of How Sparse Can We Prune that need no Hessian: widths, masks, and what the pipeline makes of a spectrum."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.prediction import magnitude_distance, predict
from pruning_core.papers.how_sparse.reference import (
    reference_actual,
    reference_magnitude_mask,
    reference_predict,
    reference_widths,
)
from tests.golden.harness import Check


def gaussian_width(z):
    """G(R) of weighted eigenvalues, at all distances together and one by one."""
    cases = int(z["n_cases"])
    assert cases
    for c in range(cases):
        spectrum = (z[f"lam_{c}"], float(z[f"eps_{c}"]), z[f"weight_{c}"])
        found = normalised_width(z[f"R_{c}"], *spectrum)
        np.testing.assert_allclose(found, z[f"gw_{c}"], rtol=1e-12)
        for distance, width in zip(z[f"R_{c}"], z[f"gw_{c}"], strict=True):
            np.testing.assert_allclose(normalised_width(float(distance), *spectrum), width, rtol=1e-12)


def mask(z):
    """Threshold, mask, what stays, and how far that is from the weights, at every rate; norms of the whole."""
    state = {name.removeprefix("sd__"): torch.from_numpy(z[name]) for name in z if name.startswith("sd__")}
    # layer_order holds layers or parameters; a layer's weight is the parameter of that name.
    order = [str(name) if str(name) in state else f"{name}.weight" for name in z["layer_order"]]
    weights = {name: state[name] for name in order}
    parameters = [str(name) for name in z["param_order"]]
    distances = magnitude_distance(weights)
    for i, rate in enumerate(z["rates"]):
        found = reference_magnitude_mask(weights, float(rate))
        keep = torch.cat([found.masks[name].flatten() for name in order])
        np.testing.assert_array_equal(keep, z["keep_mask"][i])
        assert found.kept == int(z["n_kept"][i]) == int(keep.sum())
        np.testing.assert_allclose(found.threshold, z["threshold"][i], rtol=1e-12)
        np.testing.assert_allclose(found.distance, z["l2_distance"][i], rtol=1e-12)
        np.testing.assert_allclose(distances[len(keep) - found.kept], z["l2_distance"][i], rtol=1e-12)
        pruned = [state[p] * found.masks[p] if p in found.masks else state[p] for p in parameters]
        np.testing.assert_array_equal(torch.cat([p.flatten() for p in pruned]), z["pruned_flat"][i])
    norms = torch.stack([state[p].norm() for p in parameters])
    assert sum(state[p].numel() for p in parameters) == int(z["n_params"])
    np.testing.assert_allclose(norms.sum(), z["sum_of_tensor_l2_norms"], rtol=1e-12)
    np.testing.assert_allclose(norms.norm(), z["global_l2_norm"], rtol=1e-12)
    np.testing.assert_allclose(max(float(state[p].max()) for p in parameters), z["max_weight"], rtol=1e-12)


def pipeline(z):
    """From the dense weights to the official answer: distances, epsilon, widths, both predictions, sweep, actual limit."""
    state = {name.removeprefix("analysed__"): torch.from_numpy(z[name]) for name in z if name.startswith("analysed__")}
    trained = {name.removeprefix("trained__"): torch.from_numpy(z[name]) for name in z if name.startswith("trained__")}
    assert sum(values.numel() for values in state.values()) == int(z["n_params"])
    np.testing.assert_allclose(sum(float(values.norm()) for values in state.values()), z["norm_sum"], rtol=1e-9)
    # The analysed network is the trained one at rate 0, where the official rule still removes its smallest weight.
    weights = {name: trained[name] for name in trained if trained[name].dim() > 1}
    first = reference_magnitude_mask(weights, 0.0).masks
    for name, values in state.items():
        np.testing.assert_array_equal(trained[name] * first[name] if name in first else trained[name], values)
    magnitudes = [state[name] for name in weights]
    n, points = sum(m.numel() for m in magnitudes), len(z["R_list"])
    of_fraction = [max(math.ceil(i / points * n), 1) for i in range(points)]
    distances = magnitude_distance(magnitudes)[of_fraction]
    np.testing.assert_allclose(distances, z["R_list"], rtol=1e-9, atol=1e-12)

    epsilon, null = float(z["epsilon"]), int(z["zero_rows"]) / 100
    x, y = torch.from_numpy(z["X"]), torch.from_numpy(z["y"])
    batches = list(zip(x.split(int(z["batch_size"])), y.split(int(z["batch_size"])), strict=True))
    losses = torch.stack([F.cross_entropy(outputs(state, inputs), labels) for inputs, labels in batches])
    np.testing.assert_allclose(losses.std(correction=0), epsilon, rtol=1e-9)
    penalty = float(z["lmbda"]) * sum(values.abs().sum() for values in state.values())
    mean = F.cross_entropy(outputs(state, x), y) if len(x) % len(batches[0][0]) else losses.mean()
    np.testing.assert_allclose(mean + penalty, z["loss_with_reg"], rtol=1e-9)

    grid = np.linspace(*z["grid_first_last"], int(z["grid_bins"]))[z["density_nonzero_index"]]
    density = z["density_nonzero"]
    assert bool((np.diff(z["density_nonzero_index"]) > 0).all()), "the places of a density rise"
    whole = np.arange(len(z["gw_list"]))
    np.testing.assert_allclose(reference_widths(whole, grid, density, epsilon, null), z["gw_list"], rtol=1e-9)
    official = reference_predict(grid, density, z["R_list"], epsilon, null_fraction=null)
    assert official.position == int(z["sparse_index"])
    assert official.removed == float(z["predicted_ratio"])

    # Our own way, on the Ritz pairs and without rounding.
    direct = normalised_width(z["R_list"], z["ritz"], epsilon, z["weight"], null)
    np.testing.assert_allclose(direct, z["gw_direct_unrounded"], rtol=1e-9)
    limit = predict(z["ritz"], z["weight"], epsilon, magnitudes, null_fraction=null)
    assert abs(limit.removed - float(z["predicted_direct_unrounded"])) <= 0.001 + 1 / n

    sweep(z, state, weights)
    actual = reference_actual(z["acc"])
    np.testing.assert_equal(math.nan if actual is None else actual, float(z["actual_ratio"]))


def sweep(z, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Accuracy on both sets and the loss (with its penalty) on the second, at every point of the sweep."""
    sets = {name: (torch.from_numpy(z[name]), torch.from_numpy(z[name.replace("X", "y")])) for name in ("X", "X_val")}
    points = len(z["acc"])
    for i in range(points):
        masks = reference_magnitude_mask(weights, i / points).masks
        pruned = {name: values * masks[name] if name in masks else values for name, values in state.items()}
        logits = {name: outputs(pruned, inputs) for name, (inputs, _) in sets.items()}
        right = {name: int((logits[name].argmax(1) == sets[name][1]).sum()) for name in sets}
        np.testing.assert_allclose(100 * right["X_val"] / len(sets["X_val"][0]), z["acc"][i], rtol=1e-12)
        np.testing.assert_allclose(100 * right["X"] / len(sets["X"][0]), z["train_acc"][i], rtol=1e-12)
        penalty = float(z["lmbda"]) * sum(values.abs().sum() for values in pruned.values())
        loss = F.cross_entropy(logits["X_val"], sets["X_val"][1]) + penalty
        np.testing.assert_allclose(loss, z["loss"][i], rtol=1e-9)


def outputs(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Linear layers with ReLU between them, in the order of their numbers."""
    assert all(name.startswith("linear.") for name in state), "the pipeline's networks have linear layers only"
    layers = sorted({int(name.split(".")[1]) for name in state})
    for i in layers:
        x = F.linear(x, state[f"linear.{i}.weight"], state.get(f"linear.{i}.bias"))
        if i != layers[-1]:
            x = x.relu()
    return x


CHECKS: dict[str, Check] = {"gaussian_width": gaussian_width, "mask": mask, "pipeline": pipeline}
