"""Greedy selection and imitation: the best candidate in every step, found by trying all of them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.imitation import Imitation
from pruning_core.models.activations import places
from pruning_core.pruning import prune_step
from tests.methods.hidden_by_hand import (
    NETWORKS,
    alive_channels,
    inputs_of_layer,
    labelled,
    last_linear,
    network,
    pruned,
    randomised,
    seeded,
    two_sided,
)

# --- greedy


class Same(nn.Module):
    """The same outputs, but not the very tensor of the last layer: so the reading layer is not the end."""

    def forward(self, x):
        return x * 1.0


def greedy_by_hand(model, batches, reader, owner, s, loss=F.cross_entropy):
    """Every candidate in a network of its own, on the next batch: indices in the order they were chosen."""
    owner = np.asarray(owner)
    size = int(owner.max()) + 1
    groups = getattr(model.get_submodule(reader), "groups", 1)
    columns = owner[: len(owner) // groups]
    chosen: list[int] = []
    for n in range(s):
        x, y = batches[n % len(batches)]
        losses = {}
        for k in sorted(set(range(size)) - set(chosen)):
            twin = copy.deepcopy(model).eval()
            factors = [1.0 if c < 0 else size / (n + 1) * (c in (*chosen, k)) for c in columns.tolist()]
            with torch.no_grad():
                weight = twin.get_submodule(reader).weight
                weight.mul_(torch.tensor(factors).to(weight).view(1, -1, *[1] * (weight.dim() - 2)))
                losses[k] = float(loss(twin(x), y))
        chosen.append(min(losses, key=lambda k: (losses[k], k)))
    return chosen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_greedy_is_the_best_candidate_in_every_step(seed, inside, norm):
    model = last_linear(seed, norm=norm)
    if inside:
        model.append(Same())
    batches = labelled(seed, (6,))
    example = batches[0][0][:1]
    assert places(model, ["2"], example)["2"].last == (not inside and not norm)
    for s in (1, 3, 5):
        result = pc.prune(model, "greedy", None, across={"0": 1 - s / 9}, batches=batches)
        assert alive_channels(result)["0"] == sorted(greedy_by_hand(model, batches, "2", np.arange(9), s))


@pytest.mark.parametrize("kind", ["conv norm pool conv", "grouped", "concat"])
def test_greedy_inside_a_network_and_behind_a_flatten(kind):
    model, x, plan = network(kind)
    classes = model(x).shape[1]
    labels = torch.randint(classes, (23,), generator=seeded(0))
    batches = list(zip(x.split((12, 11)), labels.split((12, 11)), strict=True))
    for group, reader, _, owner, s in plan:
        size = int(max(owner)) + 1
        result = pc.prune(model, "greedy", None, across={group: 1 - s / size}, batches=batches)
        assert alive_channels(result)[group] == sorted(greedy_by_hand(model, batches, reader, owner, s))
    # Both layers of a plan: the later one is chosen in the network whose earlier one is pruned and rescaled.
    both = pruned(model, x, plan, "greedy", sizes=(12, 11), labels=labels)
    (first, *_), (second, reader, _, owner, s) = plan
    front = pc.prune(
        model, "greedy", None, across={first: 1 - plan[0][4] / (int(max(plan[0][3])) + 1)}, batches=batches
    )
    assert alive_channels(both)[second] == sorted(greedy_by_hand(front.model, batches, reader, owner, s))


def test_greedy_at_the_end_beside_columns_that_stay():
    for seed in range(3):
        model, batches = randomised(two_sided(torch.sigmoid), seed), labelled(seed, (4,), classes=5)
        for group, owner in (("a", np.r_[np.arange(6), [-1] * 6]), ("b", np.r_[[-1] * 6, np.arange(6)])):
            result = pc.prune(model, "greedy", None, across={group: 0.5}, batches=batches)
            assert alive_channels(result)[group] == sorted(greedy_by_hand(model, batches, "read", owner, 3))


def test_greedy_both_ways_give_the_same():
    for seed in range(3):
        model = last_linear(seed, wide=20)
        batches = labelled(seed, (6,), sizes=(7, 8, 5))
        for method in (Greedy(), Greedy(candidates=4), Greedy(candidates=1)):
            found = [
                pc.prune(net, method, None, across={"0": 0.7}, batches=batches, seed=3)
                for net in (model, nn.Sequential(*model, Same()))
            ]
            assert torch.equal(found[0].masks["0.weight"], found[1].masks["0.weight"])
            assert torch.equal(found[0].model[2].weight, found[1].model[2].weight)


class Reshuffled:
    """One batch whose samples come in another order in every pass, as a loader that shuffles gives them."""

    def __init__(self, x, y):
        self.x, self.y, self.generator = x, y, seeded(0)

    def __iter__(self):
        order = torch.randperm(len(self.x), generator=self.generator)
        yield self.x[order], self.y[order]


def test_greedy_keeps_labels_with_their_inputs_when_batches_are_shuffled():
    for seed in range(3):
        model = last_linear(seed)
        ((x, y),) = labelled(seed, (6,), sizes=(24,))
        expected = sorted(greedy_by_hand(model, [(x, y)], "2", np.arange(9), 4))
        for net in (model, nn.Sequential(*model, Same())):
            result = pc.prune(net, "greedy", None, across={"0": 5 / 9}, batches=Reshuffled(x, y))
            assert alive_channels(result)["0"] == expected


def test_greedy_tries_no_more_than_its_candidates():
    model = nn.Sequential(*last_linear(0, wide=12), Same())
    batches = labelled(0, (6,))
    tried = []

    def counting(outputs, y):
        tried.append(outputs)
        return F.cross_entropy(outputs, y)

    sites = find_sites(model, channels=True, example_input=batches[0][0][:1])
    budget = Budget(0.5, of="channels", across="layer")
    for candidates, expected in ((None, 12 + 11 + 10 + 9 + 8 + 7), (3, 6 * 3), (8, 8 + 8 + 8 + 8 + 8 + 7)):
        tried.clear()
        prune_step(
            copy.deepcopy(model),
            Greedy(candidates),
            budget,
            sites,
            Masks(),
            batches,
            0,
            None,
            batches[0][0][:1],
            counting,
        )
        assert len(tried) == expected


def test_greedy_draws_are_decided_by_the_seed():
    model, batches = last_linear(1, wide=30), labelled(1, (6,))

    def chosen(seed, candidates):
        result = pc.prune(model, Greedy(candidates), None, across={"0": 0.8}, batches=batches, seed=seed)
        return tuple(alive_channels(result)["0"])

    assert chosen(0, 2) == chosen(0, 2)
    assert len({chosen(seed, 2) for seed in range(5)}) > 1
    assert len({chosen(seed, None) for seed in range(5)}) == 1
    # With one candidate a step nothing is left to the loss: other labels, the same choice.
    other = [(x, (y + 1) % 4) for x, y in batches]
    result = pc.prune(model, Greedy(1), None, across={"0": 0.8}, batches=other, seed=0)
    assert tuple(alive_channels(result)["0"]) == chosen(0, 1)


@torch.no_grad()
def imitated(maps, layers, owner, s):
    """Greedy imitation with every channel's contribution written out."""
    exact = copy.deepcopy(layers).double().eval()
    owner = torch.tensor(np.asarray(owner))
    size = int(owner.max()) + 1
    nothing = exact(torch.zeros_like(maps))
    added = []
    for c in range(size):
        alone = maps * (owner == c).view(1, -1, *[1] * (maps.dim() - 2))
        added.append((exact(alone) - nothing).flatten())
    added = torch.stack(added)
    whole = added.sum(0)
    chosen: list[int] = []
    for n in range(s):
        errors = {
            k: float((whole - size / (n + 1) * added[[*chosen, k]].sum(0)).square().sum())
            for k in range(size)
            if k not in chosen
        }
        chosen.append(min(errors, key=errors.__getitem__))
    return sorted(chosen)


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "inverted residuals"])
def test_imitation_is_the_best_candidate_in_every_step(kind):
    for seed in range(2):
        model, x, plan = network(kind, seed)
        twin = copy.deepcopy(model).eval()
        found = alive_channels(pruned(model, x, plan, Imitation(rescale=False)))
        for group, reader, norm, owner, s in plan:
            layers = nn.Sequential(*[twin.get_submodule(name) for name in (reader, norm) if name is not None])
            expected = imitated(inputs_of_layer(twin, reader, x), layers, owner, s)
            assert found[group] == expected, group
            columns = np.asarray(owner)[: layers[0].weight.shape[1]]
            with torch.no_grad():
                layers[0].weight[:, torch.tensor((columns >= 0) & ~np.isin(columns, expected))] = 0


# --- what cannot be worked with


class NormBesides(nn.Module):
    """Returns the reading layer's output, which a norm has seen as well."""

    def __init__(self):
        super().__init__()
        self.a, self.read, self.norm = nn.Linear(4, 8), nn.Linear(8, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        out = self.read(torch.relu(self.a(x)))
        self.seen = self.norm(out)
        return out


def test_greedy_with_a_norm_beside_the_output():
    for seed in range(3):
        model, batches = randomised(NormBesides(), seed).eval(), labelled(seed, (4,), classes=3)
        result = pc.prune(model, "greedy", None, across={"a": 0.5}, batches=batches)
        assert alive_channels(result)["a"] == sorted(greedy_by_hand(model, batches, "read", np.arange(8), 4))
