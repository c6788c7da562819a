"""Curvature against dense Hessians that torch.autograd.functional builds, entry by entry of definitions."""

import functools
import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from pruning_core.curvature import Hessian
from pruning_core.curvature import LivingHessian
from pruning_core.curvature import batch_losses
from pruning_core.curvature import exact_hessian
from pruning_core.curvature import loss_tolerance
from pruning_core.curvature import null_row_share
from pruning_core.curvature import percentile_rows
from pruning_core.curvature import row_norms
from pruning_core.curvature import spectrum
from pruning_core.curvature import top_eigenvalues
from pruning_core.curvature import trace
from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import PruningError
from pruning_core.lanczos import Spectrum
from pruning_core.lanczos import lanczos
from pruning_core.lanczos import quadrature
from pruning_core.lanczos import rademacher
from pruning_core.layers import SigmoidBatchNorm2d

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The network in double precision and evaluation mode, every parameter and statistic drawn."""
    generator = seeded(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=DOUBLE) * 0.6)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=DOUBLE) + ("var" in name) * 0.5)
    return model


class Tied(nn.Module):
    """The same matrix twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.end = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.end(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Tokens(nn.Module):
    """Attention, whose fused kernels have no second derivative."""

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        return self.end(self.block(x).mean(1))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 2, bias=False), nn.Tanh(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(3, 3),
    )  # fmt: skip


NETWORKS = {
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
    "relu": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), (4,)),
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "convolutional": (convolutional, (1, 4, 4)),
    "tied": (Tied, (4,)),
    "attention": (Tokens, (3, 4)),
}
SIZES = (5, 5, 5, 2)  # a short last batch


def case(kind: str = "relu", seed: int = 0) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    build, shape = NETWORKS[kind]
    x, y = noise(sum(SIZES), *shape, seed=seed + 1), torch.randint(3, (sum(SIZES),), generator=seeded(seed))
    return drawn(build(), seed), list(zip(x.split(SIZES), y.split(SIZES), strict=True))


def dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor, names: list[str], loss=F.cross_entropy) -> torch.Tensor:
    """The Hessian of the loss of all samples at once, by torch.autograd.functional on one flat vector."""
    tensors = {name: model.get_parameter(name).detach() for name in names}

    def value(flat):
        parts = flat.split([t.numel() for t in tensors.values()])
        values = {n: p.view_as(t) for (n, t), p in zip(tensors.items(), parts, strict=True)}
        return loss(functional_call(model, values, (x,)), y)

    flat = torch.cat([t.flatten() for t in tensors.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(value, flat)


def joined(batches):
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def coordinates(model: nn.Module) -> list[str]:
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    return [n for n, _ in model.named_parameters() if n.rpartition(".")[0] not in norms]


@functools.cache
def dense_of(kind: str) -> torch.Tensor:
    model, batches = case(kind)
    return dense(model, *joined(batches), coordinates(model))


OPTIONS = [
    {},
    {"reuse_graph": False},
    {"merge": False},
    {"merge": False, "reuse_graph": False},
    {"hold": False},
    {"hold": False, "reuse_graph": False},
    {"memory": 1},
    {"memory": 20000},
]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_products_are_those_of_the_dense_hessian(kind, options):
    model, batches = case(kind)
    expected = dense_of(kind)
    hessian = Hessian(model, batches, **options)
    assert hessian.dimension == len(expected)
    assert hessian.samples == sum(SIZES)
    vectors = noise(len(expected), 3, seed=9)
    products = hessian.matvec(vectors)
    torch.testing.assert_close(products, expected @ vectors, rtol=1e-9, atol=1e-11)
    for i in range(3):
        torch.testing.assert_close(hessian.matvec(vectors[:, i]), products[:, i], rtol=1e-12, atol=1e-14)
    assert hessian.matvec(vectors[:, :0]).shape == (len(expected), 0)
    assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize("kind", ["relu", "convolutional", "attention"])
def test_exact_hessian(kind):
    model, batches = case(kind)
    hessian = Hessian(model, batches)
    matrix = exact_hessian(hessian)
    torch.testing.assert_close(matrix, dense(model, *joined(batches), list(hessian.shapes)), rtol=1e-9, atol=1e-11)
    assert torch.equal(matrix, matrix.T)
    u, v = noise(2, hessian.dimension, seed=5)
    torch.testing.assert_close(v @ hessian.matvec(u), u @ hessian.matvec(v), rtol=1e-9, atol=1e-12)


def test_graphs_that_do_not_fit_are_not_kept(monkeypatch):
    model, batches = case("relu")
    sizes: list[int] = []
    gradient = Hessian.gradient

    def watched(self, inputs, labels):
        sizes.append(len(inputs))
        return gradient(self, inputs, labels)

    monkeypatch.setattr(Hessian, "gradient", watched)

    def pieces(**options) -> tuple[bool, list[int], list[int]]:
        """Whether the graph is kept, and the samples of every gradient taken by making and by two products."""
        sizes.clear()
        hessian = Hessian(model, batches, **options)
        made = sizes[1:]  # the first is there to count bytes
        sizes.clear()
        for _ in range(2):
            hessian.matvec(noise(hessian.dimension))
        return hessian.keeps_graph, made, list(sizes)

    assert pieces() == (True, [17], [])  # one gradient of all samples, and none for the products
    assert pieces(reuse_graph=False) == (False, [], [17, 17])
    assert pieces(merge=False) == (True, [5, 5, 5, 2], [])
    assert pieces(merge=False, reuse_graph=False) == (False, [], [5, 5, 5, 2] * 2)
    assert pieces(hold=False, reuse_graph=False) == (False, [], [5, 5, 5, 2] * 2)
    assert pieces(memory=1) == (False, [], [1] * 34)
    each = Hessian(model, batches)._try(*batches[0])[0] // 5
    assert pieces(memory=each * 17)[:2] == (True, [17])
    assert pieces(memory=each * 17 - 1) == (False, [], [16, 1] * 2)
    assert pieces(memory=each * 6) == (False, [], [6, 6, 5] * 2)


def test_bytes_of_a_graph_are_those_of_its_activations():
    """tanh keeps its output; a linear layer its input: for two layers of widths 4 -> 5 -> 3, a few numbers a sample."""
    model, batches = case("tanh")
    hessian = Hessian(model, batches)
    counts = [hessian._try(noise(n, 4), torch.zeros(n, dtype=torch.long))[0] for n in (100, 200)]
    per_sample = (counts[1] - counts[0]) / 100 / 8
    assert 2 * 5 + 3 <= per_sample <= 8 * (5 + 3)
    assert counts[0] / 100 / 8 < per_sample + 1


def test_coordinates_are_parameters_row_by_row():
    model, batches = case("relu")
    hessian = Hessian(model, batches)
    assert list(hessian.shapes) == [name for name, _ in model.named_parameters()]
    assert torch.equal(hessian.weights(), torch.cat([p.detach().flatten() for p in model.parameters()]))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["0.weight", "0.bias", "4.weight", "8.weight", "8.bias"]),
        ({"exclude_norms": False}, ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "8.weight", "8.bias"]),
        ({"parameters": ["8.bias", "0.*"]}, ["0.weight", "0.bias", "8.bias"]),
        ({"parameters": "1.*"}, ["1.weight", "1.bias"]),  # who asks for a norm gets it
        ({"parameters": lambda name, p: p.dim() == 4}, ["0.weight", "4.weight"]),
    ],
)
def test_which_parameters_are_coordinates(options, names):
    model, batches = case("convolutional")
    hessian = Hessian(model, batches, **options)
    assert list(hessian.shapes) == names
    torch.testing.assert_close(exact_hessian(hessian), dense(model, *joined(batches), names), rtol=1e-9, atol=1e-11)


def test_frozen_parameters_are_no_coordinates_and_stay_frozen():
    model, batches = case("relu")
    model[0].weight.requires_grad_(False)
    hessian = Hessian(model, batches)
    assert next(iter(hessian.shapes)) == "0.bias"
    expected = dense(model, *joined(batches), list(hessian.shapes))
    torch.testing.assert_close(exact_hessian(hessian), expected, rtol=1e-9, atol=1e-11)
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5


def test_sigmoid_norms_are_norms():
    model = drawn(nn.Sequential(nn.Conv2d(1, 2, 3), SigmoidBatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)))
    assert "1.weight" not in Hessian(model, [(noise(3, 1, 4, 4), torch.tensor([0, 1, 2]))]).shapes


def test_another_loss():
    model, batches = case("tanh")
    targets = [(x, noise(len(x), 3, seed=i)) for i, (x, _) in enumerate(batches)]
    hessian = Hessian(model, targets, F.mse_loss)
    expected = dense(model, *joined(targets), coordinates(model), F.mse_loss)
    torch.testing.assert_close(exact_hessian(hessian), expected, rtol=1e-9, atol=1e-11)


def test_batches_of_many_shapes_are_not_merged():
    model = drawn(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    batches = [(noise(3, 1, s, s), torch.tensor([0, 1, 2])) for s in (4, 6)]
    found = exact_hessian(Hessian(model, batches))
    parts = [dense(model, *batch, coordinates(model)) for batch in batches]
    torch.testing.assert_close(found, (parts[0] + parts[1]) / 2, rtol=1e-9, atol=1e-11)


def test_a_loss_that_is_linear_in_some_weights():
    model = drawn(nn.Linear(4, 3))
    hessian = Hessian(model, case()[1], lambda outputs, labels: outputs.mean())
    assert not exact_hessian(hessian).any()  # no curvature, but a gradient: that is no mistake
    both = Hessian(model, case()[1], lambda outputs, labels: (outputs[:, 0] ** 2 + outputs[:, 1]).mean())
    assert exact_hessian(both)[0, 0] > 0


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_precision_is_that_of_the_network(dtype):
    model, batches = case("relu")
    expected = dense(model, *joined(batches), coordinates(model))
    hessian = Hessian(model.to(dtype), batches)  # inputs in double precision
    product = hessian.matvec(torch.ones(hessian.dimension, dtype=DOUBLE))
    assert product.dtype == dtype
    torch.testing.assert_close(
        product.double(), expected.sum(1), rtol=1e-3, atol=1e-5 if dtype == torch.float32 else 1e-11
    )


# --- what must stay as it was


@pytest.mark.parametrize("options", OPTIONS[:6], ids=str)
def test_nothing_is_left_behind(options):
    model, batches = case("convolutional")
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(i))
    called = []
    model[0].weight.register_hook(called.append)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    state, held = torch.get_rng_state(), [(x.clone(), y.clone()) for x, y in batches]
    with torch.no_grad():  # a mode of the caller's that must not matter
        hessian = Hessian(model, batches, **options)
        v = noise(hessian.dimension)
        kept = v.clone()
        product = hessian.matvec(v)
        spectrum(hessian, steps=3, exact_below=0, generator=seeded(), progress=False)
        trace(hessian, 2, generator=seeded())
        row_norms(hessian, [0], reference=True)
        null_row_share(hessian)
        batch_losses(model, batches)
        assert not torch.is_grad_enabled()
    assert not product.requires_grad
    assert torch.equal(v, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(batches, held, strict=True))
    assert not called


class Noisy(nn.Module):
    """A network that draws random numbers even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x) + 0 * torch.rand(1)


def test_random_state_stays_also_after_an_exception():
    model, (_, batches) = drawn(Noisy()), case()
    state = torch.get_rng_state()
    Hessian(model, batches).matvec(noise(15))
    batch_losses(model, batches)
    with pytest.raises(BadInput, match="the loss of batch 1 is nan"):
        Hessian(model, batches, lambda outputs, labels: outputs.mean() * math.nan)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"reuse_graph": False}], ids=str)
def test_no_graph_stays_alive(options):
    model, batches = case("relu")
    gc.collect()
    gc.disable()
    try:
        hessian = Hessian(model, batches, **options)

        def tensors() -> int:
            return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

        v = noise(hessian.dimension)
        hessian.matvec(v)
        before = tensors()
        for _ in range(5):
            hessian.matvec(v)
        assert tensors() <= before
        gone = weakref.ref(hessian)
        pieces = [weakref.ref(g) for g in hessian._graph or []]
        del hessian
        assert gone() is None  # by counting references alone: there is no cycle
        assert all(piece() is None for piece in pieces)
    finally:
        gc.enable()


def test_a_product_is_new_memory():
    model, batches = case("relu")
    hessian = Hessian(model, batches)
    v = noise(hessian.dimension)
    first = hessian.matvec(v)
    kept = first.clone()
    first.mul_(0)
    assert torch.equal(hessian.matvec(v), kept)


# --- what has changed


@pytest.mark.parametrize("options", [{}, {"reuse_graph": False}, {"hold": False}], ids=str)
def test_a_network_that_has_changed_is_noticed(options):
    def change_data(model):
        model[0].weight.data[0, 0, 1, 1] += 1e-3

    def change_inside(model):
        with torch.no_grad():
            model[8].bias.mul_(1.5)

    def replace(model):
        model[4].weight = nn.Parameter(model[4].weight.detach() * 2)

    def statistics(model):
        model[1].running_mean += 1

    changes = [
        (change_data, "0.weight"),
        (change_inside, "8.bias"),
        (replace, "4.weight"),
        (statistics, "1.running_mean"),
    ]
    for change, name in changes:
        model, batches = case("convolutional")
        hessian = Hessian(model, batches, **options)
        hessian.matvec(noise(hessian.dimension))
        change(model)
        for call in (
            lambda h=hessian: h.matvec(noise(h.dimension)),
            lambda h=hessian: row_norms(h, [0], reference=True),
        ):
            with pytest.raises(BadInput, match=f"'{name}' has changed since the Hessian was made"):
                call()
    model, batches = case("convolutional")
    hessian = Hessian(model, batches, **options)
    model[6].train()
    with pytest.raises(BadInput, match=r"its part '6' \(Dropout\) is in training mode"):
        hessian.matvec(noise(hessian.dimension))


class Changing:
    """Batches that are others the third time."""

    def __init__(self, batches, later):
        self.batches, self.later, self.times = batches, later, 0

    def __iter__(self):
        self.times += 1
        return iter(self.later if self.times > 5 else self.batches)


def test_batches_that_change_are_noticed():
    model, batches = case("relu")
    x, y = batches[1]
    last = x.clone()
    last[-1, -1] += 1e-6
    others = {
        "batch 1 is another": batches[::-1],
        "batch 2 is another": [batches[0], (x + 1e-6, y), *batches[2:]],
        "batch 2 is another one": [batches[0], (last, y), *batches[2:]],
        "batch 3 is another": [*batches[:2], (batches[2][0], batches[2][1].flip(0) + 1), batches[3]],
        "batch 5 is another": [*batches, batches[0]],
        "gave 4 batches when the Hessian was made, and now 3": batches[:3],
        r"batch 4 is another": [*batches[:3], (batches[3][0].flip(0), batches[3][1])],
    }
    for words, later in others.items():
        source = Changing(batches, later)
        hessian = Hessian(model, source, hold=False, reuse_graph=False)
        hessian.matvec(noise(hessian.dimension))
        source.times = 10
        with pytest.raises(BadInput, match=words):
            hessian.matvec(noise(hessian.dimension))
        # Held batches are read once, so they cannot change.
        source = Changing(batches, later)
        hessian = Hessian(model, source)
        hessian.matvec(noise(hessian.dimension))
        assert source.times == 1


# --- what is refused


def test_training_mode_is_refused():
    model, batches = case("convolutional")
    model.train()
    for call in (Hessian, batch_losses):
        with pytest.raises(BadInput, match="but it is in training mode: call eval"):
            call(model, batches)
    model.eval()
    model[1].train()
    with pytest.raises(BadInput, match=r"part '1' \(BatchNorm2d\) is in training mode"):
        Hessian(model, batches)
    assert model[1].training


class BatchStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.end = nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)

    def forward(self, x):
        return self.end(torch.tanh(self.norm(x)))


def test_losses_that_are_no_mean_over_samples_are_refused():
    model, batches = case("relu")

    def total(outputs, labels):
        return F.cross_entropy(outputs, labels, reduction="sum")

    for given in (batches, batches[:1]):
        with pytest.raises(BadInput, match=r"no mean over samples.*or merge=False"):
            Hessian(model, given, total)
        with pytest.raises(BadInput, match="no mean over samples"):
            Hessian(drawn(BatchStatistics()), given)
    parts = [dense(model, *batch, coordinates(model), total) * len(batch[0]) for batch in batches]
    found = exact_hessian(Hessian(model, batches, total, merge=False))
    torch.testing.assert_close(found, sum(parts) / sum(SIZES), rtol=1e-9, atol=1e-11)
    for seed in range(8):  # the rounding of single precision is no reason
        small, few = case("relu", seed)
        Hessian(small.float(), few)


def test_bad_losses_are_refused():
    model, batches = case("relu")
    with torch.no_grad():
        broken = [batches[0], (batches[1][0] * math.inf, batches[1][1])]
    for call in (lambda: Hessian(model, broken), lambda: batch_losses(model, broken)):
        with pytest.raises(BadInput, match="the loss of batch 2 is nan"):
            call()
    for loss, words in [
        (lambda outputs, labels: torch.tensor(1.0), "does not depend on the parameters"),
        (lambda outputs, labels: (outputs * 0).mean() + 2, "its gradient and its Hessian are zero"),
        (lambda outputs, labels: outputs.sum(1), r"one number a batch, the mean over its samples, not \(5,\)"),
        (lambda outputs, labels: 1.0, "one number a batch, the mean over its samples, not float"),
    ]:
        with pytest.raises(BadInput, match=words):
            Hessian(model, batches, loss)
    with pytest.raises(BadInput, match="has no trainable parameter that was chosen"):
        Hessian(model.requires_grad_(False), batches)


def test_a_gradient_of_zero_alone_is_no_reason():
    """At its minimum the loss has no gradient, but curvature."""
    model = drawn(nn.Linear(4, 3))
    batches = [(x, model(x).detach()) for x, _ in case()[1]]
    assert exact_hessian(Hessian(model, batches, F.mse_loss)).trace() > 0


def test_bad_arguments():
    model, batches = case("relu")
    for arguments, error, words in [
        ((batches, None, {"parameters": ["5.*"]}), BadInput, "'5.*' fits no trainable parameter; there are 0.weight"),
        ((batches, None, {"parameters": lambda name, p: False}), BadInput, "no trainable parameter"),
        ((batches, None, {"parameters": []}), BadInput, "no trainable parameter"),
        ((batches, None, {"memory": 0}), BadInput, "memory .* must be at least 1"),
        ((batches, None, {"memory": 1e9}), BadType, "memory .* must be an integer"),
        (([],), BadInput, "batches is empty"),
        ((None,), BadType, "iterable of .inputs, labels., not NoneType"),
        ((batches[0][0],), BadType, "iterable of .inputs, labels., not Tensor"),
        (([batches[0][0]],), BadType, "must yield pairs"),
        (([(1, 2)],), BadType, "must yield pairs"),
        (([(batches[0][0][:0], batches[0][1][:0])],), BadInput, "batch 1 holds no sample"),
        ((iter(batches), None, {"hold": False}), BadInput, "can be read only once must be held"),
    ]:
        given, loss, options = (*arguments, None, {})[:3] if len(arguments) == 1 else arguments
        with pytest.raises(error, match=words):
            Hessian(model, given, loss, **options)
    with pytest.raises(BadInput, match=r"weights in float32 or float64, not torch.bfloat16: call model.float"):
        Hessian(model.bfloat16(), batches)
    hessian = Hessian(model.double(), iter(batches))
    for v in (torch.ones(3), torch.ones(1, hessian.dimension), torch.ones(hessian.dimension, 1, 1), [1.0]):
        with pytest.raises(BadInput, match=f"multiplies tensors .{hessian.dimension},. or"):
            hessian.matvec(v)
    assert repr(hessian) == "Hessian(Sequential: 73 parameters, 17 samples)"


def test_no_second_derivative_is_said_in_one_sentence():
    model, batches = case("tanh")
    for keep in (True, False):
        hessian = Hessian(model, batches, F.multi_margin_loss, reuse_graph=keep)
        with pytest.raises(BadInput, match=r"Sequential has no second derivative: derivative for .*multi_margin_loss"):
            hessian.matvec(torch.ones(hessian.dimension))


# --- trace, top, spectrum


def test_trace_is_the_mean_over_probes():
    model, batches = case("relu")
    hessian = Hessian(model, batches)
    matrix = exact_hessian(hessian)
    found = trace(hessian, 40, generator=seeded(3))
    generator = seeded(3)
    probes = [rademacher(hessian.dimension, generator) for _ in range(40)]
    single = np.array([float(v @ matrix @ v) for v in probes])
    np.testing.assert_allclose(found.samples, single, rtol=1e-9)
    assert found.value == pytest.approx(single.mean())
    assert found.standard_error == pytest.approx(single.std(ddof=1) / math.sqrt(40))
    assert abs(found.value - float(matrix.trace())) < 4 * found.standard_error
    for probes in (1, 0):
        with pytest.raises(BadInput, match="at least"):
            trace(hessian, probes, generator=seeded())


def power_iteration(matrix: torch.Tensor, n: int) -> list[float]:
    """The n eigenvalues that are largest in magnitude, one after the other, each with those before taken away."""
    found, vectors = [], torch.zeros(len(matrix), 0, dtype=DOUBLE)
    for i in range(n):
        v = noise(len(matrix), seed=i)
        for _ in range(4000):
            v = matrix @ (v - vectors @ (vectors.T @ v))
            v = v - vectors @ (vectors.T @ v)
            v = v / v.norm()
        found.append(float(v @ matrix @ v))
        vectors = torch.cat([vectors, v[:, None]], 1)
    return found


@pytest.mark.parametrize("kind", ["relu", "convolutional"])
def test_top_eigenvalues_against_power_iteration(kind):
    hessian = Hessian(*case(kind))
    matrix = exact_hessian(hessian)
    top, residuals = top_eigenvalues(hessian, 3, generator=seeded(), by="magnitude", tolerance=1e-6)
    np.testing.assert_allclose(top, power_iteration(matrix, 3), rtol=1e-4)
    assert residuals.max() <= 1e-6 * top.abs().max()
    top, _ = top_eigenvalues(hessian, 3, generator=seeded())
    np.testing.assert_allclose(top, torch.linalg.eigvalsh(matrix).flip(0)[:3], rtol=1e-3)
    one, _ = top_eigenvalues(hessian, generator=seeded(8))
    np.testing.assert_allclose(one, top[:1], rtol=1e-3)


def test_bad_top_eigenvalues():
    hessian = Hessian(*case("relu"))
    for options, words in [
        ({"n": 74}, "74 eigenvalues are more than the 73 parameters"),
        ({"n": 0}, "number of eigenvalues must be at least 1"),
        ({"steps": 0}, "number of steps must be at least 1"),
        ({"tolerance": 0.0}, r"tolerance must lie in \(0, 1\), not 0.0"),
        ({"tolerance": 1.0}, "tolerance must lie in"),
        ({"steps": 1, "tolerance": 1e-9}, "after 1 steps"),
    ]:
        with pytest.raises(PruningError, match=words):
            top_eigenvalues(hessian, generator=seeded(), **options)


def test_exact_and_estimated_spectra():
    hessian = Hessian(*case("relu"))
    values = torch.linalg.eigvalsh(dense(*case("relu")[:1], *joined(case("relu")[1]), list(hessian.shapes)))
    exact = spectrum(hessian, generator=seeded(), exact_below=73, progress=False)
    assert exact.exact
    torch.testing.assert_close(exact.eigenvalues, values[None], rtol=0, atol=1e-9)
    assert torch.equal(exact.weights, torch.full((1, 73), 1 / 73, dtype=DOUBLE))
    assert exact.top == pytest.approx(float(values[-1]))
    assert exact.negative_share == pytest.approx(float((values < -1e-6 * values.abs().max()).double().mean()))
    assert 0 < exact.negative_share < 1
    estimated = spectrum(hessian, probes=3, steps=20, generator=seeded(4), exact_below=72, progress=False)
    assert not estimated.exact
    assert (estimated.eigenvalues.shape, estimated.dimension) == ((3, 20), 73)
    generator = seeded(4)
    by_hand = [quadrature(*lanczos(hessian.matvec, rademacher(73, generator), 20)) for _ in range(3)]
    expected = Spectrum.of(by_hand, 73)
    torch.testing.assert_close(estimated.eigenvalues, expected.eigenvalues, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(estimated.weights, expected.weights, rtol=1e-7, atol=1e-12)
    assert estimated.top == pytest.approx(exact.top, rel=1e-3)
    # With all steps, f(H) is exact for every probe: v'Hv / D.
    many = spectrum(hessian, probes=60, steps=8, generator=seeded(), exact_below=0, progress=False)
    single = (many.eigenvalues * many.weights).sum(1)
    error = float(single.std()) / math.sqrt(60)
    assert abs(many.mean() - exact.mean()) < 4 * error
    assert error < abs(exact.mean())


def test_options_of_lanczos_are_passed_on():
    hessian = Hessian(*case("relu"))
    arguments = {"steps": 12, "exact_below": 1, "progress": False}
    plain = spectrum(hessian, generator=seeded(), **arguments)
    official = spectrum(hessian, generator=seeded(), reference=True, **arguments)
    half = spectrum(hessian, generator=seeded(), storage=torch.bfloat16, **arguments)
    assert 1e-12 < (plain.eigenvalues - official.eigenvalues).abs().max() < 1e-4
    assert not torch.equal(half.eigenvalues, plain.eigenvalues)
    other = spectrum(hessian, generator=seeded(), orthogonalise="selective", **arguments)
    assert other.top == pytest.approx(plain.top, rel=1e-9)
    with pytest.raises(PruningError, match="orthogonalisation"):
        spectrum(hessian, generator=seeded(), orthogonalise="none", **arguments)


def test_bad_spectra():
    hessian = Hessian(*case("relu"))
    with pytest.raises(BadInput, match="74 Lanczos steps are more than the 73 parameters"):
        spectrum(hessian, steps=74, generator=seeded(), exact_below=0, progress=False)
    for name in ("probes", "steps"):
        with pytest.raises(BadInput, match="must be at least 1, not 0"):
            spectrum(hessian, generator=seeded(), **{name: 0})
    with pytest.raises(BadInput, match=r"a Hessian of 73 parameters needs 0.0 GiB"):
        exact_hessian(hessian, memory=2 * 73 * 73 * 8 - 1)
    exact_hessian(hessian, memory=2 * 73 * 73 * 8)

    class Skew(Hessian):
        def matvec(self, v):
            return super().matvec(v) + 0.1 * v.roll(1)

    with pytest.raises(BadInput, match="the Hessian is not symmetric: two entries differ by"):
        exact_hessian(Skew(*case("relu")))


def test_progress_is_shown_when_asked_for(capsys):
    hessian = Hessian(*case("relu"))
    spectrum(hessian, steps=5, probes=2, exact_below=0, generator=seeded())
    assert "10/10" in capsys.readouterr().err
    spectrum(hessian, steps=5, exact_below=0, generator=seeded(), progress=False)
    assert capsys.readouterr().err == ""


# --- rows


def dead_inputs() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Two inputs that are always zero, and a unit that never fires: rows of zeros."""
    model, batches = case("relu")
    with torch.no_grad():
        model[0].bias[3] = -1e6
    return model, [(x * torch.tensor([1.0, 0, 1, 0], dtype=DOUBLE), y) for x, y in batches]


def test_row_norms():
    model, batches = dead_inputs()
    names = coordinates(model)
    expected = dense(model, *joined(batches), names).abs().sum(1)
    each = [dense(model, *batch, names).abs().sum(1) for batch in batches]
    chosen = [72, 0, 1, 15, 40]
    for options in ({}, {"merge": False, "reuse_graph": False}, {"hold": False}):
        hessian = Hessian(model, batches, **options)
        torch.testing.assert_close(row_norms(hessian, chosen), expected[chosen], rtol=1e-9, atol=1e-12)
        official = row_norms(hessian, torch.tensor(chosen), reference=True)
        torch.testing.assert_close(official, (sum(each) / sum(SIZES))[chosen], rtol=1e-9, atol=1e-12)
        assert official.dtype == DOUBLE
    assert float((expected - sum(e * n for e, n in zip(each, SIZES, strict=True)) / 17).abs().max()) > 1e-3
    assert len(row_norms(hessian, [])) == len(row_norms(hessian, [], reference=True)) == 0
    for row in (-1, 73):
        with pytest.raises(BadInput, match=f"row {row} is none of the 73 rows"):
            row_norms(hessian, [row])


def test_rows_by_magnitude():
    model, batches = case("convolutional")
    with torch.no_grad():  # ties within and between tensors, and with a bias
        for parameter in model.parameters():
            parameter.copy_((parameter * 4).round() / 4)
        model[0].bias[1] = 0.25
    hessian = Hessian(model, batches, exclude_norms=False)
    names, flat = list(hessian.shapes), hessian.weights()
    owner = [name for name in names for _ in range(model.get_parameter(name).numel())]
    weights = [i for i, name in enumerate(owner) if name in ("0.weight", "4.weight", "8.weight")]
    assert len(set(flat.abs().tolist())) < 12
    ranked = sorted(weights, key=lambda i: (abs(float(flat[i])), i))
    plain, official = percentile_rows(hessian), percentile_rows(hessian, reference=True)
    assert plain.shape == official.shape == (100,)
    for q in range(100):
        n = max(math.ceil(q / 100 * len(weights)), 1)
        assert int(plain[q]) == ranked[n - 1]
        threshold = abs(float(flat[ranked[n - 1]]))
        holders = [name for name in names if bool((model.get_parameter(name).abs() == threshold).any())]
        first = next(i for i, name in enumerate(owner) if name == holders[-1] and abs(float(flat[i])) == threshold)
        assert int(official[q]) == first
    assert not torch.equal(plain, official)
    only = percentile_rows(hessian, ["8.*"])
    assert {owner[i] for i in only.tolist()} == {"8.weight", "8.bias"}
    with pytest.raises(BadInput, match="no weight with 2 dimensions or more"):
        percentile_rows(Hessian(model, batches, parameters=["1.*"]))


def test_share_of_null_rows():
    model, batches = dead_inputs()
    hessian = Hessian(model, batches)
    norms = exact_hessian(hessian).abs().sum(1)
    null = norms < 1e-7
    # Columns of two inputs for the five units that live, all four weights of the dead one, its bias, and what it feeds.
    assert int(null.sum()) >= 2 * 5 + 4 + 1 + 4
    every = null_row_share(hessian, rows=torch.arange(73))
    assert every.share == pytest.approx(int(null.sum()) / 73)
    torch.testing.assert_close(every.norms, norms, rtol=1e-9, atol=1e-12)
    found = null_row_share(hessian)
    assert torch.equal(found.indices, percentile_rows(hessian))
    assert found.share == pytest.approx(float(null[found.indices].double().mean()))
    assert null_row_share(hessian, rows=torch.arange(73), tolerance=1e9).share == 1
    with torch.no_grad():
        for parameter in model.parameters():  # ties
            parameter.copy_((parameter * 4).round() / 4)
    hessian = Hessian(model, batches)
    assert not torch.equal(percentile_rows(hessian, reference=True), percentile_rows(hessian))
    official = null_row_share(hessian, reference=True)
    assert torch.equal(official.indices, percentile_rows(hessian, reference=True))
    torch.testing.assert_close(official.norms, row_norms(hessian, official.indices, reference=True))
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BadInput, match="tolerance of a null row must be positive and finite"):
            null_row_share(hessian, tolerance=tolerance)
    with pytest.raises(BadInput, match="no row to take a share of"):
        null_row_share(hessian, rows=torch.arange(0))


def test_default_tolerances_are_the_official_one_at_batches_of_128():
    """One batch of 128 equal samples, whose Hessian grows with the square of the input: a row just below, and just above."""
    model, x, y = (
        drawn(nn.Linear(1, 2, bias=False)),
        torch.ones(128, 1, dtype=DOUBLE),
        torch.zeros(128, dtype=torch.long),
    )
    first = torch.tensor([0])

    def norm(size: float) -> float:
        return float(row_norms(Hessian(model, [(x * size, y)]), first)[0])

    low, high = 1e-8, 1.0
    for _ in range(60):  # the input at which the norm is 1.28e-5
        middle = math.sqrt(low * high)
        low, high = (middle, high) if norm(middle) < 1.28e-5 else (low, middle)
    for size, share in ((low * 0.999, 1.0), (low * 1.001, 0.0)):
        hessian = Hessian(model, [(x * size, y)])
        assert null_row_share(hessian, rows=first).share == share
        assert null_row_share(hessian, rows=first, reference=True).share == share


# --- losses of batches


def test_batch_losses_and_their_spread():
    model, batches = case("relu")
    losses = batch_losses(model, iter(batches))
    expected = [F.cross_entropy(model(x), y).item() for x, y in batches]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert losses.dtype == DOUBLE
    assert loss_tolerance(losses) == pytest.approx(
        np.std(expected), rel=1e-12
    )  # over n, the short batch like the others
    squared = batch_losses(model, batches, lambda outputs, labels: (outputs**2).mean())
    np.testing.assert_allclose(squared, [(model(x) ** 2).mean().item() for x, _ in batches])
    assert loss_tolerance(torch.tensor([1.0, 3.0])) == 1.0
    for bad, words in [
        (torch.tensor([1.0]), r"at least 2 batches, not a tensor \(1,\)"),
        (torch.tensor([[1.0, 2.0]]), "at least 2 batches"),
        (torch.tensor([1.0, math.nan]), "NaN or infinite"),
        (torch.tensor([0.5, 0.5, 0.5]), "all batches have the same loss, so the tolerance is zero"),
    ]:
        with pytest.raises(BadInput, match=words):
            loss_tolerance(bad)
    with pytest.raises(BadInput, match="batches is empty"):
        batch_losses(model, [])


# --- a peer


@pytest.mark.parametrize("kind", ["relu", "convolutional"])
def test_curvlinops_finds_the_same(kind):
    import curvlinops as peer  # slow to load, and needed here only

    model, batches = case(kind)
    hessian = Hessian(model, batches)
    parameters = [model.get_parameter(name) for name in hessian.shapes]
    theirs = peer.HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False)
    vectors = noise(hessian.dimension, 3, seed=4)
    torch.testing.assert_close(hessian.matvec(vectors), (theirs @ vectors).detach(), rtol=1e-8, atol=1e-11)
    estimate = float((vectors.sign() * (theirs @ vectors.sign())).sum(0).mean())
    ours = float((vectors.sign() * hessian.matvec(vectors.sign())).sum(0).mean())
    assert ours == pytest.approx(estimate, rel=1e-8)
    found = trace(hessian, 100, generator=seeded())
    state = torch.get_rng_state()
    hutchinson = float(peer.hutchinson_trace(theirs, num_matvecs=30))
    torch.set_rng_state(state)
    assert abs(found.value - hutchinson) < 8 * found.standard_error


def test_the_mean_gradient_is_that_of_all_samples_and_its_living_part():
    model, batches = case("relu")
    hessian = Hessian(model, batches)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    wanted = torch.cat([part.flatten() for part in whole])
    torch.testing.assert_close(hessian.mean_gradient(), wanted, rtol=1e-9, atol=1e-12)
    name, shape = next(iter(hessian.shapes.items()))
    alive = torch.arange(shape.numel()).view(shape) % 3 > 0
    living = LivingHessian(hessian, {name: alive})
    kept = torch.cat([alive.flatten(), torch.ones(hessian.dimension - shape.numel(), dtype=torch.bool)])
    torch.testing.assert_close(living.mean_gradient(), wanted[kept], rtol=1e-9, atol=1e-12)
