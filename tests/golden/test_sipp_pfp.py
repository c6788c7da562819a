"""Golden files of SiPP and PFP; what stands already: sensitivities, sampling, allocation, magnitude and filter norms."""

import copy
import math

import numpy as np
import torch
from torch import nn

from harness import Check, check, parameters
from pruning_core.activations import layer_inputs
from pruning_core.budgets import Budget, allocate
from pruning_core.discovery import find_groups
from pruning_core.groups import Sites
from pruning_core.masks import Masks
from pruning_core.measure import output_positions
from pruning_core.methods import View
from pruning_core.methods.norms import L1Norm, L2Norm
from pruning_core.methods.sipp import SiPPRand, draws_for_distinct, error, expected_distinct, water_fill
from pruning_core.scores import Scores
from pruning_core.sensitivity import sensitivity
from pruning_core.sites import find_sites
from sipp_networks import Dependencies, budget, network, propagate, settle_ties

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def sens(z):
    weight, x = torch.from_numpy(z["weight"]), torch.from_numpy(z["x"])
    if weight.dim() == 2:
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        geometry = {
            key: tuple(np.broadcast_to(z[key], 2).tolist()) for key in ("stride", "padding", "dilation") if key in z
        }
        groups = x.shape[1] // weight.shape[1]
        layer = nn.Conv2d(x.shape[1], weight.shape[0], tuple(weight.shape[2:]), groups=groups, bias=False, **geometry)
    layer.weight = nn.Parameter(weight)
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
        for target, draws, distinct in zip(z[f"target{i}"], z[f"m{i}"], z[f"exp_unique{i}"], strict=True):
            # Where the exact value is a whole number, rounding before the ceiling may differ by one.
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


def sipp_rand_alloc(z):
    model, names = network(z)
    x = torch.from_numpy(z["x"])
    sites = find_sites(model, channels=False)
    view = View(model, sites, Masks(), [(x, None)], nn.functional.cross_entropy, torch.Generator())
    inputs = {layer: tensor for seen in layer_inputs(model, names, [(x,)]) for layer, tensor in seen.items()}
    for i, name in enumerate(names):
        found = sensitivity(model.get_submodule(name), [inputs[name]], "max")
        np.testing.assert_allclose(found.weight, z[f"sensitivity{i}"], **CLOSE)
        assert found.positions == int(z[f"num_patches{i}"])
    method = SiPPRand(constant=float(z["c_constant"]), delta=float(z["delta"]))
    halves = method.halves(view)
    valid = z["valid"].astype(bool)
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
        shares = water_fill(a, weight, sizes, int(z[f"budget_{k}"]))
        np.testing.assert_allclose(shares, z[f"alloc_cont_{k}"][valid], atol=1e-2)
        np.testing.assert_allclose((weight * error(shares, a)).sum(), z[f"objective_{k}"], rtol=1e-6)
        near = np.abs(z[f"alloc_cont_{k}"][valid] - np.round(z[f"alloc_cont_{k}"][valid])) < 1e-2
        assert (np.abs(np.ceil(shares) - z[f"alloc_{k}"][valid]) <= near).all()
        stored = np.maximum(z[f"alloc_{k}"][valid], 1)
        by_sampling = error(stored, a)
        np.testing.assert_allclose(by_sampling, z[f"err_rand_{k}"][valid], rtol=1e-9)
        # What the largest scores leave out, times C; the official code keeps none where it may keep only one.
        kept = np.where(stored > 1, np.minimum(stored, sizes), 0)
        lost = [halves[i].scores.sort().values[: size - n].sum() for i, size, n in zip(order, sizes, kept, strict=True)]
        by_choosing = method.constant * np.array(lost)
        np.testing.assert_allclose(by_choosing, z[f"err_det_{k}"][valid], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(by_choosing > by_sampling, z[f"use_rand_{k}"][valid].astype(bool))


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


def base_wt(z):
    """The largest weights of the whole network; the official code keeps nothing where it may keep only one."""
    model, names = network(z)
    sites = find_sites(model, channels=False)
    order = [f"{name}.weight" for name in names]
    sites = Sites(sites.shapes, tuple(order), positions=sites.positions)
    scores = Scores({name: model.get_parameter(name).detach().abs() for name in order})
    pooled = torch.cat([score.flatten() for score in scores.values()])
    for i, score in enumerate(scores.values()):
        np.testing.assert_array_equal(score, z.get(f"sensitivity{i}", score))
    for k, ratio in enumerate(z["keep_ratios"]):
        kept = min(budget(z, float(ratio)), len(pooled))
        masks = Masks({name: torch.zeros(score.shape, dtype=torch.bool) for name, score in scores.items()})
        if kept > 1:
            masks = allocate(scores, Budget((len(pooled) - kept) / len(pooled), keep_at_least=0), Masks(), sites)
            assert sum(int(mask.sum()) for mask in masks.values()) == kept
        masks = Masks({n: mask if mask.sum() > 1 else torch.zeros_like(mask) for n, mask in masks.items()})
        mine = torch.cat([masks[name].flatten() for name in order])
        cut = pooled[mine].min() if mine.any() else math.inf
        for i, name in enumerate(order):
            tied = ((scores[name] - cut).abs() < 1e-9).flatten(1).any(1)
            stored = torch.from_numpy(np.broadcast_to(z[f"alloc{i}_{k}"], len(tied)).copy())
            assert torch.equal(masks[name].flatten(1).sum(1)[~tied], stored[~tied])
        stored = torch.cat([torch.from_numpy(z[f"mask{i}_{k}"]).bool().flatten() for i in range(len(names))])
        settled = settle_ties(mine & (pooled > 0), stored, pooled)  # a mask says what is not zero
        parts = settled.split([score.numel() for score in scores.values()])
        masks = Masks({name: part.view(scores[name].shape) for name, part in zip(order, parts, strict=True)})
        _compare(z, k, model, names, masks)


def base_ft(z):
    _filters(z, L1Norm(normalise="none"), lambda weight: weight.flatten(1).abs().sum(1))


def base_soft(z):
    _filters(z, L2Norm(normalise="none"), lambda weight: weight.flatten(1).norm(dim=1))


def _filters(z, method, norm):
    """One fraction of the filters of every layer but the last, the largest by norm, then what the others imply."""
    model, names = network(z)
    links = Dependencies(z, names)
    weights = {name: model.get_submodule(name).weight.detach() for name in names}  # type: ignore[union-attr]
    _norms_agree(model, torch.from_numpy(z["x"]), method, norm)
    for k, ratio in enumerate(z["keep_ratios"]):
        stored = {name: int(z[f"alloc{i}_{k}"]) for i, name in enumerate(names)}
        below, above = _around_the_jump(weights, links, budget(z, float(ratio)))
        assert all(stored[name] in (below[name], above[name]) for name in names)
        left = {name: weight.clone() for name, weight in weights.items()}
        for i, (name, weight) in enumerate(left.items()):
            size = norm(weight)
            keep = torch.zeros(len(weight), dtype=torch.bool)
            keep[size.argsort(descending=True, stable=True)[: stored[name]]] = True
            if not links.copies[name]:
                keep = settle_ties(keep, torch.from_numpy(z[f"mask{i}_{k}"]).bool().flatten(1).any(1), size)
            weight[~keep] = 0
        propagate(left, weights, links)
        _compare(z, k, model, names, Masks({f"{name}.weight": weight != 0 for name, weight in left.items()}))


def _norms_agree(model, x, method, norm):
    """The package's filter norms are the norms used here, for every group with one producing layer."""
    sites = find_sites(model, channels=True, example_input=x[:1])
    view = View(model, sites, Masks(), None, nn.functional.cross_entropy, torch.Generator())
    scores = method.score(view)
    compared = 0
    for group in find_groups(model, x[:1]):
        producers = {member.layer for member in group.produces}
        if group.reason_fixed is None and len(producers) == 1:
            weight = model.get_submodule(producers.pop()).weight.detach()
            np.testing.assert_allclose(scores[group.name], norm(weight), rtol=1e-12)
            compared += 1
    assert compared


def _counts(weights, links: Dependencies, fraction: float) -> dict[str, int]:
    return {
        name: len(weight) if name == links.last else max(int(np.round(fraction * len(weight))), 1)
        for name, weight in weights.items()
    }


def _size(weights, links: Dependencies, fraction: float) -> int:
    """The official estimate: a layer reads what the layer before it in the list makes, even where that is a shortcut."""
    counts = _counts(weights, links, fraction)
    size, before = 0, 0
    for name, weight in weights.items():
        inputs = before if len(links.feeders[name]) == 1 else weight.shape[1]
        size += inputs * counts[name] * math.prod(weight.shape[2:])
        before = counts[name]
    return size


def _around_the_jump(weights, links: Dependencies, wanted: int) -> tuple[dict[str, int], dict[str, int]]:
    """Filters kept just below and just above the fraction at which the size reaches what is wanted.

    The size is a step function, so the official root lies on either side; where several layers step at once, rounding in
    single precision decides for each of them.
    """
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _size(weights, links, middle) < wanted:
            low = middle
        else:
            high = middle
    return _counts(weights, links, low - 1e-6), _counts(weights, links, high + 1e-6)


def _compare(z, k: int, model, names: list[str], masks: Masks):
    """Masks, counts and outputs of the k-th keep ratio."""
    pruned = copy.deepcopy(model)
    masks.apply_(pruned)
    x = torch.from_numpy(z["x"])
    positions = output_positions(model, x[:1])
    nonzero = []
    for i, name in enumerate(names):
        np.testing.assert_array_equal(masks[f"{name}.weight"], z[f"mask{i}_{k}"])
        nonzero.append(int(masks[f"{name}.weight"].sum()))
    np.testing.assert_array_equal(nonzero, z[f"nnz_per_layer_{k}"])
    assert sum(int(torch.count_nonzero(p)) for p in pruned.parameters()) == int(z[f"size_after_{k}"])
    assert sum(n * positions[name] for n, name in zip(nonzero, names, strict=True)) == int(z[f"flops_after_{k}"])
    with torch.no_grad():
        np.testing.assert_allclose(pruned(x), z[f"logits_{k}"], rtol=1e-7, atol=1e-12)


CHECKS: dict[str, Check] = {
    "sens_linear": sens,
    "sens_conv": sens,
    "sample_size_util": sample_size_util,
    "sipp_rand_alloc": sipp_rand_alloc,
    "base_wt": base_wt,
    "base_ft": base_ft,
    "base_soft": base_soft,
}


@parameters("sipp_pfp")
def test_golden(path):
    check("sipp_pfp", path, CHECKS)
