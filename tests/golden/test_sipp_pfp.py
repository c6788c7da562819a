"""Golden files of SiPP and PFP; what stands already: sensitivities, sampling, allocation, magnitude and filter norms."""

import copy
import itertools
import math

import numpy as np
import scipy.optimize
import torch
from torch import nn

from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import View
from pruning_core.methods.norms import L1Norm, L2Norm
from pruning_core.methods.pfp import kept_at, split
from pruning_core.methods.shared.draws import (
    Draws,
    coefficient,
    draws_for_distinct,
    error,
    expected_distinct,
    water_fill,
)
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.methods.sipp import SiPP, SiPPHybrid, SiPPRand
from pruning_core.methods.snip import Snip
from pruning_core.models.activations import layer_inputs
from pruning_core.models.cost import output_positions
from tests.golden.harness import Check, check, parameters
from tests.golden.sipp_pfp.networks import Dependencies, budget, network, propagate, settle_ties
from tests.golden.sipp_pfp.schedules import commensurate_file, keep_ratio_schedules, schedules_misc

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
    method = kind(constant=float(z["c_constant"]), delta=float(z["delta"]))
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
        if kind is SiPPHybrid:
            chosen = [method.by_sampling(halves[i], int(n)) for i, n in zip(order, kept, strict=True)]
            np.testing.assert_array_equal(chosen, z[f"use_rand_{k}"][valid].astype(bool))


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
    """The largest weights of the whole network."""
    model, names = network(z)
    scores = Scores({f"{name}.weight": model.get_submodule(name).weight.detach().abs() for name in names})
    for i, score in enumerate(scores.values()):
        np.testing.assert_array_equal(score, z.get(f"sensitivity{i}", score))
    best_of_all(z, model, names, scores)


def base_snip(z):
    """The weights with the largest |gradient x weight|, the mean taken over the batch before the absolute value."""
    model, names = network(z)
    scored_by(z, model, names, Snip(loss="training"), [(torch.from_numpy(z["x"]), torch.from_numpy(z["y"]))])


def sipp_det(z):
    """The weights with the largest sensitivities, the mean taken over positions."""
    model, names = network(z)
    x = torch.from_numpy(z["x"])
    scored_by(z, model, names, SiPP(), [(part, None) for part in x.split(5)])


def scored_by(z, model, names, method, batches):
    """The method's scores are those of the file (SNIP's up to the loss that it divides by), and so are the masks."""
    sites = find_sites(model, channels=False)
    sites = Sites(sites.shapes, tuple(f"{name}.weight" for name in names), positions=sites.positions)
    view = View(model, sites, Masks(), batches, nn.functional.cross_entropy, torch.Generator())
    found = method.score(view)
    scale = 1.0
    if isinstance(method, Snip):
        x, y = batches[0]
        scale = float(nn.functional.cross_entropy(model(x), y))
    scores = Scores({name: scale * found[name] for name in sites.weights})
    for i, score in enumerate(scores.values()):
        np.testing.assert_allclose(score.detach(), z[f"sensitivity{i}"], **CLOSE)
    best_of_all(z, model, names, scores)


def best_of_all(z, model, names, scores):
    """The largest scores of the whole network; the official code keeps nothing where it may keep only one."""
    sites = find_sites(model, channels=False)
    order = [f"{name}.weight" for name in names]
    sites = Sites(sites.shapes, tuple(order), positions=sites.positions)
    pooled = torch.cat([score.flatten() for score in scores.values()])
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
            kept_of = masks[name].flatten(1)
            stored = torch.from_numpy(np.asarray(z[f"alloc{i}_{k}"]))
            if stored.dim() == 2:  # one row for the positive weights of the filters, one for the negative ones
                weight = model.get_parameter(name).detach().flatten(1)
                counts = torch.stack([(kept_of & (weight * sign > 0)).sum(1) for sign in (1, -1)])
                assert torch.equal(counts[:, ~tied], stored.to(counts)[:, ~tied])
            else:
                stored = stored.expand(len(tied))
                assert torch.equal(kept_of.sum(1)[~tied], stored[~tied].to(torch.long))
        stored = torch.cat([torch.from_numpy(z[f"mask{i}_{k}"]).bool().flatten() for i in range(len(names))])
        settled = settle_ties(mine & (pooled > 0), stored, pooled)  # a mask says what is not zero
        parts = settled.split([score.numel() for score in scores.values()])
        masks = Masks({name: part.view(scores[name].shape) for name, part in zip(order, parts, strict=True)})
        _compare(z, k, model, names, masks)


def pfp_det(z):
    """Sensitivities, coefficients, what stays at an error, and the masks of the stored allocation."""
    model, names = network(z)
    x = torch.from_numpy(z["x"])
    inputs = {layer: maps for seen in layer_inputs(model, names, [(x,)]) for layer, maps in seen.items()}
    weights, channels, kernels = [], [], []
    for i, name in enumerate(names):
        found = sensitivity(model.get_submodule(name), [inputs[name]], "max")
        weights.append(model.get_submodule(name).weight.detach())
        channels.append(found.channel.numpy())
        kernels.append(weights[-1][0, 0].numel() if weights[-1].dim() == 4 else 1)
        np.testing.assert_allclose(found.weight, z.get(f"sensitivity{i}", found.weight), **CLOSE)
        np.testing.assert_allclose(found.channel, z[f"sensitivity_in{i}"], **CLOSE)
        if "coeffs" in z:
            assert (found.positions, kernels[-1]) == (int(z["alloc_num_patches"][i]), int(z["alloc_kernel_size"][i]))
            np.testing.assert_allclose(channels[-1].sum(), z["sum_sens"][i], **CLOSE)
            assert np.count_nonzero(channels[-1]) == int(z["nnz"][i])
            a = coefficient(float(channels[-1].sum()), found.positions, kernels[-1])
            np.testing.assert_allclose(a, z["coeffs"][i], **CLOSE)
    for k, ratio in enumerate(z["keep_ratios"]):
        stored = [int(z[f"alloc{i}_{k}"]) for i in range(len(names))]
        at_stored = pfp_widths(channels, z["coeffs"], float(z[f"arg_opt_{k}"]))
        assert sum(abs(a - b) for a, b in zip(at_stored, stored, strict=True)) <= 1
        wanted = budget(z, float(ratio))
        ours = pfp_widths(channels, z["coeffs"], smallest_error(channels, z["coeffs"], weights, kernels, wanted))
        assert sum(abs(a - b) for a, b in zip(ours, stored, strict=True)) <= 1
        assert pfp_size(ours, weights, kernels) <= wanted or ours == stored
        _compare(z, k, model, names, pfp_masks(names, weights, channels, stored))


def pfp_widths(channels, coefficients, error_):
    return [kept_at(error_, s / s.sum(), float(a)) for s, a in zip(channels, coefficients, strict=True)]


def pfp_size(kept, weights, kernels) -> int:
    """Weights left: inputs of a layer times outputs, which the next layer may not read any more."""
    following = [min(len(w), n) for w, n in zip(weights, [*kept[1:], len(weights[-1])], strict=True)]
    return sum(n * out * k for n, out, k in zip(kept, following, kernels, strict=True))


def smallest_error(channels, coefficients, weights, kernels, wanted) -> float:
    """The smallest error, by bisection, at which no more than ``wanted`` weights stay."""
    low, high = 1e-6, 1e9
    for _ in range(200):
        middle = (low * high) ** 0.5
        if pfp_size(pfp_widths(channels, coefficients, middle), weights, kernels) <= wanted:
            high = middle
        else:
            low = middle
    return high


def pfp_masks(names, weights, channels, kept) -> Masks:
    """The inputs with the largest sensitivities stay, and a filter goes when the next layer no longer reads it."""
    masks = {}
    for name, weight, s, n in zip(names, weights, channels, kept, strict=True):
        mask = torch.zeros(weight.shape, dtype=torch.bool)
        mask[:, np.argsort(-s, kind="stable")[:n]] = True
        masks[name] = mask
    for before, after in itertools.pairwise(names):
        masks[before][~masks[after].transpose(0, 1).flatten(1).any(1)] = False
    alive = zip(masks.items(), weights, strict=True)
    return Masks({f"{name}.weight": mask & (weight != 0) for (name, mask), weight in alive})


def pfp_top_split(z):
    """How many channels stay for certain, and the re-weighted weights of given draws."""
    model, names = network(z)
    x = torch.from_numpy(z["x"])
    inputs = {layer: maps for seen in layer_inputs(model, names, [(x,)]) for layer, maps in seen.items()}
    for i, name in enumerate(names):
        found = sensitivity(model.get_submodule(name), [inputs[name]], "max").channel.numpy()
        np.testing.assert_allclose(found, z[f"sensitivity_in{i}"], **CLOSE)
        q = found / found.sum()
        for k in range(len(z["keep_ratios"])):
            stored = tuple(int(n) for n in z[f"split{i}_{k}"])
            # On a plateau of the expected number the official search takes another number of draws than the least.
            assert split(q, sum(stored), official_draws(q, sum(stored))) == stored
    for name in [key for key in z if key.startswith("rand_counts")]:
        i = int(name.removeprefix("rand_counts"))
        counts, q = z[name], z[f"rand_prob{i}"]
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.nan_to_num(counts / (counts.sum() * q), posinf=0.0)
        sample = Draws(torch.from_numpy(q), 0, torch.Generator())
        sample.counts, sample.sequence = counts.astype(np.int64), [0] * int(counts.sum())
        np.testing.assert_allclose(sample.factors(), factors, rtol=1e-9)
        weight = model.get_submodule(names[i]).weight.detach()
        scaled = weight * sample.factors().view(1, -1, *[1] * (weight.dim() - 2))
        np.testing.assert_allclose(scaled, z[f"rand_what{i}"], rtol=1e-9, atol=1e-12)


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
    "sipp_det": sipp_det,
    "sipp_hybrid": sipp_hybrid,
    "pfp_det": pfp_det,
    "pfp_top_split": pfp_top_split,
    "base_snip": base_snip,
    "base_wt": base_wt,
    "base_ft": base_ft,
    "base_soft": base_soft,
    "keep_ratio_schedules": keep_ratio_schedules,
    "schedules_misc": schedules_misc,
    "commensurate": commensurate_file,
}


@parameters("sipp_pfp")
def test_golden(path):
    check("sipp_pfp", path, CHECKS)
