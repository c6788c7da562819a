"""Scores of a network without its dead channels: the same masks, at the cost of what lives."""

import shutil

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.experiments.runs import final_state
from pruning_core.masks.budgets import Budget
from pruning_core.masks.groups import expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import METHODS, View, as_method
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.shrinking import living_part
from pruning_core.methods.snap import Snap
from pruning_core.models.layers.gates import ChannelGate
from pruning_core.pruning import prune_step
from tests.masks.test_groups import NETWORKS, made
from tests.methods.gradient_networks import conv, residual

SHRINKING = [name for name, method in METHODS.items() if method.unit == "channel" and as_method(name).shrinks()]
SEEDS = [0, 1, 2]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def batches_for(model: nn.Module, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two batches of random inputs, with a label for everything that the network classifies."""
    inputs = [random(6, 2, 8, 8, seed=2 * seed + i) for i in range(2)]
    with torch.no_grad():
        return [(x, model(x.flip(0)).argmax(1)) for x in inputs]


def prepared(method: str, model: nn.Module, example: torch.Tensor, seed: int) -> nn.Module:
    """The network with the gates that a method may ask for, not all of them one."""
    model = as_method(method).prepare(model, example)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, ChannelGate):
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def with_and_without(monkeypatch, call) -> list:
    """What ``call()`` gives while dead channels are left out, and while they are not."""
    found = [call()]
    with monkeypatch.context() as patch:
        patch.setattr(View, "of_living", lambda view, score: score(view))
        return [*found, call()]


def test_the_methods_of_snip_it_leave_dead_channels_out():
    assert set(SHRINKING) == {"snap", "cnip", "gates"}


@pytest.mark.parametrize("method", SHRINKING)
@pytest.mark.parametrize("kind", [*NETWORKS, "residual", "batch norm and pool"])
@pytest.mark.parametrize("seed", SEEDS)
def test_masks_are_the_same_in_every_round(method, kind, seed, monkeypatch, batches):
    own = {"residual": residual, "batch norm and pool": conv}
    model = own[kind]().eval() if kind in own else made(kind)
    given = batches[seed:] + batches[:seed] if kind in own else batches_for(model, seed)
    model = prepared(method, model, given[0][0][:1], seed)
    seen = []
    monkeypatch.setattr(Snap, "score", counting(Snap.score, seen))

    def cut():
        return pc.prune(model, method, 0.6, batches=given, rounds=4, schedule="linear").masks

    masks, otherwise = with_and_without(monkeypatch, cut)
    assert masks == otherwise
    if method == "snap":
        assert seen[3] < seen[0]
        assert seen[4:] == [seen[0]] * 4


def counting(score, seen: list[int]):
    def counted(method, view):
        seen.append(sum(parameter.numel() for parameter in view.model.parameters()))
        return score(method, view)

    return counted


@pytest.mark.parametrize("kind", [*NETWORKS, "residual"])
def test_the_groups_that_are_left_are_those_that_a_search_finds(kind):
    model = residual().eval() if kind == "residual" else made(kind)
    example = random(1, 1 if kind == "residual" else 2, 8, 8, seed=0)
    sites = find_sites(model, channels=True, example_input=example)
    # Of two at least both stay: a grouped convolution with one input a group is depthwise, and has other units.
    keep = {name: (torch.arange(g.size) % 3 != 1) | (g.size == 2) for name, g in sites.groups.items()}
    masks = expand(keep, sites.groups, sites.shapes)
    masks.apply_(model)
    part = living_part(model, masks, sites, example)
    assert part is not None
    searched = {group.name: group for group in find_groups(part.model, example)}
    for name, group in part.sites.groups.items():
        assert group.size == searched[name].size == int(keep[name].sum())
        for side in ("produces", "normalises", "consumes"):
            ours, theirs = (sorted(map(entries, getattr(g, side)), key=str) for g in (group, searched[name]))
            assert ours == theirs
        assert torch.equal(part.spread(name, torch.ones(group.size)) > 0, keep[name])


def entries(member) -> tuple:
    pairs = sorted(zip(member.indices.tolist(), member.channels.tolist(), strict=True))
    return member.parameter, member.dim, member.is_buffer, pairs


def test_nothing_is_left_out_where_that_would_change_the_network(batches):
    """A group that lost all channels, and masks that the network does not have yet."""
    model, example = conv(), batches[0][0][:1]
    sites = find_sites(model, channels=True, example_input=example)
    for dead in (slice(None), slice(3)):
        keep = torch.ones(6, dtype=torch.bool)
        keep[dead] = False
        masks = expand({"0": keep}, sites.groups, sites.shapes)
        assert living_part(model, masks, sites, example) is None
        if not keep.any():
            masks.apply_(model)
            assert living_part(model, masks, sites, example) is None
            after = prune_step(model, Snap(), Budget(0.8, of="channels"), sites, masks, batches).masks
            assert after <= masks
            model = conv()
    assert living_part(model, Masks(), sites, example) is None


def test_gates_that_are_scored_in_training_mode_draw_dropout_for_dead_channels_too(batches):
    assert not GateDecorators(reference=True).shrinks()
    model = nn.Sequential(*conv(), nn.Dropout(0.5), nn.Linear(10, 10)).double()
    model = prepared("gates", model, batches[0][0][:1], 0)
    method = GateDecorators(reference=True)
    result = pc.prune(model, method, 0.5, batches=batches)

    def scores(of_living: bool):
        view = View(
            result.model, result.sites, result.masks, batches, nn.functional.cross_entropy, None, batches[0][0][:1]
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return view.of_living(method.score) if of_living else method.score(view)

    assert any(not torch.allclose(score, scores(True)[name]) for name, score in scores(False).items())


@pytest.mark.parametrize("method", ["snap", "cnip"])
@pytest.mark.parametrize("place", ["repeat", "every"])
def test_a_timeline_cuts_the_same(method, place, monkeypatch, empty_cache):
    cut = pc.Prune(method, 0.8, schedule="linear", batches="train", samples=64)
    stages = {
        "repeat": [pc.Repeat(3, [cut, pc.Train(1), pc.Measure("round")])],
        "every": [pc.Train(3, during=pc.Every(1, [cut, pc.Measure("round")]))],
    }
    run = pc.Experiment("vgg8", "digits", stages[place], optimizer=pc.Optimizer("sgd", lr=0.01), limit=300, width=0.25)

    def played() -> Masks:
        shutil.rmtree(empty_cache, ignore_errors=True)  # so that nothing is read from a checkpoint
        return final_state(run).masks

    masks, otherwise = with_and_without(monkeypatch, played)
    assert masks == otherwise
    assert masks.removed
