"""i-SpaSP against slow ways of computing the same, and what section 2 of the paper's sheet promises."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.activation_sum import ActivationSum
from pruning_core.methods.base import METHODS
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.imitation import Imitation
from pruning_core.methods.ispasp import ISpaSP, two_layer
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shrinking import shrunk
from pruning_core.pruning import prune_step
from tests.methods.hidden_by_hand import (
    DOUBLE,
    LAYERWISE,
    NETWORKS,
    Watched,
    alive_channels,
    conv_reader,
    inputs_of_layer,
    labelled,
    last_linear,
    matrices,
    network,
    never,
    plain,
    prepared,
    pruned,
    randomised,
    seeded,
)

FEW = settings(max_examples=60, deadline=None, derandomize=True)


# --- the slow way


def same_steps(found, expected):
    """All iterations agree; ours may stop when the support repeats."""
    for t, (y, proposals, support, _) in enumerate(expected):
        step = found.steps[min(t, len(found.steps) - 1)]
        assert step.support.tolist() == support, t
        if t < len(found.steps):
            np.testing.assert_allclose(step.importance, y, rtol=1e-9, atol=1e-10 * np.abs(y).max())
            assert step.proposals.tolist() == proposals


problems = st.tuples(
    st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 16), st.integers(1, 5), st.floats(0.01, 1)
)


# --- what follows from the steps alone


@FEW
@given(problems, st.sampled_from(["signed", "absolute"]), st.sampled_from(["sum", "norm"]))
def test_the_activation_of_the_support_never_decreases(problem, importance, activation):
    seed, samples, hidden, outputs, ratio = problem
    maps, weight = matrices(seed, samples, hidden, outputs)
    s = max(1, int(hidden * ratio))
    found = two_layer(maps, weight, s, 12, importance, activation, until_repeat=False)
    assert len(found.steps) == 12
    sums = [float(found.activation[step.support].sum()) for step in found.steps]
    assert all(after >= before - 1e-12 for before, after in pairwise(sums))
    supports = [torch.tensor([], dtype=torch.long), *(step.support for step in found.steps)]
    for before, step in zip(supports, found.steps, strict=False):
        assert set(step.merged.tolist()) == set(before.tolist()) | set(step.proposals.tolist())
        assert set(step.support.tolist()) <= set(step.merged.tolist())
        assert len(step.support) == s


@FEW
@given(problems, st.sampled_from(["signed", "absolute"]))
def test_keeping_half_is_keeping_the_largest_activations_at_once(problem, importance):
    seed, samples, hidden, outputs, _ = problem
    maps, weight = matrices(seed, samples, hidden, outputs)
    for s in range(-(-hidden // 2), hidden + 1):
        found = two_layer(maps, weight, s, 5, importance, until_repeat=False)
        expected = np.sort(np.argsort(-maps.numpy().sum(0), kind="stable")[:s])
        for step in found.steps:
            np.testing.assert_array_equal(step.support, expected)


def test_keeping_less_than_half_is_not_always_that():
    supports = [(two_layer(*matrices(seed), 3).support, matrices(seed)[0].sum(0).topk(3).indices) for seed in range(20)]
    assert any(set(ours.tolist()) != set(top.tolist()) for ours, top in supports)


@FEW
@given(problems)
def test_fewer_iterations_are_a_prefix(problem):
    seed, samples, hidden, outputs, ratio = problem
    maps, weight = matrices(seed, samples, hidden, outputs)
    s = max(1, int(hidden * ratio / 2))
    whole = two_layer(maps, weight, s, 8, until_repeat=False)
    for iterations in range(1, 9):
        part = two_layer(maps, weight, s, iterations, until_repeat=False)
        assert len(part.steps) == iterations
        for ours, theirs in zip(part.steps, whole.steps, strict=False):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    # Stopping when the support repeats is the same, since what follows depends on it alone.
    early = two_layer(maps, weight, s, 8)
    assert torch.equal(early.support, whole.support)
    if len(early.steps) < 8:
        assert torch.equal(early.steps[-1].support, early.steps[-2].support)


@FEW
@given(problems, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_positive_factors_change_nothing(problem, factor, other):
    seed, samples, hidden, outputs, ratio = problem
    maps, weight = matrices(seed, samples, hidden, outputs)
    s = max(1, int(hidden * ratio))
    before, after = (two_layer(m, w, s) for m, w in ((maps, weight), (maps * factor, weight * other)))
    assert [step.support.tolist() for step in before.steps] == [step.support.tolist() for step in after.steps]
    np.testing.assert_allclose(
        after.steps[0].importance, before.steps[0].importance * factor * other**2, rtol=1e-6,
        atol=1e-9 * float(after.steps[0].importance.abs().max()),
    )  # fmt: skip


@FEW
@given(problems, st.lists(st.integers(0, 8), max_size=4))
def test_chunks_do_not_matter_for_matrices(problem, cuts):
    seed, samples, hidden, outputs, ratio = problem
    maps, weight = matrices(seed, samples, hidden, outputs)
    s = max(1, int(hidden * ratio / 2))
    pieces = [piece for piece in np.split(np.arange(samples), sorted(cuts)) if len(piece)]
    whole = two_layer(maps, weight, s, residuals=True)
    cut = two_layer(lambda: (maps[piece] for piece in pieces), weight, s, residuals=True)
    assert [step.support.tolist() for step in whole.steps] == [step.support.tolist() for step in cut.steps]
    np.testing.assert_allclose(cut.residuals, whole.residuals, rtol=1e-10, atol=1e-12)


SHAPES = {
    # reader, maps, which channel an input belongs to
    "maps": (conv_reader(), (13, 12, 5, 5), np.arange(12)),
    "behind a flatten": (randomised(nn.Linear(48, 7), 1).float(), (13, 48), np.repeat(np.arange(12), 4)),
    "grouped": (conv_reader(groups=2), (13, 12, 5, 5), np.arange(12) % 6),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("sizes", [(13,), (1, 12), (5, 2, 6), (1,) * 13])
@pytest.mark.parametrize("activation", ["sum", "absolute", "norm"])
def test_chunks_do_not_matter_for_maps(kind, sizes, activation):
    layers, shape, owner = SHAPES[kind]
    maps = torch.relu(torch.randn(shape, generator=seeded(8)))
    found = two_layer(prepared(maps.split(sizes), layers, owner), None, 2, activation=activation, residuals=True)
    expected = plain(maps, layers, 2, owner=owner, activation=activation)
    same_steps(found, expected)
    np.testing.assert_allclose(
        found.residuals[: len(found.steps)], [e[3] for e in expected[: len(found.steps)]], rtol=1e-9
    )


def test_kept_neurons_still_see_the_residual():
    """Were the pruned output not held constant, the gradients of kept neurons would cancel to nothing."""
    maps, weight = matrices(4)
    found = two_layer(maps, weight, 3, until_repeat=False)
    kept = found.steps[0].support.numpy()
    h, w = maps.numpy(), weight.numpy()
    residual = h @ w.T - h[:, kept] @ w[:, kept].T
    np.testing.assert_allclose(found.steps[1].importance, (residual @ w).sum(0), rtol=1e-10)
    assert np.abs(found.steps[1].importance.numpy()[kept]).min() > 1e-3


def test_the_reference_trace():
    """h = (4, 3, 2, 1), y = (-1, 5, 4, 0), s = 1: neuron 0 has the largest h, but is not proposed."""
    # With one output y = w (w . h), and w is a multiple of y.
    weight = torch.tensor([[-1.0, 5, 4, 0]], dtype=DOUBLE) / 19**0.5
    found = two_layer(torch.tensor([[4.0, 3, 2, 1]], dtype=DOUBLE), weight, 1, 1)
    np.testing.assert_allclose(found.steps[0].importance, [-1, 5, 4, 0], atol=1e-12)
    assert found.steps[0].proposals.tolist() == [1, 2]
    assert found.support.tolist() == [1]
    assert found.activation.tolist() == [4, 3, 2, 1]


def test_ties_go_to_the_lowest_index():
    equal = torch.ones(1, 6, dtype=DOUBLE)
    found = two_layer(equal, torch.eye(6, dtype=DOUBLE), 2, 1)
    assert found.steps[0].proposals.tolist() == [0, 1, 2, 3]
    assert found.support.tolist() == [0, 1]
    # Equal importance, then equal activations among what was proposed.
    activations = torch.tensor([1.0, 4, 4, 4, 1, 1], dtype=DOUBLE)
    found = two_layer(activations[None], torch.diag(activations**-0.5), 2, 1)
    assert (found.steps[0].importance == 1).all()
    assert found.steps[0].proposals.tolist() == [0, 1, 2, 3]
    assert found.support.tolist() == [1, 2]
    many = torch.ones(1, 300, dtype=DOUBLE)  # an unstable sort keeps small inputs in order by accident
    assert two_layer(many, torch.eye(300, dtype=DOUBLE), 40).support.tolist() == list(range(40))


def test_residuals_by_hand():
    rises = 0
    for seed in range(30):
        maps, weight = matrices(seed, hidden=20)
        found = two_layer(maps, weight, 4, residuals=True)
        h, w = maps.numpy(), weight.numpy()
        expected = [np.square(h @ w.T).sum()]
        for step in found.steps:
            expected.append(np.square(h @ w.T - h[:, step.support] @ w[:, step.support].T).sum())
        np.testing.assert_allclose(found.residuals, expected, rtol=1e-10)
        rises += any(after > before * (1 + 1e-6) for before, after in pairwise(expected[1:]))
    assert rises  # the residual is not monotone


def test_an_offset_counts_in_the_first_iteration_only():
    maps, weight = matrices(2)
    layer = nn.Linear(12, 4).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.tensor([3.0, -2, 1, 5]))
    found = two_layer(maps, layer, 2, until_repeat=False)
    h, w, b = maps.numpy(), weight.numpy(), layer.bias.detach().numpy()
    np.testing.assert_allclose(found.steps[0].importance, ((h @ w.T + b) @ w).sum(0), rtol=1e-10)
    kept = found.steps[0].support.numpy()
    np.testing.assert_allclose(found.steps[1].importance, ((h @ w.T - h[:, kept] @ w[:, kept].T) @ w).sum(0), rtol=1e-9)


# --- against autograd on all samples at once


READERS = {
    "plain": lambda: (nn.Sequential(nn.Conv2d(12, 7, 3, bias=False), nn.BatchNorm2d(7)), (9, 12, 6, 5), None),
    "stride and padding": lambda: (
        nn.Sequential(nn.Conv2d(12, 7, 3, stride=2, padding=1), nn.BatchNorm2d(7)), (9, 12, 7, 6), None,
    ),
    "dilated": lambda: (nn.Sequential(nn.Conv2d(12, 5, (3, 2), dilation=(2, 1)), nn.BatchNorm2d(5)), (6, 12, 8, 5), None),
    "two groups": lambda: (
        nn.Sequential(nn.Conv2d(16, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)), (6, 16, 5, 5), np.arange(16) % 8,
    ),
    "circular padding": lambda: (nn.Conv2d(12, 5, 3, padding=1, padding_mode="circular"), (6, 12, 5, 5), None),
    "without a norm": lambda: (nn.Conv2d(12, 5, 3, padding="same"), (6, 12, 5, 5), None),
    "one dimension": lambda: (nn.Sequential(nn.Conv1d(12, 6, 3, 2, 1), nn.BatchNorm1d(6)), (7, 12, 9), None),
    "one dimension, groups": lambda: (nn.Conv1d(12, 6, 3, groups=3), (7, 12, 9), np.arange(12) % 4),
    "linear": lambda: (nn.Linear(12, 5, bias=False), (20, 12), None),
    "linear with bias": lambda: (nn.Linear(12, 5), (20, 12), None),
    "linear and norm": lambda: (nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5)), (20, 12), None),
    "three columns a channel": lambda: (nn.Linear(36, 5), (20, 36), np.repeat(np.arange(12), 3)),
    "some stay": lambda: (
        nn.Sequential(nn.Conv2d(14, 6, 3), nn.BatchNorm2d(6)), (7, 14, 5, 5), np.r_[[-1] * 4, np.arange(10)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", READERS)
def test_every_iteration_equals_autograd_over_all_samples(kind, dtype):
    longest = 0
    for seed in range(4):
        layers, shape, owner = READERS[kind]()
        # In training mode on purpose: the norm behind the reader must be used as in evaluation.
        layers = randomised(layers, seed).to(dtype).train()
        maps = torch.randn(shape, generator=seeded(seed + 50)).to(dtype)
        maps = torch.relu(maps * torch.rand((1, shape[1], *[1] * (len(shape) - 2)), generator=seeded(seed)))
        owner = np.arange(shape[1]) if owner is None else owner
        for s in (1, 2, 3):
            for importance, activation in (("signed", "sum"), ("absolute", "sum"), ("signed", "norm")):
                hidden = prepared(maps.to(dtype).split(4), layers, owner)
                found = two_layer(hidden, None, s, 6, importance, activation, residuals=True)
                expected = plain(maps, layers, s, 6, owner, importance, activation)
                same_steps(found, expected)
                before = [residual for *_, residual in expected[: len(found.steps)]]
                np.testing.assert_allclose(found.residuals[: len(before)], before, rtol=1e-9)
                longest = max(longest, len(found.steps))
        assert layers.training
    assert longest >= 2


def test_negative_activations():
    """With activations of either sign the sum, the absolute sum and the norm are different things."""
    maps = torch.randn(30, 10, generator=seeded(1), dtype=DOUBLE)
    h = maps.numpy()
    for kind, expected in (("sum", h.sum(0)), ("absolute", np.abs(h).sum(0)), ("norm", np.sqrt(np.square(h).sum(0)))):
        found = two_layer(maps, torch.eye(10, dtype=DOUBLE), 5, activation=kind)
        np.testing.assert_allclose(found.activation, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(found.support, np.sort(np.argsort(-expected)[:5]))


def test_dead_channels_are_never_proposed():
    maps, _ = matrices(3)
    alive = torch.ones(12, dtype=torch.bool)
    alive[maps.sum(0).topk(5).indices] = False  # the very ones that would be chosen
    found = two_layer(prepared([maps], nn.Linear(12, 4).double(), np.arange(12), alive), None, 3)
    for step in found.steps:
        assert alive[step.support].all()
        assert alive[step.proposals].all()
    with pytest.raises(BadInput, match="hidden channels to keep, must be between 1 and 7"):
        two_layer(prepared([maps], nn.Linear(12, 4).double(), np.arange(12), alive), None, 8)


# --- through prune(), on networks


def by_hand(model, x, plan, iterations=20, pruned_prefix=True, **options):
    """i-SpaSP by the slow way, from front to back: ``plan`` has (group, reader, norm behind it, owner, kept)."""
    twin = copy.deepcopy(model).eval()
    chosen = {}
    for group, reader, norm, owner, s in plan:
        layers = [twin.get_submodule(name) for name in (reader, norm) if name is not None]
        maps = inputs_of_layer(twin if pruned_prefix else model.eval(), reader, x)
        steps = plain(maps, nn.Sequential(*layers), s, iterations, owner, **options)
        chosen[group] = steps[-1][2]
        groups = getattr(layers[0], "groups", 1)
        columns = np.asarray(owner)[: len(owner) // groups]
        gone = torch.tensor([c >= 0 and c not in chosen[group] for c in columns.tolist()])
        with torch.no_grad():  # behind a column of zeros it does not matter what the channel holds
            layers[0].weight[:, gone] = 0
    return chosen


@pytest.mark.parametrize("kind", NETWORKS)
def test_chosen_channels_equal_the_slow_way_layer_by_layer(kind):
    model, x, plan = network(kind)
    for options in ({}, {"importance": "absolute"}, {"activation": "norm"}):
        result = pruned(model.train(), x, plan, ISpaSP(**options))
        found = alive_channels(result)
        expected = by_hand(model, x, plan, **options)
        assert {group: found[group] for group in expected} == expected
        assert all(len(expected[group]) == s for group, *_, s in plan)


@pytest.mark.parametrize("kind", NETWORKS)
def test_masked_and_smaller_network_agree(kind):
    model, x, plan = network(kind)
    labels = torch.randint(4, (23,), generator=seeded(0))
    few = Greedy(candidates=2)
    for method in ("ispasp", ActivationSum(), Imitation(), ISpaSP(debias=True), few):
        result = pruned(model, x, plan, method, labels=labels)
        # A hook that stays would change both networks, and hide it from the comparison.
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in result.model.modules())
        small, _ = shrunk(result.model, result.masks, result.sites, result.example_input)
        with torch.no_grad():
            outputs = [net.eval()(x) for net in (model, result.model, small)]
        assert (outputs[1] - outputs[2]).abs().max() < 1e-10
        assert (outputs[0] - outputs[1]).abs().max() > 1e-4
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_later_layers_see_what_pruned_layers_pass_on():
    differs = 0
    for seed in range(4):
        model, x, plan = network("conv conv", seed)
        found = alive_channels(pruned(model, x, plan))
        assert found["2"] == by_hand(model, x, plan)["2"]
        differs += found["2"] != by_hand(model, x, plan, pruned_prefix=False)["2"]
    assert differs


# --- plain scores


@pytest.mark.parametrize("kind", ["conv norm pool conv", "concat", "transformer"])
def test_activation_sum_keeps_the_largest_by_numpy(kind):
    model, x, plan = network(kind)
    for activation, measure in (("sum", lambda a: a), ("absolute", np.abs), ("norm", np.square)):
        found = alive_channels(pruned(model, x, plan, ActivationSum(activation)))
        twin = copy.deepcopy(model).eval()
        for group, reader, _, owner, s in plan:
            maps = inputs_of_layer(twin, reader, x).numpy()
            sums = measure(maps).swapaxes(0, 1).reshape(maps.shape[1], -1).sum(1)
            h = np.array([sums[np.asarray(owner) == c].sum() for c in range(int(max(owner)) + 1)])
            expected = sorted(np.argsort(-h, kind="stable")[:s].tolist())
            assert found[group] == expected
            layer = twin.get_submodule(reader)
            with torch.no_grad():
                columns = np.asarray(owner)[: layer.weight.shape[1]]
                layer.weight[:, torch.tensor((columns >= 0) & ~np.isin(columns, expected))] = 0


def test_weight_product_by_numpy():
    model, x, plan = network("conv norm pool conv")
    result = pruned(model, x, plan, "weight_product")
    found = alive_channels(result)
    w0, w1, w2 = (model[i].weight.detach().numpy() for i in (0, 4, 9))
    first = np.sqrt(np.square(w0).sum((1, 2, 3))) * np.sqrt(np.square(w1).sum((0, 2, 3)))
    # Four columns of the last layer read one channel.
    second = np.sqrt(np.square(w1).sum((1, 2, 3))) * np.sqrt(np.square(w2).reshape(5, 14, 4).sum((0, 2)))
    for group, score, s in (("0", first, 3), ("4", second, 4)):
        assert found[group] == sorted(np.argsort(-score)[:s].tolist())


# --- memory


def test_i_spasp_takes_one_pass_however_many_iterations():
    passes = []
    for iterations in (1, 20):
        chunks = Watched()
        two_layer(chunks, conv_reader(), 1, iterations, until_repeat=False)
        passes.append(chunks.passes)
    assert passes == [2, 2]


# --- what cannot be worked with


def hidden_never() -> Hidden:
    return Hidden(never, nn.Linear(6, 3), torch.arange(6), 6, torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s": 0}, "hidden channels to keep, must be between 1 and 6, not 0"),
        ({"s": -1}, "not -1"),
        ({"s": 7}, "hidden channels to keep, must be between 1 and 6, not 7"),
        ({"s": 2, "iterations": 0}, "iterations must be at least 1, not 0"),
        ({"s": 2, "importance": "abs"}, "unknown importance 'abs': did you mean 'absolute'"),
        ({"s": 2, "activation": "mean"}, "unknown activation 'mean'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_computed(options, message):
    with pytest.raises(BadInput, match=message):
        two_layer(hidden_never(), None, **options)
    with pytest.raises(BadType, match=r"hidden channels to keep, must be a whole number, not 2\.0"):
        two_layer(hidden_never(), None, s=2.0)


def test_methods_refuse_wrong_parameters_when_they_are_made():
    for make, error in (
        (lambda: ISpaSP(iterations=0), BadInput),
        (lambda: ISpaSP(importance="abs"), UnknownName),
        (lambda: ISpaSP(activation="mean"), UnknownName),
        (lambda: ActivationSum("mean"), UnknownName),
        (lambda: Greedy(0), BadInput),
    ):
        with pytest.raises(error):
            make()
    with pytest.raises(BadInput, match="needs the layer that reads"):
        two_layer(torch.ones(2, 3))


@pytest.mark.parametrize("method", LAYERWISE)
def test_a_threshold_is_refused(method):
    model, batches = last_linear(), labelled(0, (6,))
    sites = find_sites(model, channels=True, example_input=batches[0][0][:1])
    with pytest.raises(BadInput, match="no scores to compare with a threshold"):
        prune_step(model, METHODS[method](), Budget(below=0.0, of="channels"), sites, Masks(), batches)
