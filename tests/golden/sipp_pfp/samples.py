"""Golden checks of what SiPP and PFP draw from: sensitivities, numbers of draws, halves and how they share a budget."""

import math

import numpy as np
import scipy.optimize
import torch
from torch import nn

import pruning_core as pc
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.shared.draws import draws_for_distinct, error, expected_distinct, water_fill
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.methods.sipp import SiPPHybrid, SiPPRand
from pruning_core.models.activations import layer_inputs
from tests.golden.harness import Check
from tests.golden.sipp_pfp.networks import budget, check_labels, network

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def sens(z):
    weight, x = torch.from_numpy(z["weight"]), torch.from_numpy(z["x"])
    if weight.dim() == 2:
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in z)
    else:
        geometry = {
            key: tuple(np.broadcast_to(z[key], 2).tolist()) for key in ("stride", "padding", "dilation") if key in z
        }
        groups = x.shape[1] // weight.shape[1]
        layer = nn.Conv2d(
            x.shape[1], weight.shape[0], tuple(weight.shape[2:]), groups=groups, bias="bias" in z, **geometry
        )
    layer.weight = nn.Parameter(weight)
    if "bias" in z:  # it has no part in any sensitivity
        layer.bias = nn.Parameter(torch.from_numpy(z["bias"]))
    for size in (1, 4, len(x)):
        largest = sensitivity(layer, x.split(size), "max")
        mean = sensitivity(layer, x.split(size), "mean")
        np.testing.assert_allclose(largest.weight, z["sens_max"], **CLOSE)
        np.testing.assert_allclose(largest.channel, z["sens_in"], **CLOSE)
        np.testing.assert_allclose(mean.weight, z["sens_mean"], **CLOSE)
        np.testing.assert_allclose(mean.channel, z["sens_in_mean"], **CLOSE)
    assert largest.positions == int(z["num_patches"])


def sample_size_util(z):
    for i in range(sum(1 for name in z if name.startswith("target"))):
        q = z[f"p{i}"]
        n = np.count_nonzero(q)
        np.testing.assert_allclose(q.sum(), 1.0, rtol=1e-9)
        for target, draws, distinct in zip(z[f"target{i}"], z[f"m{i}"], z[f"exp_unique{i}"], strict=True):
            # Where the exact value is a whole number, rounding before the ceiling may differ by one.
            assert int(draws) == official_draws(q, int(target))
            exact = float(np.sum(1 - (1 - q) ** int(draws)))
            allowed = 1 if abs(exact - round(exact)) < 1e-9 else 0
            assert abs(expected_distinct(q, int(draws)) - int(distinct)) <= allowed
            ours = draws_for_distinct(q, int(target))
            wanted = min(int(target), n - 1) if n > 1 else min(int(target), 1)
            reached = expected_distinct(q, ours)
            # On a plateau many numbers of draws are right; where the steps jump over the target, either side is.
            assert reached == wanted or expected_distinct(q, ours - 1) < wanted < reached
        for target, closed in zip(z[f"target{i}"], z.get(f"m_uniform{i}", ()), strict=f"m_uniform{i}" in z):
            # The closed form for equal probabilities aims at the target itself, ours at what rounds up to it.
            wanted = min(int(target), n - 1)
            assert int(closed) == math.ceil(math.log(n / (n - wanted)) / math.log(n / (n - 1)))
            assert expected_distinct(q, int(closed)) >= wanted
            assert draws_for_distinct(q, int(target)) <= max(int(closed), wanted)
    total = z["stats_sens"].sum(1)
    np.testing.assert_allclose(total, z["stats_sum"], **CLOSE)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.nan_to_num(z["stats_sens"] / total[:, None], posinf=0.0)
    np.testing.assert_allclose(np.where(q <= 1.1920929e-07, 0, q), z["stats_prob"], **CLOSE)


def official_draws(q, wanted: int) -> int:
    """The number of draws that the official search ends with: bisection from a lower bound of Jensen's inequality."""
    q = q[q > 0]
    n = len(q)
    if wanted <= 1 or n <= 1:
        return wanted
    wanted = min(wanted, n - 1)
    low = math.floor(math.log(n / (n - wanted)) / -math.log1p(-q.mean()))
    high = max(low, 1)

    def gap(m: float) -> int:
        return math.ceil(float(np.sum(1 - (1 - q) ** int(m)))) - wanted

    while gap(high) < 0:
        high *= 2
    if gap(low) >= 0:
        return low
    return int(scipy.optimize.bisect(gap, low, high))


def sipp_rand_alloc(z):
    _sampled(z, SiPPRand)


def sipp_hybrid(z):
    _sampled(z, SiPPHybrid)


def _sampled(z, kind):
    model, names = network(z)
    x = torch.from_numpy(z["x"])
    sites = find_sites(model, channels=False)
    view = View(model, sites, Masks(), [(x, None)], nn.functional.cross_entropy, torch.Generator())
    inputs = {layer: tensor for seen in layer_inputs(model, names, [(x,)]) for layer, tensor in seen.items()}
    for i, name in enumerate(names):
        found = sensitivity(model.get_submodule(name), [inputs[name]], "max")
        np.testing.assert_allclose(found.weight, z[f"sensitivity{i}"], **CLOSE)
        assert found.positions == int(z[f"num_patches{i}"])
    check_labels(z, model)
    method = kind(constant=float(z["c_constant"]), delta=float(z["delta"]))
    halves = method.halves(view)
    valid = z["valid"] == 1
    order = np.argsort(_official_order(halves, names, model))
    a = np.array([halves[i].coefficient for i in order]) / 3
    sizes = np.array([len(halves[i].entries) for i in order])
    weight = np.array([halves[i].weight for i in order])
    np.testing.assert_allclose(3 * a, z["coeffs"][valid], **CLOSE)
    np.testing.assert_allclose([halves[i].scores.sum() for i in order], z["sum_sens"][valid], **CLOSE)
    np.testing.assert_array_equal(sizes, z["nnz"][valid])
    np.testing.assert_allclose(weight, z["l_coeffs"][valid], **CLOSE)
    for k, ratio in enumerate(z["keep_ratios"]):
        assert budget(z, float(ratio)) == int(z[f"budget_{k}"])
        _shares(z, k, a, weight, sizes)
        stored = np.maximum(z[f"alloc_{k}"][valid], 1)
        by_sampling = error(stored, a)
        np.testing.assert_allclose(by_sampling, z[f"err_rand_{k}"][valid], rtol=1e-9)
        # What the largest scores leave out, times C; the official code keeps none where it may keep only one.
        kept = np.where(stored > 1, np.minimum(stored, sizes), 0)
        lost = [halves[i].scores.sort().values[: size - n].sum() for i, size, n in zip(order, sizes, kept, strict=True)]
        by_choosing = method.constant * np.array(lost)
        np.testing.assert_allclose(by_choosing, z[f"err_det_{k}"][valid], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(by_choosing > by_sampling, z[f"use_rand_{k}"][valid])
        if kind is SiPPHybrid:
            chosen = [method.by_sampling(halves[i], int(n)) for i, n in zip(order, kept, strict=True)]
            np.testing.assert_array_equal(chosen, z[f"use_rand_{k}"][valid])
        for name in ("alloc", "alloc_cont", "err_rand", "err_det", "use_rand"):
            np.testing.assert_array_equal(np.nan_to_num(z[f"{name}_{k}"][~valid]), 0)  # halves without sensitivities
        _drawn(model, method, halves, x, int(z[f"budget_{k}"]))


def _shares(z, k: int, a, weight, sizes) -> None:
    """Our shares of the k-th budget: the objective and the marginals of the official ones, which a solver left inexact."""
    valid, total = z["valid"].astype(bool), int(z[f"budget_{k}"])
    ours, official = water_fill(a, weight, sizes, total), z[f"alloc_cont_{k}"][valid]
    np.testing.assert_allclose((weight * error(ours, a)).sum(), z[f"objective_{k}"], rtol=1e-8)
    np.testing.assert_allclose((weight * error(official, a)).sum(), z[f"objective_{k}"], rtol=1e-8)
    np.testing.assert_allclose(ours, official, atol=0.15)
    inside = np.maximum(ours, official) < sizes * (1 - 1e-3)
    slopes = [
        weight[inside] * (error(x[inside] * (1 + 1e-6), a[inside]) - error(x[inside], a[inside])) / (1e-6 * x[inside])
        for x in (ours, official)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-3)
    near = np.abs(official - np.round(official)) < 1e-2
    assert (np.abs(np.ceil(official) - z[f"alloc_{k}"][valid]) <= near).all()


def _drawn(model, method, halves, x, kept: int) -> None:
    """What ``prune`` draws: the budget to the weight; a half whole, its largest as they are, or c / (m q) of each weight."""
    total = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    result = pc.prune(model, method, 1 - kept / total, batches=[(x, None)], seed=kept)
    assert total - result.masks.removed == kept
    for half in halves:
        before = model.get_parameter(half.parameter).detach().flatten()[half.entries]
        after = result.model.get_parameter(half.parameter).detach().flatten()[half.entries]
        ratio, alive = after / before, after != 0
        share = half.scores / half.scores.sum()
        if bool((ratio[alive] == 1).all()):
            least = half.scores[alive].min() if alive.any() else math.inf
            assert not bool((half.scores[~alive] > least).any())
        else:  # ratio = c / (m q), and the draws c add up to m
            np.testing.assert_allclose((ratio * share).sum(), 1.0, rtol=1e-9)


def _official_order(halves, names, model) -> np.ndarray:
    """Layer by layer, all positive halves, then all negative ones, filter by filter."""
    keys = []
    for half in halves:
        layer = half.parameter.rpartition(".")[0]
        weight = model.get_parameter(half.parameter).detach().flatten(1)
        row = int(half.entries[0]) // weight.shape[1]
        sign = float(weight.flatten()[half.entries[0]])
        keys.append((names.index(layer) * 2 + (sign < 0)) * 10**6 + row)
    return np.array(keys)


CHECKS: dict[str, Check] = {
    "sens_linear": sens,
    "sens_conv": sens,
    "sample_size_util": sample_size_util,
    "sipp_rand_alloc": sipp_rand_alloc,
    "sipp_hybrid": sipp_hybrid,
}
