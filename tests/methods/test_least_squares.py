"""Weights of the reading layer by least squares, against numpy and in systems that have no single solution."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import Unprunable
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.imitation import Imitation
from pruning_core.methods.ispasp import ISpaSP, fitted
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.least_squares import LARGEST_SYSTEM, contributions
from tests.methods.hidden_by_hand import (
    DOUBLE,
    Watched,
    alive_channels,
    conv_reader,
    inputs_of_layer,
    matrices,
    network,
    never,
    prepared,
    pruned,
    randomised,
    seeded,
    two_sided,
)

# --- debiasing


def seen_by_outputs(maps: np.ndarray, layer) -> list[np.ndarray]:
    """For every group of a layer what its outputs see, (inputs of the group, kernel, samples x positions), by slicing."""
    if isinstance(layer, nn.Linear):
        return [maps.T[:, None, :]]
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    padded = np.pad(maps, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    columns = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    taps = [
        padded[:, :, i * dh : i * dh + (rows - 1) * sh + 1 : sh, j * dw : j * dw + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    whole = np.stack(taps, 2).transpose(1, 2, 0, 3, 4).reshape(maps.shape[1], kh * kw, -1)
    return np.split(whole, layer.groups)


LAYERS = {
    "linear": lambda: (nn.Linear(10, 4), (60, 10), np.arange(10)),
    "without bias": lambda: (nn.Linear(10, 4, bias=False), (60, 10), np.arange(10)),
    "two columns a channel": lambda: (nn.Linear(20, 4), (60, 20), np.repeat(np.arange(10), 2)),
    "some stay": lambda: (nn.Linear(12, 4), (60, 12), np.r_[[-1, -1], np.arange(10)]),
    "conv": lambda: (nn.Conv2d(10, 4, 3, padding=1), (8, 10, 6, 6), np.arange(10)),
    "conv, stride and dilation": lambda: (
        nn.Conv2d(10, 4, (2, 3), (1, 2), (1, 0), (2, 1), bias=False), (9, 10, 6, 7), np.arange(10),
    ),
    "grouped": lambda: (nn.Conv2d(10, 4, 3, padding=1, groups=2), (8, 10, 6, 6), np.arange(10) % 5),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_debiasing_is_least_squares(kind):
    layer, shape, owner = LAYERS[kind]()
    layer = randomised(layer, 1)
    maps = torch.relu(torch.randn(shape, generator=seeded(2), dtype=DOUBLE) + 0.3)
    support = torch.tensor([0, 2, 3])
    keep = np.isin(owner, [-1, 0, 2, 3])
    found = fitted(prepared(maps.split(7), layer, owner), support)
    assert set(found) == ({"weight"} if layer.bias is None else {"weight", "bias"})
    weight = layer.weight.detach().numpy().reshape(len(layer.weight), -1)
    columns = seen_by_outputs(maps.numpy(), layer)
    outputs = len(weight) // len(columns)
    for g, seen in enumerate(columns):
        mine = slice(g * outputs, (g + 1) * outputs)
        dense = weight[mine] @ seen.reshape(-1, seen.shape[-1])
        kept = keep[g * len(seen) : (g + 1) * len(seen)]
        matrix = seen[kept].reshape(-1, seen.shape[-1])
        if layer.bias is not None:
            dense = dense + layer.bias.detach().numpy()[mine, None]
            matrix = np.vstack([matrix, np.ones(matrix.shape[1])])
        solution = np.linalg.lstsq(matrix.T, dense.T, rcond=None)[0].T
        ours = found["weight"].numpy()[mine].reshape(outputs, *seen.shape[:2])
        assert (ours[:, ~kept] == 0).all()
        size = int(kept.sum()) * seen.shape[1]
        np.testing.assert_allclose(ours[:, kept].reshape(outputs, -1), solution[:, :size], rtol=1e-6, atol=1e-8)
        if layer.bias is not None:
            np.testing.assert_allclose(found["bias"].numpy()[mine], solution[:, size], rtol=1e-6, atol=1e-8)


@torch.no_grad()
def squared_residual(model, result, reader, x) -> float:
    """By how much the reading layer's output differs from the dense one: all samples, no norm, no activation."""
    layer, changed = model.get_submodule(reader), result.model.get_submodule(reader)
    dense, ours = (inputs_of_layer(net.eval(), reader, x) for net in (model, result.model))
    return float((layer(dense) - changed(ours)).square().sum())


@pytest.mark.parametrize(
    "kind", ["conv norm pool conv", "perceptron with norms", "basic blocks", "grouped", "concat", "inverted residuals"]
)
def test_debiasing_never_increases_the_residual(kind):
    for seed in range(3):
        model, x, plan = network(kind, seed)
        model = model.eval()
        only = plan[:1]  # behind it the networks see different inputs
        plain_result, debiased = (pruned(model, x, only, ISpaSP(debias=debias)) for debias in (False, True))
        assert alive_channels(plain_result) == alive_channels(debiased)
        before, after = (squared_residual(model, result, only[0][1], x) for result in (plain_result, debiased))
        assert after < before


@pytest.mark.parametrize("act", [torch.relu, torch.sigmoid])
def test_debiasing_two_branches_is_least_squares_on_all_that_stays(act):
    for seed in range(4):
        model = randomised(two_sided(act), seed)
        x = torch.randn(40, 4, generator=seeded(seed), dtype=DOUBLE)
        plain_result, debiased = (
            pc.prune(model, ISpaSP(debias=debias), 0.5, across="layer", batches=[(x, None)]) for debias in (False, True)
        )
        columns = debiased.masks["read.weight"].any(0).numpy()
        assert columns.sum() == 6
        with torch.no_grad():
            dense = model(x).numpy()
            maps = torch.cat([act(model.a(x)), act(model.b(x))], 1).numpy()
            before, after = (np.square(result.model(x).numpy() - dense).sum() for result in (plain_result, debiased))
        matrix = np.c_[maps[:, columns], np.ones(len(x))]
        best = np.square(matrix @ np.linalg.lstsq(matrix, dense, rcond=None)[0] - dense).sum()
        assert after < before
        np.testing.assert_allclose(after, best, rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_debiasing_with_too_few_samples_stays_finite(kind):
    layer, shape, owner = LAYERS[kind]()
    layer = randomised(layer, 1)
    maps = torch.relu(torch.randn((2, *shape[1:]), generator=seeded(2), dtype=DOUBLE))
    maps[:, 3] = 0  # a channel that never shows
    if maps.dim() > 2:
        maps = maps[:, :, :4, :4]
    support = torch.tensor([0, 1, 2, 3, 4])
    found = fitted(prepared([maps], layer, owner), support)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert max(float(value.abs().max()) for value in found.values()) < 100
    keep = np.isin(owner, [-1, *support.tolist()])
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for name, value in found.items():
            getattr(twin, name).copy_(value)
        after = float((twin(maps) - layer(maps)).square().sum())
        masked = maps * torch.tensor(keep).view(1, -1, *[1] * (maps.dim() - 2))
        before = float((layer(masked) - layer(maps)).square().sum())
    assert after <= before + 1e-12
    if isinstance(layer, nn.Linear):
        assert after < 1e-8  # two samples can be met exactly


@pytest.mark.parametrize("large", [1e3, 1e7])
def test_debiasing_does_not_depend_on_the_units_of_one_channel(large):
    maps, weight = matrices(1, samples=40, hidden=6)
    scale = torch.tensor([large, 1, 1, 1, 1, 1], dtype=DOUBLE)
    layer = nn.Linear(6, 4, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    keep = [0, 1, 2]
    found = fitted(prepared([maps * scale], layer, np.arange(6)), torch.tensor(keep))["weight"].numpy()
    x = (maps * scale).numpy()
    dense = x @ weight.numpy().T
    kept = x[:, keep]
    solution = np.linalg.lstsq(kept / kept.max(0), dense, rcond=None)[0]
    best = np.square(kept / kept.max(0) @ solution - dense).sum()
    np.testing.assert_allclose(np.square(x @ found.T - dense).sum(), best, rtol=1e-3)


# --- greedy


@pytest.mark.parametrize("method", [Greedy, Imitation])
@pytest.mark.parametrize("kind", ["conv norm pool conv", "grouped", "concat"])
def test_rescaling_leaves_its_factor_in_the_reading_layer(method, kind):
    model, x, plan = network(kind)
    labels = torch.randint(4, (23,), generator=seeded(0))
    (group, reader, norm, owner, few), *_ = plan
    weight = model.get_submodule(reader).weight.detach()
    columns = torch.tensor(np.asarray(owner)[: weight.shape[1]])
    size = int(max(owner)) + 1
    for rescale, s in ((True, few), (False, few), (True, size - 1)):
        result = pruned(model, x, [(group, reader, norm, owner, s)], method(rescale=rescale), labels=labels)
        kept = torch.tensor(alive_channels(result)[group])
        assert len(kept) == s
        expected = weight.clone()
        ours = torch.isin(columns, kept)
        expected[:, ours] *= size / s if rescale else 1
        expected[:, ~ours & (columns >= 0)] = 0
        np.testing.assert_allclose(result.model.get_submodule(reader).weight.detach(), expected, rtol=1e-12)


# --- memory


def test_least_squares_and_contributions_hold_one_chunk():
    for compute in (lambda hidden: fitted(hidden, torch.tensor([0, 1])), contributions):
        chunks = Watched()
        compute(Hidden.of(chunks, conv_reader()))
        assert chunks.most <= 2


# --- what cannot be worked with


def test_debiasing_ends_at_systems_that_fit_into_memory():
    wide = LARGEST_SYSTEM + 1
    with pytest.raises(Unprunable, match="sees 10,001 values; least squares end at 10,000"):
        fitted(
            Hidden(never, nn.Linear(wide, 2), torch.arange(wide), wide, torch.ones(wide, dtype=torch.bool)),
            torch.tensor([0]),
        )
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, wide), nn.ReLU(), nn.Linear(wide, 2))
    batches = [(torch.rand(3, 2), None)]
    with pytest.raises(Unprunable, match="in front of '3' sees 10,001 values"):
        pc.prune(model, ISpaSP(debias=True), 0.5, batches=batches)
    assert pc.prune(model, ISpaSP(), 0.5, batches=batches).report is not None  # the selection itself has no such end


def three_dimensions() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3), nn.ReLU(), nn.Conv3d(6, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )


@pytest.mark.parametrize("method", [ISpaSP(debias=True), Imitation()])
def test_least_squares_behind_three_dimensions_are_refused(method):
    batches = [(torch.randn(4, 1, 5, 5, 5), None)]
    assert pc.prune(three_dimensions(), ISpaSP(), None, across={"0": 0.5}, batches=batches).report is not None
    with pytest.raises(Unprunable, match="not available behind Conv3d"):
        pc.prune(three_dimensions(), method, None, across={"0": 0.5}, batches=batches)


@pytest.mark.parametrize("change", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_least_squares_behind_special_padding_are_refused(change):
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, **change), nn.Flatten(), nn.Linear(64, 3))
    batches = [(torch.randn(4, 1, 6, 6), None)]
    for method in (ISpaSP(debias=True), Imitation()):
        with pytest.raises(Unprunable, match="least squares are not available"):
            pc.prune(model, method, None, across={"0": 0.5}, batches=batches)
