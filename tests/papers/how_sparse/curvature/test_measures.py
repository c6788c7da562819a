"""Row norms, null rows and losses of batches, by their definitions."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.batches import batch_losses, loss_tolerance
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.measures import exact_hessian, null_row_share, percentile_rows, row_norms
from tests.papers.how_sparse.curvature.dense import DOUBLE, SIZES, case, coordinates, dense, drawn, joined

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
    for options in ({}, {"merge": False, "reuse_graph": False}):
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
        with pytest.raises(BadInput, match="tolerance of a null row must be finite and above 0"):
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
