"""Golden checks of SNIP, SNAP, CNIP, GraSP and IMP: our scores, what ``prune`` makes of them, and the official rules.

The official thresholds (strict for weights, not strict for nodes, a rescued node in an emptied layer) are quirks of the
official code; they live here, as functions of the scores that ours must equal. The numbers that they leave are then asked of
``prune``, which must remove the same weights and channels.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import pruning_core as pc
from pruning_core.experiments.stages import Every, Measure
from pruning_core.masks.groups import Group
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import View
from pruning_core.methods.cnip import Cnip, official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.magnitude import Magnitude
from pruning_core.methods.shared.elasticities import (
    channel_elasticities,
    loss_gradients,
    producing_parameters,
    statistic_loss,
)
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from tests.golden.snipit.built import batches, named, network, same_network, same_sparsity, same_widths

SCORES = {"rtol": 1e-9, "atol": 1e-12}
OFFICIAL_LOSS = statistic_loss("nll_logits", nn.functional.cross_entropy)


def events_of(z, kind: str = "step") -> list[int]:
    """The events of a file; their number, the targets and S go together."""
    found = sorted({int(m[1]) for name in z if (m := re.match(rf"{kind}(\d+)/", name))})
    limit, steps = float(z["limit"]), z["steps"]
    if "S" in z:
        assert len(steps) == int(z["S"]) + 2
    np.testing.assert_allclose(halving(limit, len(steps)), steps, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(len(found), z["n_events"] if "n_events" in z else len(steps))
    return found


def halving(limit: float, n: int) -> list[float]:
    """The official targets: the gap between one half and the limit halves, also where the limit is lower."""
    ours = [fraction_after("snip_it", i, n, limit) for i in range(1, n + 1)]
    if limit >= 0.5:
        return ours
    assert ours == [limit] * n  # the official code starts at one half all the same, and would have to revive weights
    return [*(limit - (limit - 0.5) * 0.5 ** np.arange(n - 1)), limit]


def view_of(z, model: nn.Module, names=None, channels: bool = False, masks: Masks | None = None) -> View:
    """What a method sees of the network: the batches of the file, and the layers of these weights (all by default)."""
    scope = None if names is None else [name.rpartition(".")[0] for name in names]
    example = torch.from_numpy(z["x"][0][:1]) if "x" in z else None
    sites = find_sites(model, channels=channels, scope=scope, example_input=example if channels else None)
    seen = batches(z) if "x" in z else None
    return View(model, sites, masks or Masks(), seen, nn.functional.cross_entropy, torch.Generator(), example)


def official_keep(scores: Mapping[str, Tensor], kept: int) -> tuple[dict[str, Tensor], float]:
    """SNIP's official rule: what is strictly above the kept-th largest score."""
    pool = torch.cat([score.flatten() for score in scores.values()])
    threshold = pool.sort(descending=True).values[kept - 1]
    return {name: score > threshold for name, score in scores.items()}, float(threshold)


def number_kept(total: int, share: float) -> int:
    return min(max(int(total * (1 - share)), 1), total)


def same_masks(ours: Mapping[str, Tensor], official: Mapping[str, np.ndarray]) -> None:
    assert set(ours) == set(official)
    for name, mask in official.items():
        np.testing.assert_array_equal(ours[name].int(), mask.astype(int), err_msg=name)


def through_prune(z, model, method, found: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> None:
    """``prune``, asked for as many weights as the official rule removed, removes the same ones."""
    total = sum(mask.numel() for mask in found.values())
    gone = total - sum(int(mask.sum()) for mask in found.values())
    scope = [name.rpartition(".")[0] for name in found]
    result = pc.prune(
        model, method, pc.Budget(gone / total, keep_at_least=0), scope=scope, masks=masks or {},
        batches=batches(z) if "x" in z else None,
    )  # fmt: skip
    same_masks({name: result.masks[name] for name in found}, {name: mask.numpy() for name, mask in found.items()})


def snip(z):
    """Scores, threshold, number and masks of one cut."""
    model, official = network(z), named(z, "mask/")
    view, method = view_of(z, model, official), Snip(loss="nll_logits")
    scores = method.score(view)
    _, loss = method.gradients(view, official)
    np.testing.assert_allclose(loss, z["loss_sum"], rtol=1e-9)
    stored = named(z, "scores/")
    assert set(stored) == set(scores) == set(official)
    for name, score in stored.items():
        np.testing.assert_allclose(scores[name], score, **SCORES)
    total = sum(score.numel() for score in scores.values())
    np.testing.assert_array_equal(total, z["num_scores"])
    kept = number_kept(total, float(z["sparsity"]))
    np.testing.assert_array_equal(kept, z["num_to_keep"])
    masks, threshold = official_keep(scores, kept)
    np.testing.assert_allclose(threshold, z["threshold"], **SCORES)
    same_masks(masks, official)
    through_prune(z, model, method, masks)
    Masks(masks).apply_(pruned := network(z))
    same_sparsity(z, "", pruned, model)


def snipit(z):
    """Every event: the score on what the last one left, the threshold over all weights, dead ones included."""
    model, start, method = network(z), network(z), Snip(loss="nll_logits")
    before: dict[str, Tensor] = {}
    for event in events_of(z):
        part = f"step{event}/"
        official = named(z, f"{part}mask/")
        scores = method.score(view_of(z, model, official))
        total = sum(score.numel() for score in scores.values())
        kept = number_kept(total, float(z["steps"][event]))
        np.testing.assert_array_equal(kept, z[f"{part}num_to_keep"])
        found, threshold = official_keep(scores, kept)
        np.testing.assert_allclose(threshold, z[f"{part}threshold"], **SCORES)
        found = {name: mask & before.get(name, torch.ones_like(mask)) for name, mask in found.items()}
        same_masks(found, official)
        through_prune(z, model, method, found, before)
        Masks(before := found).apply_(model)
        same_sparsity(z, part, model, start)


def all_groups(z, model: nn.Module) -> dict[str, Group]:
    """All groups whose channels layers produce, the outputs last; our methods leave outputs and single channels alone."""
    return {group.name: group for group in find_groups(model, torch.from_numpy(z["x"][0][:1])) if group.produces}


def hidden_groups(z, model: nn.Module) -> dict[str, Group]:
    found = all_groups(z, model)
    return {n: g for n, g in found.items() if g.consumes and (g.reason_fixed is None or g.size == 1)}


def node_scores(z, model: nn.Module, part: str = "") -> tuple[dict[str, Tensor], Tensor]:
    """Our scores of hidden channels, and the official vector: inputs (zero), hidden layers, outputs.

    Those of ``Snap`` by gates, and those by the gradients of weights, which ``Cnip`` takes, are the same.
    """
    groups = all_groups(z, model)
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), batches(z), OFFICIAL_LOSS, 5)
    scores = channel_elasticities(model, gradients, loss, groups)
    np.testing.assert_allclose(abs(loss), z[f"{part}norm_factor"], rtol=1e-9)
    view = view_of(z, model, channels=True)
    for method in (Snap(loss="nll_logits"), Cnip(loss="nll_logits")):
        for name, score in method.score(view).items():
            np.testing.assert_allclose(score, scores[name], **SCORES)
    hidden = {name: scores[name] for name in hidden_groups(z, model)}
    ends = [score for name, score in scores.items() if name not in hidden]
    assert len(ends) == 1  # those of the outputs
    x = z["x"][0]
    inputs = x.shape[1] if any(isinstance(m, nn.Conv2d) for m in model.modules()) else x[0].size
    return hidden, torch.cat([torch.zeros(inputs, dtype=torch.float64), *hidden.values(), *ends])


def official_nodes(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """SNAP's official rule: at least the K-th largest stays, and the best of a layer that would be empty."""
    pool = torch.cat(list(scores.values()))
    threshold = pool.sort(descending=True).values[number_kept(len(pool), share) - 1]
    keep = {name: score >= threshold for name, score in scores.items()}
    for name, score in scores.items():
        if not keep[name].any():
            keep[name][score.argmax()] = True
    return keep


def same_nodes(z, part: str, hidden: Mapping[str, Tensor], ours: Tensor) -> None:
    """The whole vector of scores, and its parts."""
    for name in ("all_scores", "node_scores"):
        if f"{part}{name}" in z:
            np.testing.assert_allclose(ours, z[f"{part}{name}"], **SCORES)
    if f"{part}vector_lengths" in z:
        lengths = [len(score) for score in hidden.values()]
        x = z["x"][0]
        inputs = len(ours) - sum(lengths) - int(z[f"{part}vector_lengths"][-1])
        np.testing.assert_array_equal([inputs, *lengths, len(ours) - inputs - sum(lengths)], z[f"{part}vector_lengths"])
        assert inputs in (x.shape[1], x[0].size)


def smaller(z, model: nn.Module, method, keep: Mapping[str, Tensor]) -> nn.Module:
    """The network that ``prune`` leaves when each layer keeps as many channels as in ``keep``: the very same ones.

    Where no layer was rescued, one budget for all of them must give that as well.
    """
    model = nn.Module.eval(model)
    prunable = view_of(z, model, channels=True).sites.groups
    across = {name: 1 - int(mask.sum()) / len(mask) for name, mask in keep.items() if name in prunable}
    result = pc.prune(model, method, None, of="channels", across=across, batches=batches(z))
    for name, mask in keep.items():
        alive = prunable[name].alive(result.masks) if name in prunable else torch.ones_like(mask)
        np.testing.assert_array_equal(alive, mask, err_msg=name)
    return result.shrink() if any(across.values()) else model


def one_budget(z, model: nn.Module, method, scores: Mapping[str, Tensor], keep: Mapping[str, Tensor], share) -> None:
    """One budget for all layers gives the official channels, where none was rescued and none has one channel only."""
    total = sum(len(score) for score in scores.values())
    kept, prunable = sum(int(mask.sum()) for mask in keep.values()), view_of(z, model, channels=True).sites.groups
    if kept == number_kept(total, share) < total and set(scores) == set(prunable):
        result = pc.prune(model, method, 1 - kept / total, of="channels", batches=batches(z))
        for name, mask in keep.items():
            np.testing.assert_array_equal(prunable[name].alive(result.masks), mask, err_msg=name)


def snap(z):
    """Scores, widths, the smaller network and its outputs."""
    start, method, share = network(z), Snap(loss="nll_logits"), float(z["sparsity"])
    if "percentage" in z:
        np.testing.assert_allclose(share, z["percentage"], rtol=0, atol=1e-12)
    hidden, vector = node_scores(z, start)
    same_nodes(z, "", hidden, vector)
    keep = official_nodes(hidden, share)
    one_budget(z, start, method, hidden, keep, share)
    model = smaller(z, start, method, keep)
    same_widths(z, "", model)
    same_sparsity(z, "", model, start)
    same_network(z, model)


def relative(target: float, reached: float) -> float:
    """What the official code asks of what is left."""
    return (target - reached) / (1 - reached + 1e-8)


def snapit(z):
    """Every event with its relative request, which follows from the sparsity that the last one reached."""
    model, start, method = network(z), network(z), Snap(loss="nll_logits")
    reached = 0.0
    for event in events_of(z):
        part = f"step{event}/"
        share = relative(float(z["steps"][event]), reached)
        np.testing.assert_allclose(share, z[f"{part}percentage"], rtol=0, atol=1e-9)
        hidden, vector = node_scores(z, model, part)
        same_nodes(z, part, hidden, vector)
        keep = official_nodes(hidden, share)
        one_budget(z, model, method, hidden, keep, share)
        model = smaller(z, model, method, keep)
        same_widths(z, part, model)
        same_sparsity(z, part, model, start)
        reached = float(z[f"{part}structural_sparsity"])
    same_network(z, model)


def cnipit(z):
    """The official shares, the stall, and what the two cuts leave; and our own rule, which removes by one threshold."""
    model, start, reached = network(z), network(z), 0.0
    prunable = [
        name for name in (re.sub(r"^step0/mask_before_shrink/", "", n) for n in z) if name in start.state_dict()
    ]
    alive: dict[str, Tensor] = {}
    for event in events_of(z):
        part = f"step{event}/"
        share = relative(float(z["steps"][event]), reached)
        np.testing.assert_allclose(share, z[f"{part}percentage"], rtol=0, atol=1e-6)
        weights = Snip(loss="nll_logits").score(view_of(z, model, prunable))
        flat = torch.cat([weights[name].flatten() for name in prunable])
        np.testing.assert_allclose(flat, z[f"{part}weight_scores"], **SCORES)
        hidden, official = node_scores(z, model, part)
        same_nodes(z, part, hidden, official)
        of_weights, of_nodes = official_shares(flat, official, share)
        np.testing.assert_allclose(of_weights, z[f"{part}percentage_weights"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(of_nodes, z[f"{part}percentage_nodes"], rtol=0, atol=1e-12)
        by_one_threshold(z, model, prunable)
        found, _ = official_keep({name: weights[name] for name in prunable}, number_kept(len(flat), of_weights))
        alive = {name: found[name] & (model.get_parameter(name) != 0) for name in prunable}
        same_masks(alive, named(z, f"{part}mask_before_shrink/"))
        keep = official_nodes(hidden, of_nodes)
        if any(not mask.all() for mask in keep.values()):
            # The nodes' scores are those from before the weights were cut; the weights' zeros move along.
            dense = smaller(z, model, Snap(loss="nll_logits"), keep)
            Masks(alive).apply_(model)
            model = masked_like(model, dense, keep, hidden_groups(z, model))
        else:
            Masks(alive).apply_(model)
        same_widths(z, part, model)
        same_sparsity(z, part, model, start)
        reached = float(z[f"{part}pruned_percentage"])
    left = {name: model.get_parameter(name) != 0 for name in prunable}
    same_masks(left, named(z, "mask/"))
    same_network(z, model)


def masked_like(model, small, keep, groups) -> nn.Module:
    """``small`` with the weights that ``model``, the network that it was cut out of, has in its place."""
    rows = {group.produces[0].layer: keep[name] for name, group in groups.items()}
    columns = {member.layer: member for group in groups.values() for member in group.consumes}
    owner = {member.layer: name for name, group in groups.items() for member in group.consumes}
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            layer, _, kind = name.rpartition(".")
            if kind != "weight" or parameter.dim() < 2:
                continue
            weight = model.get_parameter(name)
            if layer in columns:
                member, mask = columns[layer], keep[owner[layer]]
                dead = torch.zeros(weight.shape[1], dtype=torch.bool)
                dead[member.indices] = ~mask[member.channels]
                weight = weight[:, ~dead]
            parameter.copy_(weight[rows[layer]] if layer in rows else weight)
    return small


def by_one_threshold(z, model: nn.Module, prunable) -> None:
    """``Cnip`` through ``prune``: to the weight, and no channel stays that scores less than one that went."""
    scope = [name.rpartition(".")[0] for name in prunable]
    method = Cnip(loss="nll_logits")
    result = pc.prune(model, method, pc.Budget(0.5, keep_at_least=0), scope=scope, batches=batches(z), masks={})
    sizes = [model.get_parameter(name).numel() for name in result.sites.weights]
    assert sum(int((~result.masks[name]).sum()) for name in result.sites.weights) == int(sum(sizes) * 0.5 + 0.5)
    scores = method.score(view_of(z, model, prunable, channels=True))
    alive = {name: group.alive(result.masks) for name, group in result.sites.groups.items()}
    gone = [float(scores[name][~mask].max()) for name, mask in alive.items() if not mask.all()]
    weights = Snip(loss="nll_logits").score(view_of(z, model, prunable))
    kept = torch.cat([weights[name][result.masks[name]] for name in result.sites.weights])
    assert not gone or max(gone) <= float(kept.max())


def imp(z):
    """Global magnitude cuts with rewinding: masks, and the weights that are left at the end."""
    model, first = network(z), network(z)
    names = list(named(z, "event0/mask/"))
    masks = {name: torch.ones(model.get_parameter(name).shape, dtype=torch.bool) for name in names}
    start = {name: model.get_parameter(name).detach().clone() for name in names}
    for event in events_of(z, "event"):
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).add_(torch.from_numpy(z[f"event{event}/noise/{name}"]) * masks[name])
        scores = Magnitude().score(view_of(z, model, names, masks=Masks(masks)))
        pool = torch.cat([scores[name].flatten() for name in names]).sort().values
        threshold = pool[int(len(pool) * float(z["steps"][event])) - 1]  # official: the m-th smallest goes as well
        found = {name: (scores[name] > threshold) & masks[name] for name in names}
        same_masks(found, named(z, f"event{event}/mask/"))
        through_prune(z, model, Magnitude(), found, masks)
        masks = found
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).copy_(start[name] * masks[name])
        same_sparsity(z, f"event{event}/", model, first)
    final = named(z, "final/")
    assert set(final) == set(names)
    for name, weight in final.items():
        np.testing.assert_array_equal(model.get_parameter(name).detach(), weight)


def grasp(z):
    """Scores in the sign of that repository, which is the opposite of the default."""
    model, official = network(z), named(z, "scores/")
    view = view_of(z, model, official)
    settings = {"temperature": float(z["temperature"]), "chunk": int(z["chunk"])}
    method = Grasp(reference=True, **settings)
    reference, authors = method.score(view), Grasp(**settings).score(view)
    assert set(reference) == set(official)
    for name, score in official.items():
        np.testing.assert_allclose(reference[name], score, rtol=1e-7, atol=1e-18)
        np.testing.assert_array_equal(authors[name], -reference[name])
    kept = number_kept(sum(score.size for score in official.values()), float(z["sparsity"]))
    np.testing.assert_array_equal(kept, z["num_to_keep"])
    masks, threshold = official_keep(dict(reference), kept)
    np.testing.assert_allclose(threshold, z["threshold"], rtol=1e-7)
    same_masks(masks, named(z, "mask_repo_sign/"))
    through_prune(z, model, method, masks)


def schedules(z):
    """Targets of the criteria that halve the gap and of tick-tock, and the epochs at which a cut is tried."""
    for name in z:
        if found := re.fullmatch(r"(snipit|snapit|imp)/limit=(.+)/S=(\d+)", name):
            ours = halving(float(found[2]), int(found[3]) + 2)
            np.testing.assert_allclose(ours, z[name], rtol=0, atol=1e-12)
        elif found := re.fullmatch(r"gate/limit=(.+)", name):
            limit, n = float(found[1]), len(z[name])
            ours = [fraction_after("tick_tock", i, n, limit) for i in range(1, n + 1)]
            np.testing.assert_allclose(ours, z[name], rtol=0, atol=1e-12)
        elif found := re.fullmatch(r"prune_epochs/(\w+)/delay=(\d+)/freq=(\d+)/epochs=(\d+)", name):
            criterion, delay, freq, epochs = found[1], *map(int, found.groups()[1:])
            if z[name].size or criterion.endswith("During"):
                # Their epochs count from 0, ours from 1; the first is the one after the delay and one whole period.
                ours = Every(freq, (Measure("cut"),), after=delay + 1).epochs(epochs)
                np.testing.assert_array_equal(np.array(ours) - 1, z[name])
        else:
            raise AssertionError(f"no schedule is called {name}")


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {
    "snip": snip,
    "snipit": snipit,
    "snap": snap,
    "snapit": snapit,
    "cnipit": cnipit,
    "imp": imp,
    "grasp": grasp,
    "schedules": schedules,
}
