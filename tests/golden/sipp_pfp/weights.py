"""Golden checks of methods that cut single weights, all layers ranked together: magnitudes, SNIP, deterministic SiPP."""

import copy
import math

import numpy as np
import torch
from torch import nn

import pruning_core as pc
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.magnitude import Magnitude
from pruning_core.methods.shared.elasticities import SMALL
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.methods.sipp import SiPP
from pruning_core.methods.snip import Snip
from pruning_core.models.activations import layer_inputs
from pruning_core.models.cost import output_positions
from tests.golden.harness import Check
from tests.golden.sipp_pfp.networks import budget, check_labels, network, settle_ties

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def base_wt(z):
    """The largest weights of the whole network."""
    model, names = network(z)
    check_labels(z, model)
    best_of_all(z, model, names, Magnitude())


def base_snip(z):
    """The weights with the largest |gradient x weight|, the mean taken over the batch before the absolute value."""
    model, names = network(z)
    x, y = torch.from_numpy(z["x"]), torch.from_numpy(z["y"])
    # Scores of the file are not divided by the loss, which is the same for all of them.
    with torch.no_grad():
        scale = float(nn.functional.cross_entropy(model(x), y)) + SMALL
    best_of_all(z, model, names, Snip(loss="training"), [(x, y)], scale)


def sipp_det(z):
    """The weights with the largest sensitivities, the mean taken over positions."""
    model, names = network(z)
    check_labels(z, model)
    x = torch.from_numpy(z["x"])
    seen = {layer: maps for found in layer_inputs(model, names, [(x,)]) for layer, maps in found.items()}
    for i, name in enumerate(names):
        if f"sensitivity_in{i}" in z:
            found = sensitivity(model.get_submodule(name), [seen[name]], "mean")
            np.testing.assert_allclose(found.channel, z[f"sensitivity_in{i}"], **CLOSE)
    best_of_all(z, model, names, SiPP(), [(part, None) for part in x.split(5)])


def best_of_all(z, model, names, method, batches=None, scale=1.0):
    """The method's scores, times ``scale``, and what ``prune`` leaves at every keep ratio: the largest of the whole network.

    The official code keeps nothing where it may keep only one, in the network and in the half of a filter.
    """
    order = [f"{name}.weight" for name in names]
    view = View(
        model, find_sites(model, channels=False), Masks(), batches, nn.functional.cross_entropy, torch.Generator()
    )
    scores = {name: scale * score.detach() for name, score in method.score(view).items()}
    assert sorted(scores) == sorted(order)
    for i, name in enumerate(order):
        if f"sensitivity{i}" in z or not isinstance(method, Magnitude):
            np.testing.assert_allclose(scores[name], z[f"sensitivity{i}"], **CLOSE)
    pooled = torch.cat([scores[name].flatten() for name in order])
    for k, ratio in enumerate(z["keep_ratios"]):
        kept = min(budget(z, float(ratio)), len(pooled))
        masks = {name: torch.zeros(scores[name].shape, dtype=torch.bool) for name in order}
        if kept > 1:
            ask = pc.Budget((len(pooled) - kept) / len(pooled), keep_at_least=0)
            masks |= pc.prune(model, method, ask, batches=batches).masks
            assert sum(int(mask.sum()) for mask in masks.values()) == kept
        masks = {n: mask if mask.sum() > 1 else torch.zeros_like(mask) for n, mask in masks.items()}
        stored = {name: torch.from_numpy(z[f"mask{i}_{k}"]).bool() for i, name in enumerate(order)}
        _same_counts(z, k, model, order, scores, masks)
        settled = _settled(pooled, masks, stored, order)
        compare(z, k, model, names, settled)


def _same_counts(z, k, model, order, scores, masks) -> None:
    """What every layer, or every half of a filter, keeps; filters with a score that ties at the cut are left out."""
    chosen = torch.cat([scores[name][masks[name]] for name in order])
    cut = float(chosen.min()) if len(chosen) else math.inf
    for i, name in enumerate(order):
        tied = ((scores[name] - cut).abs() < 1e-9).flatten(1).any(1)
        if cut == 0:  # more may stay than have a score; which of those without is arbitrary
            tied = torch.ones_like(tied)
        kept_of = masks[name].flatten(1)
        stored = torch.from_numpy(np.asarray(z[f"alloc{i}_{k}"]))
        if stored.dim() == 2:  # one row for the positive weights of the filters, one for the negative ones
            weight = model.get_parameter(name).detach().flatten(1)
            counts = torch.stack([(kept_of & (weight * sign > 0)).sum(1) for sign in (1, -1)])
            assert torch.equal(counts[:, ~tied], stored.to(counts)[:, ~tied])
        else:
            stored = stored.expand(len(tied))
            assert torch.equal(kept_of.sum(1)[~tied], stored[~tied].to(torch.long))


def _settled(pooled, masks, stored, order) -> Masks:
    """Ours, and the stored choice among what ties at the cut; a mask says what is not zero."""
    mine, theirs = (torch.cat([part[name].flatten() for name in order]) for part in (masks, stored))
    if mine.any() and float(pooled[mine].min()) == 0:
        assert torch.equal(theirs & (pooled > 0), pooled > 0)
        assert int(theirs.sum()) <= int(mine.sum())
        settled = theirs
    else:
        settled = settle_ties(mine & (pooled > 0), theirs, pooled)
    parts = settled.split([stored[name].numel() for name in order])
    return Masks({name: part.view(stored[name].shape) for name, part in zip(order, parts, strict=True)})


def compare(z, k: int, model, names: list[str], masks: Masks):
    """Masks, counts and outputs of the k-th keep ratio."""
    pruned = copy.deepcopy(model)
    masks.apply_(pruned)
    x = torch.from_numpy(z["x"])
    positions = output_positions(model, x[:1])
    nonzero = []
    for i, name in enumerate(names):
        np.testing.assert_array_equal(masks[f"{name}.weight"].int(), z[f"mask{i}_{k}"].astype(int))
        nonzero.append(int(masks[f"{name}.weight"].sum()))
    np.testing.assert_array_equal(nonzero, z[f"nnz_per_layer_{k}"])
    assert sum(int(torch.count_nonzero(p)) for p in pruned.parameters()) == int(z[f"size_after_{k}"])
    assert sum(n * positions[name] for n, name in zip(nonzero, names, strict=True)) == int(z[f"flops_after_{k}"])
    with torch.no_grad():
        np.testing.assert_allclose(pruned(x), z[f"logits_{k}"], rtol=1e-7, atol=1e-12)


CHECKS: dict[str, Check] = {"base_wt": base_wt, "base_snip": base_snip, "sipp_det": sipp_det}
