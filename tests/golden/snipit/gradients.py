"""Golden checks of SNIP, SNAP, CNIP, GraSP and IMP: our scores, and the official rules of cutting put on top of them.

The official thresholds (strict for weights, not strict for nodes, a rescued node in an emptied layer) are quirks of the
official code; they live here, as functions of the scores that ours must equal.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.experiments.stages import Every, Measure
from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.groups import Group, expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import remove
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import View
from pruning_core.methods.cnip import official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.magnitude import Magnitude
from pruning_core.methods.shared.elasticities import (
    channel_elasticities,
    loss_gradients,
    producing_parameters,
    statistic_loss,
    weight_elasticities,
)

LEAK = 0.05
SCORES = {"rtol": 1e-9, "atol": 1e-12}
OFFICIAL_LOSS = statistic_loss("nll_logits", nn.functional.cross_entropy)


class Tiny(nn.Module):
    """The two-convolution network of the fixtures; ``side``: height and width after the adaptive pool."""

    def __init__(self, conv: nn.Sequential, fc: nn.Sequential, side: int):
        super().__init__()
        self.conv, self.pool, self.fc = conv, nn.AdaptiveAvgPool2d(side), fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.conv(x)).flatten(1))


class Perceptron(nn.Module):
    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


def network(z: Mapping[str, np.ndarray], part: str = "init") -> nn.Module:
    """The network whose state dict the file holds under ``part``, built from the shapes alone."""
    state = {name[len(part) + 1 :]: torch.from_numpy(z[name]) for name in z if name.startswith(f"{part}/")}
    if any(name.startswith("conv.") for name in state):
        conv = _stack({n[5:]: t for n, t in state.items() if n.startswith("conv.")}, pool_at=3)
        fc = _stack({n[3:]: t for n, t in state.items() if n.startswith("fc.")})
        last = max(int(n.split(".")[1]) for n, t in state.items() if n.startswith("conv.") and t.dim() == 4)
        side = round((state["fc.0.weight"].shape[1] / state[f"conv.{last}.weight"].shape[0]) ** 0.5)
        model: nn.Module = Tiny(conv, fc, side)
    else:
        model = Perceptron(_stack({n[7:]: t for n, t in state.items()}))
    model.double().load_state_dict(state, strict=False)
    missing = [n for n in model.state_dict() if n not in state and not n.endswith("num_batches_tracked")]
    assert not missing, missing
    return model.eval()


def _stack(state: Mapping[str, Tensor], pool_at: int | None = None) -> nn.Sequential:
    """Layers by index: convolutions and linear layers, batch norms, and leaky ReLUs (or a max-pool) where nothing is."""
    layers: dict[str, nn.Module] = {}
    top = max(int(name.split(".")[0]) for name in state)
    for i in range(top + 1):
        weight = state.get(f"{i}.weight")
        if weight is None:
            layers[str(i)] = nn.MaxPool2d(2) if i == pool_at else nn.LeakyReLU(LEAK)
        elif weight.dim() == 4:
            layers[str(i)] = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
        elif weight.dim() == 2:
            layers[str(i)] = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            norm = nn.BatchNorm2d if state[f"{i - 1}.weight"].dim() == 4 else nn.BatchNorm1d
            layers[str(i)] = norm(len(weight))
    if pool_at is not None:
        layers[str(top + 1)] = nn.LeakyReLU(LEAK)
    # Dropout is off in evaluation mode; where the official network has one, ours has a second leaky ReLU's place.
    ordered = [layers[str(i)] for i in range(len(layers))]
    for i in range(1, len(ordered)):
        if isinstance(ordered[i], nn.LeakyReLU) and isinstance(ordered[i - 1], nn.LeakyReLU):
            ordered[i] = nn.Identity()
    return nn.Sequential(*ordered)


def batches(z: Mapping[str, np.ndarray]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(z["x"], z["y"], strict=True)]


def hidden_groups(z, model: nn.Module) -> dict[str, Group]:
    """Groups of the hidden layers, also those that are down to one channel, which our own methods leave alone."""
    found = find_groups(model, torch.from_numpy(z["x"][0][:1]))
    return {group.name: group for group in found if group.consumes and (group.reason_fixed is None or group.size == 1)}


def named(z, part: str) -> dict[str, np.ndarray]:
    return {name[len(part) :]: z[name] for name in z if name.startswith(part)}


def official_keep(scores: Mapping[str, Tensor], kept: int) -> tuple[dict[str, Tensor], float]:
    """SNIP's official rule: what is strictly above the kept-th largest score."""
    pool = torch.cat([score.flatten() for score in scores.values()])
    threshold = pool.sort(descending=True).values[kept - 1]
    return {name: score > threshold for name, score in scores.items()}, float(threshold)


def same_masks(ours: Mapping[str, Tensor], official: Mapping[str, np.ndarray]) -> None:
    for name, mask in official.items():
        np.testing.assert_array_equal(ours[name].numpy(), mask.astype(bool), err_msg=name)


def all_but_ties(model, scores: Mapping[str, Tensor], official: Mapping[str, np.ndarray], kept: int) -> None:
    """Our own cut keeps exactly ``kept`` weights: those of the official one, and the best of the rest."""
    scores = Scores({name: scores[name] for name in official})
    sites = Sites({n: s.shape for n, s in scores.items()}, tuple(scores))
    total = sum(score.numel() for score in scores.values())
    ours = allocate(scores, Budget(1 - kept / total, keep_at_least=0), Masks(), sites)
    assert total - ours.removed == kept
    lost = [scores[n][~ours[n] & torch.from_numpy(mask.astype(bool))] for n, mask in official.items()]
    assert not torch.cat(lost).numel()


def snip(z):
    """Scores, threshold, number and masks of one cut."""
    model, official = network(z), named(z, "mask/")
    gradients, loss = loss_gradients(model, official, batches(z), OFFICIAL_LOSS, 5)
    scores = weight_elasticities(model, gradients, loss)
    np.testing.assert_allclose(loss, z["loss_sum"], rtol=1e-9)
    for name, score in named(z, "scores/").items():
        np.testing.assert_allclose(scores[name], score, **SCORES)
    total = sum(score.numel() for score in scores.values())
    assert total == int(z["num_scores"])
    kept = min(max(int(total * (1 - float(z["sparsity"]))), 1), total)
    assert kept == int(z["num_to_keep"])
    masks, threshold = official_keep(scores, kept)
    np.testing.assert_allclose(threshold, z["threshold"], **SCORES)
    same_masks(masks, official)
    all_but_ties(model, scores, official, kept)
    assert_pruned_percentage(z, "", masks, z)


def assert_pruned_percentage(z, part: str, masks, state) -> None:
    """The official sparsity counts what is zero in every tensor called weight, batch norms included."""
    if f"{part}pruned_percentage" in z:
        sizes = [v.size for n, v in named(state, "init/").items() if "weight" in n]
        gone = sum(int((~mask).sum()) for mask in masks.values())
        np.testing.assert_allclose(gone / sum(sizes), z[f"{part}pruned_percentage"], rtol=0, atol=1e-6)


def snipit(z):
    """Every event: the score on what the last one left, the threshold over all weights, dead ones included."""
    model = network(z)
    events = sorted({int(m[1]) for n in z if (m := re.match(r"step(\d+)/", n))})
    for event in events:
        official = named(z, f"step{event}/mask/")
        gradients, loss = loss_gradients(model, official, batches(z), OFFICIAL_LOSS, 5)
        scores = weight_elasticities(model, gradients, loss)
        total = sum(score.numel() for score in scores.values())
        kept = min(max(int(total * (1 - float(z["steps"][event]))), 1), total)
        assert kept == int(z[f"step{event}/num_to_keep"])
        found, threshold = official_keep(scores, kept)
        np.testing.assert_allclose(threshold, z[f"step{event}/threshold"], **SCORES)
        before = Masks({name: torch.from_numpy(mask.astype(bool)) for name, mask in official.items()})
        same_masks(found, official)
        before.apply_(model)
        assert_pruned_percentage(z, f"step{event}/", before, z)


def node_scores(z, model: nn.Module, part: str = "") -> tuple[dict[str, Tensor], Tensor]:
    """Our channel scores, and all of the official vector: inputs (zero), hidden layers, outputs."""
    groups = hidden_groups(z, model)
    names = producing_parameters(groups.values())
    gradients, loss = loss_gradients(model, names, batches(z), OFFICIAL_LOSS, 5)
    scores = channel_elasticities(model, gradients, loss, groups)
    np.testing.assert_allclose(abs(loss), z[f"{part}norm_factor"], rtol=1e-9)
    return scores, torch.cat(list(scores.values()))


def official_nodes(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """SNAP's official rule: at least the K-th largest stays, and the best of a layer that would be empty."""
    pool = torch.cat(list(scores.values()))
    kept = min(max(int(len(pool) * (1 - share)), 1), len(pool))
    threshold = pool.sort(descending=True).values[kept - 1]
    keep = {name: score >= threshold for name, score in scores.items()}
    for name, score in scores.items():
        if not keep[name].any():
            keep[name][score.argmax()] = True
    return keep


def cut_nodes(z, model: nn.Module, part: str, share: float) -> nn.Module:
    """One official SNAP event with our scores; the network that our removal leaves is compared by the caller."""
    scores, hidden = node_scores(z, model, part)
    lengths = [int(length) for length in z[f"{part}vector_lengths"]] if f"{part}vector_lengths" in z else None
    if lengths is not None and f"{part}all_scores" in z:
        official = z[f"{part}all_scores"]
        np.testing.assert_array_equal(official[: lengths[0]], 0)  # the inputs
        np.testing.assert_allclose(hidden, official[lengths[0] : len(official) - lengths[-1]], **SCORES)
    return apply_nodes(z, model, official_nodes(scores, share))


def apply_nodes(z, model: nn.Module, keep: Mapping[str, Tensor]) -> nn.Module:
    groups = hidden_groups(z, model)
    remove(model, expand(keep, groups, {name: p.shape for name, p in model.named_parameters()}), groups.values())
    return model


def same_widths(z, part: str, model: nn.Module) -> None:
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    np.testing.assert_array_equal([len(m.weight) for m in layers], z[f"{part}out_widths"])
    np.testing.assert_array_equal([m.weight.shape[1] for m in layers], z[f"{part}in_widths"])


def same_network(z, model: nn.Module) -> None:
    """Exact copies of rows and columns, and the outputs."""
    state = model.state_dict()
    for name, tensor in named(z, "pruned/").items():
        np.testing.assert_array_equal(state[name], tensor, err_msg=name)
    if "logits_after" in z:
        with torch.no_grad():
            np.testing.assert_allclose(model(torch.from_numpy(z["x"][0])), z["logits_after"], rtol=1e-9, atol=1e-12)


def snap(z):
    """Scores, widths, the smaller network and its outputs."""
    model = cut_nodes(z, network(z), "", float(z["sparsity"]))
    same_widths(z, "", model)
    same_network(z, model)


def snapit(z):
    """Every event with its relative request, which follows from the sparsity that the last one reached."""
    model, start = network(z), None
    reached = 0.0
    for event in sorted({int(m[1]) for n in z if (m := re.match(r"step(\d+)/", n))}):
        part = f"step{event}/"
        share = (float(z["steps"][event]) - reached) / (1 - reached + 1e-8)
        np.testing.assert_allclose(share, z[f"{part}percentage"], rtol=0, atol=1e-9)
        hidden = [len(score) for score in node_scores(z, model, part)[0].values()]
        start = start or sum(hidden)
        model = cut_nodes(z, model, part, share)
        same_widths(z, part, model)
        left = sum(group.size for group in hidden_groups(z, model).values())
        reached = float(z[f"{part}structural_sparsity"])
        np.testing.assert_allclose(reached, 1 - left / start, rtol=0, atol=1e-6)
    same_network(z, model)


def cnipit(z):
    """The official shares, the stall, and what the two cuts leave."""
    model, reached = network(z), 0.0
    prunable = [re.sub(r"^step0/mask_before_shrink/", "", n) for n in z if n.startswith("step0/mask_before_shrink/")]
    for event in sorted({int(m[1]) for n in z if (m := re.match(r"step(\d+)/", n))}):
        part = f"step{event}/"
        share = (float(z["steps"][event]) - reached) / (1 - reached + 1e-8)
        np.testing.assert_allclose(share, z[f"{part}percentage"], rtol=0, atol=1e-6)
        gradients, loss = loss_gradients(model, prunable, batches(z), OFFICIAL_LOSS, 5)
        weights = weight_elasticities(model, gradients, loss)
        flat = torch.cat([weights[name].flatten() for name in prunable])
        np.testing.assert_allclose(flat, z[f"{part}weight_scores"], **SCORES)
        nodes, hidden = node_scores(z, model, part)
        official = torch.from_numpy(z[f"{part}node_scores"])
        inputs = int(z["x"].shape[2]) if isinstance(model, Tiny) else int(np.prod(z["x"].shape[2:]))
        np.testing.assert_allclose(hidden, official[inputs : inputs + len(hidden)], **SCORES)
        of_weights, of_nodes = official_shares(flat, official, share)
        np.testing.assert_allclose(of_weights, z[f"{part}percentage_weights"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(of_nodes, z[f"{part}percentage_nodes"], rtol=0, atol=1e-12)
        kept = min(max(int(len(flat) * (1 - of_weights)), 1), len(flat))
        found, _ = official_keep({name: weights[name] for name in prunable}, kept)
        alive = {name: found[name] & (model.get_parameter(name) != 0) for name in prunable}
        same_masks(alive, named(z, f"{part}mask_before_shrink/"))
        Masks(alive).apply_(model)
        model = apply_nodes(z, model, official_nodes(nodes, of_nodes))
        same_widths(z, part, model)
        reached = float(z[f"{part}pruned_percentage"])
    same_network(z, model)


def imp(z):
    """Global magnitude cuts with rewinding: masks, and the weights that are left at the end."""
    model = network(z)
    names = list(named(z, "event0/mask/"))
    masks = Masks({name: torch.ones(model.get_parameter(name).shape, dtype=torch.bool) for name in names})
    start = {name: model.get_parameter(name).detach().clone() for name in names}
    for event in sorted({int(m[1]) for n in z if (m := re.match(r"event(\d+)/", n))}):
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).add_(torch.from_numpy(z[f"event{event}/noise/{name}"]) * masks[name])
        sites = Sites({n: model.get_parameter(n).shape for n in names}, tuple(names))
        scores = Magnitude().score(View(model, sites, masks, None, nn.functional.cross_entropy, torch.Generator()))
        pool = torch.cat([score.flatten() for score in scores.values()]).sort().values
        threshold = pool[int(len(pool) * float(z["steps"][event])) - 1]  # official: the m-th smallest goes as well
        masks = Masks({name: (scores[name] > threshold) & masks[name] for name in names})
        same_masks(masks, named(z, f"event{event}/mask/"))
        gone = sum(int((~masks[name]).sum()) for name in names)
        ours = allocate(scores, Budget(gone / len(pool), keep_at_least=0), Masks(), sites)
        assert ours <= masks and masks <= ours  # without ties our own cut to the same number is the same
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).copy_(start[name] * masks[name])
    for name, weight in named(z, "final/").items():
        np.testing.assert_array_equal(model.get_parameter(name).detach(), weight)


def grasp(z):
    """Scores in the sign of that repository, which is the opposite of the default."""
    model, official = network(z), named(z, "scores/")
    sites = Sites({n: p.shape for n, p in model.named_parameters()}, tuple(official))
    chunk, temperature = int(z["chunk"]), float(z["temperature"])
    view = View(model, sites, Masks(), batches(z), nn.functional.cross_entropy, torch.Generator())
    reference = Grasp(temperature=temperature, chunk=chunk, reference=True).score(view)
    authors = Grasp(temperature=temperature, chunk=chunk).score(view)
    for name, score in official.items():
        np.testing.assert_allclose(reference[name], score, rtol=1e-7, atol=1e-18)
        np.testing.assert_array_equal(authors[name], -reference[name])
    kept = int(z["num_to_keep"])
    masks, threshold = official_keep(dict(reference), kept)
    np.testing.assert_allclose(threshold, z["threshold"], rtol=1e-7)
    same_masks(masks, named(z, "mask_repo_sign/"))


def schedules(z):
    """Targets of the criteria that halve the gap and of tick-tock, and the epochs at which a cut is tried."""
    for name in z:
        if found := re.fullmatch(r"(snipit|snapit|imp)/limit=(.+)/S=(\d+)", name):
            limit, n = float(found[2]), int(found[3]) + 2
            ours = [fraction_after("snip_it", i, n, limit) for i in range(1, n + 1)]
            if limit >= 0.5:
                np.testing.assert_allclose(ours, z[name], rtol=0, atol=1e-12)
            else:  # the official code starts at one half all the same, and would have to revive weights
                assert ours == [limit] * n
                halves = limit - (limit - 0.5) * 0.5 ** np.arange(n - 1)
                np.testing.assert_allclose([*halves, limit], z[name], rtol=0, atol=1e-12)
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
