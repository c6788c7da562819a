"""What a Hessian-vector product keeps, leaves as it was, and notices."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.batches import batch_losses
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.measures import null_row_share, row_norms, spectrum, trace_estimate
from tests.papers.how_sparse.curvature.dense import OPTIONS, case, drawn, noise, seeded


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


# --- what must stay as it was


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
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
        trace_estimate(hessian, 2, generator=seeded())
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


@pytest.mark.parametrize("options", [{}, {"reuse_graph": False}], ids=str)
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
