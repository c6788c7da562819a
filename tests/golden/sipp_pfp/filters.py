"""Golden checks of methods that cut filters: PFP, its random variants, and the norms of filters."""

import math

import numpy as np
import torch
from torch import nn

import pruning_core as pc
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import View
from pruning_core.methods.norms import L1Norm, L2Norm
from pruning_core.methods.pfp import PFP, PFPRandom, PFPTop, kept_at, split
from pruning_core.methods.shared.draws import Draws, coefficient
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.models.activations import layer_inputs
from pruning_core.models.cost import output_positions
from tests.golden.harness import Check
from tests.golden.sipp_pfp.networks import (
    Dependencies,
    budget,
    check_labels,
    constants,
    is_chain,
    network,
    propagate,
    settle_ties,
)
from tests.golden.sipp_pfp.samples import CLOSE, official_draws
from tests.golden.sipp_pfp.weights import compare


class Sensitive:
    """The layers of a network with what PFP knows of them: sensitivities of inputs, coefficients, sizes, who reads whom."""

    def __init__(self, z):
        self.model, self.names = network(z)
        check_labels(z, self.model)
        self.x, self.links = torch.from_numpy(z["x"]), Dependencies(z, self.names)
        self.weights = [self.model.get_submodule(name).weight.detach() for name in self.names]
        self.kernels = [w[0, 0].numel() if w.dim() == 4 else 1 for w in self.weights]
        seen = {n: maps for found in layer_inputs(self.model, self.names, [(self.x,)]) for n, maps in found.items()}
        found = [sensitivity(self.model.get_submodule(name), [seen[name]], "max") for name in self.names]
        self.channels = [part.channel.numpy() for part in found]
        self.coefficients = [
            coefficient(float(part.channel.sum()), part.positions, kernel, **constants(z))
            for part, kernel in zip(found, self.kernels, strict=True)
        ]
        for i, part in enumerate(found):
            np.testing.assert_allclose(part.channel, z[f"sensitivity_in{i}"], **CLOSE)
            if f"sensitivity{i}" in z:
                np.testing.assert_allclose(part.weight, z[f"sensitivity{i}"], **CLOSE)

    def widths(self, error: float) -> list[int]:
        """How many inputs every layer keeps at an error."""
        return [kept_at(error, s / s.sum(), a) for s, a in zip(self.channels, self.coefficients, strict=True)]

    def size(self, kept: list[int]) -> int:
        """Weights left: a layer with one reader makes no more than the next one in the list reads."""
        following = [*kept[1:], math.inf]
        readers = [len(self.links.readers[name]) for name in self.names]
        outputs = [
            min(len(w), n) if one == 1 else len(w) for w, n, one in zip(self.weights, following, readers, strict=True)
        ]
        return sum(int(n * out * k) for n, out, k in zip(kept, outputs, self.kernels, strict=True))

    def around(self, wanted: int) -> tuple[list[int], list[int]]:
        """Inputs kept just below and just above the error at which ``wanted`` weights stay: the official root is a jump."""
        low, high = 1e-6, 1e9
        for _ in range(200):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self.size(self.widths(middle)) <= wanted else (middle, high)
        return self.widths(low), self.widths(high)

    def masks(self, kept: list[list[int]] | list[torch.Tensor]) -> Masks:
        """What stays of the weights when these inputs do: a filter goes when nobody who reads it does any more."""
        left = {name: w.clone() for name, w in zip(self.names, self.weights, strict=True)}
        for name, stays in zip(self.names, kept, strict=True):
            left[name][:, ~torch.as_tensor(stays)] = 0
        for name, readers in self.links.readers.items():
            if readers:
                unread = torch.stack([(left[r].transpose(0, 1).flatten(1) == 0).all(1) for r in readers]).all(0)
                left[name][unread] = 0
        return Masks({f"{name}.weight": weight != 0 for name, weight in left.items()})

    def best(self, i: int, count: int, stored: torch.Tensor) -> torch.Tensor:
        """The ``count`` inputs of layer i with the largest sensitivities; where they tie, those that ``stored`` kept."""
        scores = torch.from_numpy(self.channels[i])
        keep = torch.zeros(len(scores), dtype=torch.bool)
        keep[torch.argsort(scores, descending=True, stable=True)[:count]] = True
        return settle_ties(keep, stored.transpose(0, 1).flatten(1).any(1), scores)

    def groups(self) -> dict[str, str]:
        """Layer -> the group of channels that it reads, where those can be pruned and it alone reads them."""
        sites = find_sites(self.model, channels=True, example_input=self.x[:1], refuses=PFP().refuses)
        return {group.consumes[0].layer: name for name, group in sites.groups.items() if len(group.consumes) == 1}


def pfp_det(z):
    """Sensitivities, coefficients, what stays at an error, and the masks of the stored allocation."""
    net = Sensitive(z)
    facts = {
        "sum_sens": [s.sum() for s in net.channels],
        "nnz": [np.count_nonzero(s) for s in net.channels],
        "coeffs": net.coefficients,
    }
    for name, ours in facts.items():
        if name in z:
            np.testing.assert_allclose(ours, z[name], **CLOSE)
    same_layers(z, net.model, net.names, net.x, net.links.readers)
    for k, ratio in enumerate(z["keep_ratios"]):
        stored = [int(z[f"alloc{i}_{k}"]) for i in range(len(net.names))]
        on_either_side(stored, *(net.widths(float(z[f"arg_opt_{k}"]) * side) for side in (1 + 1e-9, 1 - 1e-9)))
        on_either_side(stored, *net.around(budget(z, float(ratio))))
        official = [torch.from_numpy(z[f"mask{i}_{k}"]).bool() for i in range(len(net.names))]
        kept = [net.best(i, n, official[i]) for i, n in enumerate(stored)]
        compare(z, k, net.model, net.names, net.masks(kept))
        if is_chain(z):
            through_prune(z, k, net, stored, kept)


def through_prune(z, k, net: Sensitive, stored: list[int], kept: list[torch.Tensor]) -> None:
    """The channels between layers as ``prune`` cuts them, and their scores: the largest error at which each stays."""
    groups = net.groups()
    assert len(groups) == len(net.names) - 1
    view = View(
        net.model, find_sites(net.model, channels=True, example_input=net.x[:1], refuses=PFP().refuses),
        Masks(), [(net.x, None)], nn.functional.cross_entropy, torch.Generator(), net.x[:1],
    )  # fmt: skip
    scores = PFP(**constants(z)).score(view)
    error = float(z[f"arg_opt_{k}"])
    counts = [
        max(int((scores[groups[name]] >= error * side).sum()), 1) if name in groups else stored[i]
        for side in (1 + 1e-9, 1 - 1e-9)
        for i, name in enumerate(net.names)
    ]
    on_either_side(stored, counts[: len(stored)], counts[len(stored) :])
    sizes = {name: n / net.weights[i].shape[1] for i, (name, n) in enumerate(zip(net.names, stored, strict=True))}
    across = {groups[name]: 1 - sizes[name] for name in groups}
    result = pc.prune(net.model, PFP(**constants(z)), None, across=across, batches=[(net.x, None)])
    for i, name in enumerate(net.names):
        if name in groups and stored[i]:
            alive = result.sites.groups[groups[name]].alive(result.masks)
            scores_of = torch.from_numpy(net.channels[i])
            np.testing.assert_array_equal(settle_ties(alive, kept[i], scores_of), kept[i])


def on_either_side(stored, *sides) -> None:
    """Every layer's number is that of one side of a jump, where the official root lies."""
    np.testing.assert_array_equal([n if n in pair else -1 for n, *pair in zip(stored, *sides, strict=True)], stored)


def same_layers(z, model, names, x, dependencies) -> None:
    """What a file says of its layers, as far as it does."""
    positions = output_positions(model, x[:1])
    weights = [model.get_submodule(name).weight for name in names]
    facts = {
        "in_features": [w.shape[1] for w in weights],
        "out_features": [len(w) for w in weights],
        "kernel_size": [w[0, 0].numel() for w in weights],
        "num_patches": [positions[name] for name in names],
        "num_dependencies": [len(dependencies[name]) for name in names],
    }
    for name, ours in facts.items():
        if f"alloc_{name}" in z:
            np.testing.assert_array_equal(ours, z[f"alloc_{name}"])


def pfp_top_split(z):
    """How many channels stay for certain, what is drawn beside them, and the re-weighted weights of given draws."""
    net = Sensitive(z)
    ratios = list(enumerate(z["keep_ratios"]))
    splits = [[tuple(int(n) for n in z[f"split{i}_{k}"]) for i in range(len(net.names))] for k, _ in ratios]
    for k, ratio in ratios:
        on_either_side([sum(pair) for pair in splits[k]], *net.around(budget(z, float(ratio))))
        for channels, stored in zip(net.channels, splits[k], strict=True):
            q, count = channels / channels.sum(), sum(stored)
            # On a plateau of the expected number the official search takes another number of draws than the least.
            np.testing.assert_array_equal(split(q, count, official_draws(q, count)), stored)
        drawn_through_prune(z, net, [sum(pair) for pair in splits[k]], seed=k)
    for name in [key for key in z if key.startswith("rand_counts")]:
        i = int(name.removeprefix("rand_counts"))
        counts, q = z[name], z[f"rand_prob{i}"]
        np.testing.assert_allclose(net.channels[i] / net.channels[i].sum(), q, **CLOSE)
        assert np.count_nonzero(counts) <= int(z[f"rand_alloc{i}"]) <= len(q)
        np.testing.assert_array_equal(counts.sum(), official_draws(q, int(z[f"rand_alloc{i}"])))
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.nan_to_num(counts / (counts.sum() * q), posinf=0.0)
        sample = Draws(torch.from_numpy(q), 0, torch.Generator())
        sample.counts, sample.sequence = counts.astype(np.int64), [0] * int(counts.sum())
        np.testing.assert_allclose(sample.factors(), factors, rtol=1e-9)
        scaled = net.weights[i] * sample.factors().view(1, -1, *[1] * (net.weights[i].dim() - 2))
        np.testing.assert_allclose(scaled, z[f"rand_what{i}"], rtol=1e-9, atol=1e-12)


def drawn_through_prune(z, net: Sensitive, counts: list[int], seed: int) -> None:
    """What ``prune`` draws at these widths: as many channels, and one factor for all weights that read the same one."""
    if not is_chain(z):
        return
    groups = net.groups()
    kept = {name: max(n, 1) for name, n in zip(net.names, counts, strict=True) if name in groups}
    across = {groups[name]: 1 - n / net.weights[net.names.index(name)].shape[1] for name, n in kept.items()}
    for kind in (PFPRandom, PFPTop):
        result = pc.prune(net.model, kind(**constants(z)), None, across=across, batches=[(net.x, None)], seed=seed)
        for name, n in kept.items():
            i = net.names.index(name)
            assert int(result.sites.groups[groups[name]].alive(result.masks).sum()) == n
            there, before, after = (
                tensor.detach().transpose(0, 1).flatten(1)
                for tensor in (result.masks[f"{name}.weight"], net.weights[i], result.model.get_submodule(name).weight)
            )
            ratio = torch.where(there, after / before, 0.0).sum(1) / there.sum(1).clamp(min=1)
            np.testing.assert_allclose(torch.where(there, before * ratio[:, None], 0.0), after, rtol=1e-9, atol=1e-15)
            _factors(kind, ratio, torch.from_numpy(net.channels[i]), n)


def _factors(kind: type, ratio: torch.Tensor, scores: torch.Tensor, count: int) -> None:
    """One factor a channel: 1 for those that are certain, and c / (m q) for what is drawn, the c adding up to m."""
    certain = split((scores / scores.sum()).numpy(), count)[0] if kind is PFPTop else 0
    best = torch.argsort(scores, descending=True, stable=True)[:certain]
    np.testing.assert_array_equal(ratio[best], 1.0)
    rest = scores.index_fill(0, best, 0)
    sampled = ratio.index_fill(0, best, 0)
    if sampled.any() and not bool((sampled[rest > 0] == 1).all()):
        np.testing.assert_allclose((sampled * rest).sum() / rest.sum(), 1.0, rtol=1e-9)


def base_ft(z):
    _filters(z, L1Norm(normalise="none"), lambda weight: weight.flatten(1).abs().sum(1))


def base_soft(z):
    _filters(z, L2Norm(normalise="none"), lambda weight: weight.flatten(1).norm(dim=1))


def _filters(z, method, norm):
    """One fraction of the filters of every layer but the last, the largest by norm, then what the others imply."""
    model, names = network(z)
    check_labels(z, model)
    links = Dependencies(z, names)
    weights = {name: model.get_submodule(name).weight.detach() for name in names}  # type: ignore[union-attr]
    x = torch.from_numpy(z["x"])
    _norms_agree(model, x, method, norm)
    feeders = {name: links.feeders[name] for name in names}
    same_layers(z, model, names, x, feeders)
    for k, ratio in enumerate(z["keep_ratios"]):
        stored = {name: int(z[f"alloc{i}_{k}"]) for i, name in enumerate(names)}
        below, above = _around_the_jump(weights, links, budget(z, float(ratio)))
        on_either_side(*([counts[name] for name in names] for counts in (stored, below, above)))
        if f"arg_opt_{k}" in z:
            near = [_counts(weights, links, float(z[f"arg_opt_{k}"]) + step) for step in (-1e-6, 1e-6)]
            on_either_side(*([counts[name] for name in names] for counts in (stored, *near)))
        left = {name: weight.clone() for name, weight in weights.items()}
        for i, (name, weight) in enumerate(left.items()):
            size = norm(weight)
            keep = torch.zeros(len(weight), dtype=torch.bool)
            keep[size.argsort(descending=True, stable=True)[: stored[name]]] = True
            if not links.copies[name]:
                keep = settle_ties(keep, torch.from_numpy(z[f"mask{i}_{k}"]).bool().flatten(1).any(1), size)
            weight[~keep] = 0
        propagate(left, weights, links)
        compare(z, k, model, names, Masks({f"{name}.weight": weight != 0 for name, weight in left.items()}))
        if is_chain(z):
            _same_through_prune(z, k, model, names, method, stored)


def _same_through_prune(z, k, model, names, method, stored) -> None:
    """``prune`` leaves the same weights, the budget of every group of channels given."""
    x = torch.from_numpy(z["x"])
    sites = find_sites(model, channels=True, example_input=x[:1])
    made = {member.layer: name for name, group in sites.groups.items() for member in group.produces}
    across = {group: 1 - stored[layer] / sites.groups[group].size for layer, group in made.items()}
    masks = pc.prune(model, method, None, across=across, example_input=x[:1]).masks
    scores = {layer: method.score(_view(model, sites, x))[group] for layer, group in made.items()}
    for i, name in enumerate(names):
        official = torch.from_numpy(z[f"mask{i}_{k}"]).bool()
        ours = masks[f"{name}.weight"] if f"{name}.weight" in masks else torch.ones_like(official)
        rows = [part.flatten(1).any(1) for part in (ours, official)]
        settled = settle_ties(*rows, scores[name]) if name in scores else rows[0]
        np.testing.assert_array_equal(settled, rows[1])
        if torch.equal(*rows):
            np.testing.assert_array_equal(ours & (model.get_submodule(name).weight != 0), official)


def _view(model, sites, x) -> View:
    return View(model, sites, Masks(), None, nn.functional.cross_entropy, torch.Generator(), x[:1])


def _norms_agree(model, x, method, norm):
    """The package's filter norms are the norms used here, for every group with one producing layer."""
    sites = find_sites(model, channels=True, example_input=x[:1])
    scores = method.score(_view(model, sites, x))
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


CHECKS: dict[str, Check] = {
    "pfp_det": pfp_det,
    "pfp_top_split": pfp_top_split,
    "base_ft": base_ft,
    "base_soft": base_soft,
}
