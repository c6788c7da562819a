"""ThiNet against its greedy search written out."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.methods.thinet import ThiNet
from tests.methods.sampled_networks import inputs_by_hand, network, randomised


def contributions(model, reader: str, group_inputs: np.ndarray, batches) -> np.ndarray:
    """What each channel alone adds to the outputs of the reading layer: (channels, everything)."""
    maps = inputs_by_hand(model, [reader], batches)[reader]
    layer = copy.deepcopy(model.get_submodule(reader))
    layer.bias = None
    rows = []
    for channel in range(int(group_inputs.max()) + 1):
        alone = maps.clone()
        alone[:, torch.from_numpy(group_inputs != channel)] = 0
        with torch.no_grad():
            rows.append(layer(alone).numpy().ravel())
    return np.stack(rows)


def greedy_order(rows: np.ndarray, count: int) -> list[int]:
    """One channel after the other, each time the one with which the sum of the chosen stays smallest."""
    chosen: list[int] = []
    for _ in range(count):
        best = min(
            (c for c in range(len(rows)) if c not in chosen),
            key=lambda c: float((rows[chosen].sum(0) + rows[c]) @ (rows[chosen].sum(0) + rows[c])),
        )
        chosen.append(best)
    return chosen


THINET = {
    # group -> the layer that reads it, and which channel each of its inputs is
    "chain": {
        "0": ("3", np.arange(9)), "3": ("5", np.arange(14)), "5": ("8", np.repeat(np.arange(11), 4)),
        "8": ("10", np.arange(16)),
    },
    "perceptron": {"0": ("2", np.arange(20)), "2": ("4", np.arange(15))},
}  # fmt: skip


@pytest.mark.parametrize("kind", THINET)
@pytest.mark.parametrize("seed", range(3))
def test_thinet_removes_what_the_next_layer_misses_least(kind, seed):
    model, batches = network(kind, seed)
    for group, (reader, inputs) in THINET[kind].items():
        size = int(inputs.max()) + 1
        rows = contributions(model, reader, inputs, batches)
        for sparsity in (0.3, 0.6):
            removed = math.floor(size * sparsity + 0.5)
            result = pc.prune(model, "thinet", None, across={group: removed / size}, batches=batches)
            alive = result.sites.groups[group].alive(result.masks).numpy()
            assert set(np.flatnonzero(~alive).tolist()) == set(greedy_order(rows, removed))
            other = pc.prune(model, ThiNet(reference=True), None, across={group: removed / size}, batches=batches)
            alive = other.sites.groups[group].alive(other.masks).numpy()
            assert set(np.flatnonzero(alive).tolist()) == set(greedy_order(rows, size - removed))


def test_thinet_by_reference_keeps_what_the_other_removes_first():
    model, batches = network("perceptron")
    right, turned = (
        pc.prune(model, method, None, across={"0": 0.5}, batches=batches)
        for method in (ThiNet(), ThiNet(reference=True))
    )
    group = right.sites.groups["0"]
    assert torch.equal(group.alive(right.masks), ~group.alive(turned.masks))


def test_the_order_of_thinet_matters_in_a_trained_network():
    digits = pc.load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        randomised(model, 0).float()
        pc.fit(model, digits, epochs=15, optimizer=pc.Optimizer("sgd", lr=0.1), batch_size=32, progress=False)
    batches = list(digits.score.subset(64).batches(32))
    x, y = digits.test.inputs, digits.test.labels

    def accuracy(net):
        with torch.no_grad():
            return float((net.eval()(x).argmax(1) == y).double().mean())

    whole = accuracy(model)
    right, turned = (
        accuracy(pc.prune(model, method, 0.5, batches=batches).model) for method in (ThiNet(), ThiNet(reference=True))
    )
    assert whole > 0.85
    assert right > turned + 0.2
    assert right > whole - 0.2
