"""i-SpaSP and its relatives against slow ways of computing the same, and what section 2 of the paper's sheet promises."""

import copy
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.activations import layer_inputs
from pruning_core.activations import places
from pruning_core.budgets import Budget
from pruning_core.configurations import kept_width
from pruning_core.configurations import mobilenetv2_configuration
from pruning_core.errors import BadInput
from pruning_core.errors import UnknownName
from pruning_core.errors import Unprunable
from pruning_core.masks import Masks
from pruning_core.methods import METHODS
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.greedy import Imitation
from pruning_core.methods.hidden import LARGEST_SYSTEM
from pruning_core.methods.hidden import Hidden
from pruning_core.methods.ispasp import ActivationSum
from pruning_core.methods.ispasp import ISpaSP
from pruning_core.methods.ispasp import fitted
from pruning_core.methods.ispasp import two_layer
from pruning_core.models.resnet import Bottleneck
from pruning_core.pruning import prune_step
from pruning_core.pruning import shrunk
from pruning_core.sites import find_sites

DOUBLE = torch.float64
FEW = settings(max_examples=60, deadline=None, derandomize=True)


# --- the slow way


def plain(hidden, layers, s, iterations=20, owner=None, importance="signed", activation="sum"):
    """i-SpaSP as the paper's sheet writes it down, by autograd over all samples at once.

    ``owner[i]`` is the channel of input i, -1 for inputs that always stay. Gives (y, proposals, support, ||V||^2) of every
    iteration; the residual is that *before* it.
    """
    maps, exact = hidden.detach().double(), copy.deepcopy(layers).double().eval()
    owner = np.arange(maps.shape[1]) if owner is None else np.asarray(owner)
    size = int(owner.max()) + 1

    def kept(channels):
        inputs = torch.tensor([c in channels or c < 0 for c in owner.tolist()])
        return maps * inputs.view(1, -1, *[1] * (maps.dim() - 2))

    def summed(values):
        found = np.zeros(size)
        for i, value in enumerate(values.transpose(0, 1).flatten(1).sum(1).tolist()):
            if owner[i] >= 0:
                found[owner[i]] += value
        return found

    measured = {"sum": maps, "absolute": maps.abs(), "norm": maps**2}[activation]
    h = summed(measured) ** (0.5 if activation == "norm" else 1)
    support: set[int] = set()
    steps = []
    for t in range(iterations):
        leaf = maps.clone().requires_grad_(True)
        dense = exact(leaf)
        with torch.no_grad():
            # Before the first iteration nothing is kept and nothing is put out, not even an offset.
            pruned = exact(kept(support)) - (0 if t else exact(torch.zeros_like(maps)))
        loss = 0.5 * (dense - pruned.detach()).square().sum()
        loss.backward()
        y = summed(leaf.grad)
        rank = -np.abs(y) if importance == "absolute" else -y
        proposals = sorted(range(size), key=lambda c: (rank[c], c))[: 2 * s]
        support = set(sorted(set(proposals) | support, key=lambda c: (-h[c], c))[:s])
        steps.append((y, sorted(proposals), sorted(support), 2 * loss.item()))
    return steps


def same_steps(found, expected):
    """All iterations agree; ours may stop when the support repeats."""
    for t, (y, proposals, support, _) in enumerate(expected):
        step = found.steps[min(t, len(found.steps) - 1)]
        assert step.support.tolist() == support, t
        if t < len(found.steps):
            np.testing.assert_allclose(step.importance, y, rtol=1e-9, atol=1e-10 * np.abs(y).max())
            assert step.proposals.tolist() == proposals


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrices(seed: int, samples=9, hidden=12, outputs=4):
    """Non-negative hidden maps and weights of either sign."""
    generator = seeded(seed)
    maps = torch.randn(samples, hidden, generator=generator, dtype=DOUBLE).abs()
    # Channels of different sizes, so that the order of h is not that of the noise alone.
    maps = maps * torch.rand(hidden, generator=generator, dtype=DOUBLE)
    return maps, torch.randn(outputs, hidden, generator=generator, dtype=DOUBLE)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with norms that are not the identity, and random weights that depend on the seed alone."""
    generator = seeded(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.5)
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / fan**0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return model.double()


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


def conv_reader(norm=True, groups=1):
    layers = [nn.Conv2d(12, 6, 3, padding=1, groups=groups)] + ([nn.BatchNorm2d(6)] if norm else [])
    return randomised(nn.Sequential(*layers), 3).float().eval()


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


def prepared(chunks, layers, owner, alive=None) -> Hidden:
    owner = torch.as_tensor(owner)
    size = int(owner.max()) + 1
    alive = torch.ones(size, dtype=torch.bool) if alive is None else alive
    return Hidden(lambda: iter(chunks), layers, owner, size, alive)


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
    with pytest.raises(BadInput, match="between 1 and 7 of 7"):
        two_layer(prepared([maps], nn.Linear(12, 4).double(), np.arange(12), alive), None, 8)


# --- through prune(), on networks


def alive_channels(result) -> dict[str, list[int]]:
    return {name: g.alive(result.masks).nonzero().flatten().tolist() for name, g in result.sites.groups.items()}


@torch.no_grad()
def inputs_of_layer(model, layer: str, x) -> torch.Tensor:
    """What the layer is given, for all samples at once."""
    seen = []
    module = model.get_submodule(layer)
    handle = module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].clone()))
    model(x)
    handle.remove()
    return seen[0].flatten(0, -2) if isinstance(module, nn.Linear) else seen[0]


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


class Concat(nn.Module):
    """Two branches that one layer reads side by side."""

    def __init__(self, act=F.relu):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 9, 3, padding=1), nn.Conv2d(1, 7, 1)
        self.read, self.norm = nn.Conv2d(16, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head, self.act = nn.Linear(6, 4), act

    def forward(self, x):
        both = torch.cat([self.act(self.a(x)), self.act(self.b(x))], 1)
        return self.head(F.relu(self.norm(self.read(both))).mean((2, 3)))


def bottleneck():
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    return nn.Sequential(stem, Bottleneck(16, 8, 2, "B", "batch"), head)


def heads_and_mlp(block, kept_heads=1, kept_units=13):
    attention = f"blocks.{block}.self_attention"
    return [
        (f"{attention}.q", f"{attention}.out", None, np.repeat(np.arange(4), 8), kept_heads),
        (f"blocks.{block}.fc1", f"blocks.{block}.fc2", None, np.arange(64), kept_units),
    ]


NETWORKS = {
    "conv conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 11, 3, padding=1), nn.ReLU(), nn.Conv2d(11, 13, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(13, 4, 2),
            nn.Flatten(), nn.Linear(16, 4),
        ),
        # The last convolution's channels are read four columns each.
        [
            ("0", "2", None, np.arange(11), 3), ("2", "4", None, np.arange(13), 4),
            ("4", "6", None, np.repeat(np.arange(4), 4), 1),
        ],
    ),
    "conv norm pool conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(12, 14, 3, padding=1, bias=False), nn.BatchNorm2d(14), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(56, 5),
        ),
        [("0", "4", "5", np.arange(12), 3), ("4", "9", None, np.repeat(np.arange(14), 4), 4)],
    ),
    "perceptron with norms": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 16), nn.BatchNorm1d(16),
            nn.Sigmoid(), nn.Linear(16, 5),
        ),
        [("1", "4", "5", np.arange(20), 4), ("4", "7", None, np.arange(16), 3)],
    ),
    "basic blocks": (
        lambda: pc.build_model("basic4", "digits", width=0.5, seed=0),
        [(f"blocks.{i}.conv1", f"blocks.{i}.conv2", f"blocks.{i}.bn2", np.arange(16), 3 + i) for i in range(4)],
    ),
    "bottleneck": (
        bottleneck,
        [("1.conv1", "1.conv2", "1.bn2", np.arange(8), 2), ("1.conv2", "1.conv3", "1.bn3", np.arange(8), 3)],
    ),
    "inverted residuals": (
        lambda: pc.build_model("inverted4", "digits", width=0.5, seed=0),
        [
            (f"blocks.{i}.expand", f"blocks.{i}.project", f"blocks.{i}.bn3", np.arange(width), width // 4)
            for i, width in enumerate((48, 48, 72, 72))
        ],
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 10, 3, groups=2), nn.BatchNorm2d(10), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4),
        ),
        [("0", "2", "3", np.arange(12) % 6, 2), ("2", "7", None, np.arange(10) % 5, 2)],
    ),
    "concat": (
        Concat,
        [("a", "read", "norm", np.r_[np.arange(9), [-1] * 7], 2), ("b", "read", "norm", np.r_[[-1] * 9, np.arange(7)], 3)],
    ),
    "transformer": (lambda: pc.build_model("vit_tiny", "digits", seed=0), heads_and_mlp(0) + heads_and_mlp(1, 2, 20)),
}  # fmt: skip


def network(kind: str, seed: int = 5):
    build, plan = NETWORKS[kind]
    model = randomised(build(), seed)
    x = torch.randn(23, 1, 8, 8, generator=seeded(seed + 1), dtype=DOUBLE)
    return model, x, plan


def pruned(model, x, plan, method="ispasp", sizes=(10, 9, 4), seed=0, labels=None):
    sizes = [len(x)] if sizes is None else sizes
    labels = [None] * len(sizes) if labels is None else labels.split(sizes)
    widths = {group: int(max(owner)) + 1 for group, _, _, owner, _ in plan}
    removed = {group: 1 - s / widths[group] for group, _, _, _, s in plan}
    batches = list(zip(x.split(sizes), labels, strict=True))
    return pc.prune(model, method, None, across=removed, batches=batches, seed=seed)


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


def test_the_norm_in_front_of_the_reader_is_the_hidden_layers_own():
    """Hidden maps are what the reader is given: behind norm, activation and pooling."""
    model, x, plan = network("conv norm pool conv")
    (group, _, _, owner, s), *_ = plan
    maps = F.max_pool2d(F.relu(model.eval()[1](model[0](x))), 2).detach()
    steps = plain(maps, nn.Sequential(model[4], model[5]), s, 20, owner)
    assert alive_channels(pruned(model, x, plan[:1]))[group] == steps[-1][2]


# --- the norm behind the reader


def behind_norm(act: nn.Module | None) -> nn.Module:
    """Channels 0 and 1 reach an output that the norm makes small, channels 2 and 3 one that it makes large."""
    middle = [] if act is None else [act]
    model = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False), *middle, nn.BatchNorm1d(2), nn.Linear(2, 2),
    ).double()  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[2].weight.copy_(torch.tensor([[2.0, 2, 0, 0], [0, 0, 1, 1]]))
        model[-2].weight.copy_(torch.tensor([0.01, 10]))
    return model.eval()


class Between(nn.Module):
    """An activation that is no layer of the kind the search knows by name."""

    def forward(self, x):
        return x.relu_()


@pytest.mark.parametrize(
    ("act", "norm", "kept"),
    [(None, "3", [2]), (nn.ReLU(inplace=True), None, [0]), (nn.ReLU(), None, [0]), (Between(), None, [0])],
)
def test_the_norm_behind_the_reader_decides_unless_something_comes_between(act, norm, kept):
    x = torch.tensor([4.0, 3, 2, 1], dtype=DOUBLE) * (1 + torch.rand(8, 1, generator=seeded(0), dtype=DOUBLE))
    model = behind_norm(act)
    assert places(model, ["2"], x[:1])["2"].norm == norm
    found = pc.prune(model, "ispasp", None, across={"0": 0.75}, batches=[(x, None)])
    assert alive_channels(found)["0"] == kept
    # The activations alone would keep channel 0, whatever stands behind the reader.
    assert alive_channels(pc.prune(model, "activation_sum", None, across={"0": 0.75}, batches=[(x, None)]))["0"] == [0]


def test_only_batch_statistics_depend_on_chunks():
    layers = conv_reader().double()
    maps = torch.relu(torch.randn(12, 12, 5, 5, generator=seeded(8), dtype=DOUBLE))
    steps = {}
    for reference in (False, True):
        for sizes in ((12,), (3, 9), (4, 4, 4)):
            hidden = prepared(maps.split(sizes), layers, np.arange(12))
            found = two_layer(hidden, None, 3, 3, reference=reference, until_repeat=False, residuals=True)
            steps[reference, sizes] = found
    for sizes in ((3, 9), (4, 4, 4)):
        whole, cut = steps[False, (12,)], steps[False, sizes]
        np.testing.assert_allclose(whole.steps[1].importance, cut.steps[1].importance, rtol=1e-9)
        whole, cut = steps[True, (12,)], steps[True, sizes]
        np.testing.assert_allclose(whole.steps[0].importance, cut.steps[0].importance, rtol=1e-9)
        assert (whole.steps[1].importance - cut.steps[1].importance).abs().max() > 1e-3
        assert abs(whole.residuals[1] - cut.residuals[1]) > 1e-3
    # By hand: the pruned branch in training mode, chunk by chunk, the dense one in evaluation mode.
    found = steps[True, (3, 9)]
    keep = found.steps[0].support
    masked = torch.zeros_like(maps)
    masked[:, keep] = maps[:, keep]
    fresh = copy.deepcopy(layers).train()
    with torch.no_grad():
        fake = torch.cat([fresh(part) for part in masked.split((3, 9))])
    leaf = maps.clone().requires_grad_(True)
    loss = 0.5 * (layers(leaf) - fake).square().sum()
    loss.backward()
    np.testing.assert_allclose(found.steps[1].importance, leaf.grad.sum((0, 2, 3)), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.residuals[1], 2 * loss.item(), rtol=1e-10)


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


def two_sided(act, wide=6) -> nn.Module:
    """Two branches of linear layers side by side, in front of the last layer."""

    class TwoSided(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.read = nn.Linear(4, wide), nn.Linear(4, wide), nn.Linear(2 * wide, 5)

        def forward(self, x):
            return self.read(torch.cat([act(self.a(x)), act(self.b(x))], 1))

    return TwoSided()


@pytest.mark.parametrize(
    "act",
    [
        torch.relu,
        torch.sigmoid,
    ],
)
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


@pytest.mark.parametrize(
    "large",
    [
        1e3,
        1e7,
    ],
)
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


def last_linear(seed=0, wide=9, norm=False) -> nn.Module:
    layers = [nn.Linear(6, wide), nn.ReLU(), nn.Linear(wide, 4)]
    if norm:
        layers.append(nn.BatchNorm1d(4))
    return randomised(nn.Sequential(*layers), seed)


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


def labelled(seed, shape, classes=4, sizes=(7, 8)):
    generator = seeded(seed)
    xs = [torch.randn((n, *shape), generator=generator, dtype=DOUBLE) for n in sizes]
    return [(x, torch.randint(classes, (len(x),), generator=generator)) for x in xs]


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


class Watched:
    """Hands out chunks and counts how many of those handed out are still alive."""

    def __init__(self, shape=(4, 12, 5, 5), count=9):
        self.shape, self.count = shape, count
        self.alive: list[weakref.ref] = []
        self.most = self.passes = 0

    def __call__(self):
        self.passes += 1
        for i in range(self.count):
            chunk = torch.randn(self.shape, generator=seeded(i)).abs()
            self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(chunk)]
            self.most = max(self.most, len(self.alive))
            yield chunk
            del chunk


@pytest.mark.parametrize("options", [{}, {"activation": "norm"}, {"residuals": True}, {"reference": True}])
def test_at_most_two_chunks_are_in_memory(options):
    chunks = Watched()
    two_layer(chunks, conv_reader(), 2, **options)
    assert chunks.most <= 2
    assert chunks.passes >= 2  # one to see the shape, the others over everything


def test_least_squares_and_contributions_hold_one_chunk():
    for compute in (lambda hidden: fitted(hidden, torch.tensor([0, 1])), Hidden.contributions):
        chunks = Watched()
        compute(Hidden.of(chunks, conv_reader()))
        assert chunks.most <= 2


def test_i_spasp_takes_one_pass_however_many_iterations():
    passes = []
    for iterations in (1, 20):
        chunks = Watched()
        two_layer(chunks, conv_reader(), 1, iterations, until_repeat=False)
        passes.append(chunks.passes)
    assert passes == [2, 2]


def test_hidden_maps_of_a_network_are_not_kept():
    model, x, plan = network("basic blocks")
    refs: list[weakref.ref] = []
    most = 0

    def watch(module, inputs):
        nonlocal most
        refs.append(weakref.ref(inputs[0]))
        most = max(most, sum(ref() is not None for ref in refs))

    handles = [model.get_submodule(reader).register_forward_pre_hook(watch) for _, reader, *_ in plan]
    pruned(model, x, plan, sizes=(3, 3, 3, 3, 3, 3, 3, 2))
    for handle in handles:
        handle.remove()
    # prune() works on a copy, and hooks are copied along: what they saw counts all the same.
    assert len(refs) >= 8 * len(plan)
    assert most <= 2 + len(plan)  # two chunks of one layer, and what one forward pass over the example holds


def test_layers_behind_the_last_wanted_one_are_not_run():
    model, x, _ = network("conv norm pool conv")
    ran: list[str] = []
    for name, module in model.named_children():
        module.register_forward_pre_hook(lambda m, inputs, name=name: ran.append(name))
    model.train()
    dense = model[3](F.relu(copy.deepcopy(model).eval()[1](model[0](x))))
    ran.clear()
    before = copy.deepcopy(model.state_dict())
    found = list(layer_inputs(model, ["4"], [(x[:5],), (x[5:],)]))
    assert ran == ["0", "1", "2", "3", "4"] * 2
    np.testing.assert_allclose(torch.cat([seen["4"] for seen in found]), dense.detach(), rtol=1e-12)
    assert not any(seen["4"].requires_grad for seen in found)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(len(module._forward_pre_hooks) == 1 for module in model.children())


class ChangedLater(nn.Module):
    """Its hidden map is changed in place after the first of two layers has read it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.a(x)
        first = self.b(hidden)
        return first + self.c(hidden.relu_())


def test_inputs_do_not_depend_on_which_other_layers_are_asked_for():
    model, x = randomised(ChangedLater()), torch.randn(5, 3, generator=seeded(0), dtype=DOUBLE)
    (alone,) = layer_inputs(model, ["b"], [(x,)])
    (both,) = layer_inputs(model, ["b", "c"], [(x,)])
    assert (alone["b"] < 0).any()
    assert torch.equal(alone["b"], both["b"])


def test_an_error_in_the_network_leaves_no_hook():
    model, x, _ = network("conv norm pool conv")
    with pytest.raises(RuntimeError):
        list(layer_inputs(model, ["4"], [(x,), (x[:, :, :1, :1].expand(-1, 2, -1, -1),)]))
    assert not model[4]._forward_pre_hooks


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.idle = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(self.a(x))


def test_layers_that_are_not_reached_or_reached_twice():
    model, x = Unused(), torch.randn(2, 4)
    for call in (lambda: places(model, ["idle"], x), lambda: list(layer_inputs(model, ["idle"], [(x,)]))):
        with pytest.raises(Unprunable, match=r"'idle' takes no part in the forward pass"):
            call()
    layer = nn.Linear(4, 4)
    with pytest.raises(Unprunable, match=r"'0' is used more than once"):
        places(nn.Sequential(layer, nn.ReLU(), layer), ["0"], x)


# --- what cannot be worked with


def never():
    raise AssertionError("the maps were computed before the arguments were looked at")
    yield


def hidden_never() -> Hidden:
    return Hidden(never, nn.Linear(6, 3), torch.arange(6), 6, torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s": 0}, "keeps between 1 and 6 of 6 hidden channels, not 0"),
        ({"s": -1}, "not -1"),
        ({"s": 7}, "keeps between 1 and 6 of 6 hidden channels, not 7"),
        ({"s": 2.0}, "not 2.0"),
        ({"s": 2, "iterations": 0}, "iterations must be at least 1, not 0"),
        ({"s": 2, "importance": "abs"}, "unknown importance 'abs': did you mean 'absolute'"),
        ({"s": 2, "activation": "mean"}, "unknown activation 'mean'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_computed(options, message):
    with pytest.raises(BadInput, match=message):
        two_layer(hidden_never(), None, **options)


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


@pytest.mark.parametrize(
    "hidden", [torch.ones(5), torch.ones(0, 5), lambda: iter([]), lambda: iter([torch.ones(0, 5)])]
)
def test_hidden_maps_need_samples_and_channels(hidden):
    with pytest.raises(BadInput, match=r"hidden maps have the shape \(samples, hidden, ...\)"):
        two_layer(hidden, torch.ones(2, 5), 1)


@pytest.mark.parametrize(
    ("maps", "consume"),
    [
        (torch.ones(4, 6), torch.ones(3, 5)),
        (torch.ones(4, 6), torch.ones(6)),
        (torch.ones(4, 6), nn.Conv2d(6, 3, 1)),
        (torch.ones(4, 5, 3, 3), nn.Conv2d(6, 3, 1)),
    ],
)
def test_maps_that_do_not_fit_the_reading_layer(maps, consume):
    with pytest.raises(BadInput):
        two_layer(maps, consume, 1)


def test_tokens_in_front_of_a_linear_layer_are_refused():
    """(samples, hidden, positions) is the order of maps; a linear layer would read the positions as channels."""
    with pytest.raises(BadInput):
        two_layer(torch.rand(2, 7, 6), nn.Linear(6, 3), 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinite_activations_are_named(bad):
    maps, weight = matrices(0)
    maps[3, 2] = bad
    with pytest.raises(BadInput, match="the activations of the hidden layer are NaN or infinite"):
        two_layer(maps, weight, 2)
    with pytest.raises(BadInput, match="NaN or infinite"):
        Hidden.of(maps, weight).second_moments()


OVERFLOWING = [
    "ispasp", "activation_sum", "imitation", ISpaSP(debias=True), ISpaSP(activation="norm"),
    "greedy",
]  # fmt: skip


@pytest.mark.parametrize("method", OVERFLOWING)
def test_finite_weights_with_inputs_that_overflow(method):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.ones_(model[0].weight)
    batches = [(torch.full((8, 4), 3e38), torch.zeros(8, dtype=torch.long))]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match="NaN or infinite"):
        pc.prune(model, method, 0.5, batches=batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_samples_of_different_sizes():
    with pytest.raises(BadInput, match="maps of different sizes; use inputs of one size"):
        two_layer(lambda: [torch.rand(2, 12, 5, 5), torch.rand(2, 12, 4, 4)], conv_reader(), 2)
    model, x, _ = network("basic blocks")
    batches = [(x, None), (x[:, :, :6, :6], None)]
    for method in ("ispasp", "activation_sum"):
        with pytest.raises(BadInput, match=r"the layer in front of 'blocks\.0\.conv2' maps of different sizes"):
            pc.prune(model, method, None, across={"blocks.0.conv1": 0.5}, batches=batches)


@pytest.mark.parametrize("method", ["ispasp", "activation_sum", "imitation", "greedy"])
def test_empty_batches(method):
    model = last_linear()
    with pytest.raises(BadInput, match="batches is empty"):
        pc.prune(model, method, 0.5, batches=[])
    with pytest.raises(BadInput, match="needs batches"):
        pc.prune(model, method, 0.5)
    with pytest.raises(BadInput, match="holds no sample"):
        pc.prune(model, method, 0.5, batches=[(torch.rand(0, 6, dtype=DOUBLE), torch.zeros(0, dtype=torch.long))])
    with pytest.raises(BadInput, match="does not pass through"):
        pc.prune(model, method, 0.5, batches=[(torch.rand(3, 5, dtype=DOUBLE), torch.zeros(3, dtype=torch.long))])


LAYERWISE = sorted(name for name in METHODS if name in ("ispasp", "activation_sum", "imitation", "greedy"))


@pytest.mark.parametrize("method", LAYERWISE)
def test_channels_that_no_linear_layer_reads_alone_are_refused(method):
    turned = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 3))
    x = torch.rand(3, 1, 6, 6)
    batches = [(x, torch.zeros(3, dtype=torch.long))]
    with pytest.raises(Unprunable, match=f"read by ConvTranspose2d; {method} needs a linear layer or a convolution"):
        pc.prune(turned, method, 0.5, batches=batches)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            hidden = F.relu(self.a(x))
            return self.b(hidden) + self.c(hidden)

    with pytest.raises(Unprunable, match=f"several layers read these channels; {method} needs one"):
        pc.prune(Twice(), method, 0.5, batches=batches)
    # Nothing reads the only channels there are.
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), method, 0.5, batches=batches)


@pytest.mark.parametrize("method", LAYERWISE)
def test_a_threshold_is_refused(method):
    model, batches = last_linear(), labelled(0, (6,))
    sites = find_sites(model, channels=True, example_input=batches[0][0][:1])
    with pytest.raises(BadInput, match="no scores to compare with a threshold"):
        prune_step(model, METHODS[method](), Budget(below=0.0, of="channels"), sites, Masks(), batches)


def test_ratios_that_keep_none():
    for width, ratio in ((10, 0.05), (3, 0.3)):
        with pytest.raises(BadInput, match=f"the ratio {ratio} keeps none of {width} channels"):
            kept_width(width, ratio)
    for ratio in (0, -0.5, 1.5, float("nan")):
        with pytest.raises(BadInput, match="lies in"):
            kept_width(10, ratio)


def test_blocks_without_expansion_are_refused():
    for block in (0, 1, 18):
        with pytest.raises(BadInput, match=f"features 2 to 17, not at {block}"):
            mobilenetv2_configuration(0.3, (6, block))


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


@pytest.mark.parametrize(
    "method",
    [
        ISpaSP(debias=True),
        Imitation(),
    ],
)
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


class ByKeyword(nn.Module):
    """Gives layers their inputs by name, as torch allows."""

    def __init__(self):
        super().__init__()
        self.a, self.read, self.norm, self.head = nn.Linear(4, 8), nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.norm(input=self.read(input=torch.relu(self.a(x)))))


def test_layers_that_are_called_by_keyword():
    model = randomised(ByKeyword(), 0)
    x = torch.randn(12, 4, generator=seeded(0), dtype=DOUBLE)
    found = pc.prune(model, "ispasp", None, across={"a": 0.75}, batches=[(x, None)])
    maps = torch.relu(model.a(x)).detach()
    steps = plain(maps, nn.Sequential(model.read, model.norm), 2)
    assert alive_channels(found)["a"] == steps[-1][2]


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


def test_nothing_stays_in_force_between_two_batches():
    """A generator that is not read to its end must not leave hooks, modes or switched-off gradients behind."""
    model, x, _ = network("conv norm pool conv")
    model.train()
    reading = layer_inputs(model, ["4"], [(x,), (x,)])
    next(reading)
    assert torch.is_grad_enabled()
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model(x).requires_grad
