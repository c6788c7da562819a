"""Trace, largest eigenvalues and spectra of a Hessian, against its dense eigendecomposition."""

import math

import numpy as np
import pytest
import torch

from pruning_core.errors import BadInput, PruningError
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature, rademacher
from pruning_core.papers.how_sparse.curvature.measures import (
    Spectrum,
    exact_hessian,
    spectrum,
    top_eigenvalues,
    trace_estimate,
)
from tests.papers.how_sparse.curvature.dense import DOUBLE, case, dense, joined, noise, seeded


def test_trace_is_the_mean_over_probes():
    model, batches = case("relu")
    hessian = Hessian(model, batches)
    matrix = exact_hessian(hessian)
    found = trace_estimate(hessian, 40, generator=seeded(3))
    generator = seeded(3)
    probes = [rademacher(hessian.dimension, generator) for _ in range(40)]
    single = np.array([float(v @ matrix @ v) for v in probes])
    np.testing.assert_allclose(found.samples, single, rtol=1e-9)
    assert found.value == pytest.approx(single.mean())
    assert found.standard_error == pytest.approx(single.std(ddof=1) / math.sqrt(40))
    assert abs(found.value - float(matrix.trace())) < 4 * found.standard_error
    for probes in (1, 0):
        with pytest.raises(BadInput, match="at least"):
            trace_estimate(hessian, probes, generator=seeded())


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


def test_the_official_steps_are_passed_on():
    hessian = Hessian(*case("relu"))
    arguments = {"steps": 12, "exact_below": 1, "progress": False}
    plain = spectrum(hessian, generator=seeded(), **arguments)
    official = spectrum(hessian, generator=seeded(), reference=True, **arguments)
    assert 1e-12 < (plain.eigenvalues - official.eigenvalues).abs().max() < 1e-4


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
