"""Curvature against dense Hessians that torch.autograd.functional builds, entry by entry of definitions."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.errors import BadInput, BadType
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.papers.how_sparse.curvature.batches import batch_losses
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian
from pruning_core.papers.how_sparse.curvature.measures import exact_hessian, trace_estimate
from tests.papers.how_sparse.curvature.dense import (
    DOUBLE,
    NETWORKS,
    OPTIONS,
    SIZES,
    case,
    coordinates,
    dense,
    drawn,
    joined,
    noise,
    seeded,
)


@functools.cache
def dense_of(kind: str) -> torch.Tensor:
    model, batches = case(kind)
    return dense(model, *joined(batches), coordinates(model))


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
        (lambda outputs, labels: torch.tensor(1.0), "the loss has no gradient"),
        (lambda outputs, labels: (outputs * 0).mean() + 2, "its gradient and its Hessian are zero"),
        (
            lambda outputs, labels: outputs.sum(1),
            r"one number, the mean over the samples of a batch, not torch.float64 of shape \(5,\)",
        ),
        (lambda outputs, labels: 1.0, "one number, the mean over the samples of a batch, not float"),
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
        ((batches, None, {"memory": 1e9}), BadType, "memory .* must be a whole number"),
        (([],), BadInput, "batches is empty"),
        ((None,), BadType, "iterable of .inputs, labels., not NoneType"),
        ((batches[0][0],), BadType, "iterable of .inputs, labels., not Tensor"),
        (([batches[0][0]],), BadType, "must yield pairs"),
        (([(1, 2)],), BadType, "must yield pairs"),
        (([(batches[0][0][:0], batches[0][1][:0])],), BadInput, "batch 1 holds no sample"),
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
    found = trace_estimate(hessian, 100, generator=seeded())
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
