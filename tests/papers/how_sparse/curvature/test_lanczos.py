"""Lanczos and its quadrature, against dense eigendecompositions and loops written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, largest_eigenvalues, quadrature, rademacher
from tests.papers.how_sparse.curvature.matrices import DOUBLE, by, found, seeded, start_of, symmetric


def krylov(matrix: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """T by its definition: an orthonormal basis of start, A start, A^2 start, ..., built in float64, applied to A."""
    basis = torch.zeros(len(start), 0, dtype=DOUBLE)
    v = start
    for _ in range(steps):
        for _ in range(3):
            v = v - basis @ (basis.T @ v)
            v = v / v.norm()
        basis = torch.cat([basis, v[:, None]], 1)
        v = matrix @ v
    return basis.T @ matrix @ basis


@pytest.mark.parametrize(("d", "steps"), [(1, 1), (2, 1), (2, 2), (9, 4), (30, 30), (40, 12)])
def test_is_the_projection_on_the_krylov_space(d, steps):
    matrix = symmetric(torch.linspace(-3, 7, d))
    alpha, beta = lanczos(by(matrix), start_of(d), steps)
    expected = krylov(matrix, start_of(d), steps)
    assert (alpha.shape, beta.shape) == ((steps,), (steps - 1,))
    assert alpha.dtype == beta.dtype == DOUBLE
    torch.testing.assert_close(alpha, expected.diag(), rtol=0, atol=1e-7)
    torch.testing.assert_close(beta, expected.diag(1).abs(), rtol=0, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.data())
def test_the_rule_is_exact_for_polynomials_up_to_twice_the_steps(d, data):
    steps = data.draw(st.integers(1, d))
    matrix = symmetric(torch.linspace(-1, 1, d), seed=d)
    v = start_of(d, seed=steps)
    ritz, weights = quadrature(*lanczos(by(matrix), v, steps))
    v = v / v.norm()
    for power in range(2 * steps):
        exact = v @ torch.linalg.matrix_power(matrix, power) @ v
        torch.testing.assert_close((weights * ritz**power).sum(), exact, rtol=1e-9, atol=1e-10)
    if steps < d:  # and not beyond
        power = 2 * steps
        exact = v @ torch.linalg.matrix_power(matrix, power) @ v
        assert abs((weights * ritz**power).sum() - exact) > 1e-12


def test_all_steps_give_all_eigenvalues_and_the_squared_projections():
    values = torch.tensor([-2.0, -0.5, 0.0, 1.0, 1.5, 4.0, 10.0], dtype=DOUBLE)
    matrix, v = symmetric(values), start_of(7)
    ritz, weights = quadrature(*lanczos(by(matrix), v, 7))
    vectors = torch.linalg.eigh(matrix).eigenvectors
    torch.testing.assert_close(ritz, values, rtol=0, atol=1e-10)
    torch.testing.assert_close(weights, (vectors.T @ v / v.norm()) ** 2, rtol=1e-8, atol=1e-12)


def test_the_length_of_the_start_does_not_matter_and_it_stays_as_it_is():
    matrix, v = symmetric(torch.linspace(0, 1, 9)), start_of(9)
    before = v.clone()
    one, other = lanczos(by(matrix), v, 5), lanczos(by(matrix), -37.5 * v, 5)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert torch.equal(v, before)


def test_a_product_that_is_used_again_by_its_maker_stays_as_it_is():
    """Some operators return the same memory each time; and none expects its result to be changed."""
    matrix, handed = symmetric(torch.linspace(0, 1, 9)), []

    def product(v):
        handed.append((matrix @ v, matrix @ v))
        return handed[-1][0]

    lanczos(product, start_of(9), 6)
    assert all(torch.equal(*pair) for pair in handed)
    assert len(handed) == 6  # one product a step


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=str)
def test_stops_when_the_space_is_exhausted(dtype):
    values = [0.0] * 10 + [1.0] * 6 + [4.0, 9.0]
    matrix, v = symmetric(values, dtype=dtype), start_of(18, dtype=dtype)
    alpha, beta = lanczos(by(matrix), v, 15)
    assert (len(alpha), len(beta)) == (4, 3)  # four different eigenvalues
    ritz, weights = quadrature(alpha, beta)
    tolerance = 1e-9 if dtype == DOUBLE else 1e-4
    torch.testing.assert_close(ritz, torch.tensor([0, 1, 4, 9], dtype=DOUBLE), rtol=0, atol=tolerance)
    vectors = torch.linalg.eigh(symmetric(values)).eigenvectors
    shares = (vectors.T @ v.double() / v.double().norm()) ** 2
    parts = torch.stack([shares[:10].sum(), shares[10:16].sum(), shares[16], shares[17]])
    torch.testing.assert_close(weights, parts, rtol=0, atol=tolerance)


def test_breakdown_is_relative_to_the_size_of_the_matrix():
    values = torch.tensor([0.0, 0, 0, 1, 1, 2], dtype=DOUBLE)
    for size in (1e-8, 1.0, 1e8):
        assert len(lanczos(by(symmetric(values * size)), start_of(6), 6).alpha) == 3
    # A coupling of 1e-6 between two parts is kept by default, and cut where that is asked for.
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE))
    matrix[0, 1] = matrix[1, 0] = 1e-6
    first = torch.tensor([1.0, 0, 0], dtype=DOUBLE)
    assert len(lanczos(by(matrix), first, 3).alpha) == 2
    assert len(lanczos(by(matrix), first, 3, breakdown=1e-5).alpha) == 1
    assert len(lanczos(by(torch.zeros(4, 4, dtype=DOUBLE)), start_of(4), 3).alpha) == 1


def test_the_bound_is_the_largest_row_sum():
    """A chain of four: behind the third, T has row sums 1, 2, 1, and the next beta is 0.015."""
    matrix = torch.zeros(4, 4, dtype=DOUBLE)
    for i, coupling in enumerate((1.0, 1.0, 0.015)):
        matrix[i, i + 1] = matrix[i + 1, i] = coupling
    first = torch.tensor([1.0, 0, 0, 0], dtype=DOUBLE)
    for breakdown, length in ((0.0074, 4), (0.0076, 3)):
        assert len(lanczos(by(matrix), first, 4, breakdown=breakdown).alpha) == length


def spread(d: int = 120) -> torch.Tensor:
    """A spectrum as of networks: many near zero, a few large; without orthogonalisation the large ones appear twice."""
    return torch.cat([torch.linspace(-0.01, 0.02, d - 4, dtype=DOUBLE), torch.tensor([1.0, 3, 10, 50], dtype=DOUBLE)])


def plain(matrix: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Ritz values of the bare three-term recurrence."""
    alpha, beta, v, before, b = [], [], start / start.norm(), torch.zeros_like(start), 0.0
    for _ in range(steps):
        u = matrix @ v - b * before
        alpha.append(float(u @ v))
        u = u - alpha[-1] * v
        b = float(u.norm())
        beta.append(b)
        before, v = v, u / b
    t = (
        torch.diag(torch.tensor(alpha))
        + torch.diag(torch.tensor(beta[:-1]), 1)
        + torch.diag(torch.tensor(beta[:-1]), -1)
    )
    return torch.linalg.eigvalsh(t.double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-10), (torch.float32, 1e-4)], ids=str)
def test_no_eigenvalue_appears_twice(dtype, tolerance):
    matrix, v = symmetric(spread(), dtype=dtype), start_of(120, dtype=dtype)
    assert (plain(matrix, v, 60) > 40).sum() > 1
    ritz, weights = quadrature(*lanczos(by(matrix), v, 60))
    top = ritz[weights > 1e-12]
    assert [int(((top - value).abs() < 0.05 * value).sum()) for value in (1, 3, 10, 50)] == [1, 1, 1, 1]
    shares = (torch.linalg.eigh(symmetric(spread())).eigenvectors.T @ v.double() / v.double().norm()) ** 2
    torch.testing.assert_close(top[-4:], spread()[-4:], rtol=tolerance, atol=0)
    torch.testing.assert_close(weights[weights > 1e-12][-4:], shares[-4:], rtol=max(20 * tolerance, 1e-9), atol=0)


# --- the official accidents


def official(matrix: np.ndarray, start: np.ndarray, steps: int) -> tuple[list[float], list[float]]:
    v = start / (np.linalg.norm(start) + 1e-6)
    vs, alpha, beta = [v], [], []
    w = matrix @ v
    alpha.append(w @ v)
    w = w - alpha[0] * v
    for _ in range(1, steps):
        b = np.linalg.norm(w)
        beta.append(b)
        for old in vs:
            w = w - (w @ old) * old
        v = w / (np.linalg.norm(w) + 1e-6)
        vs.append(v)
        w = matrix @ v
        alpha.append(w @ v)
        w = w - alpha[-1] * v - b * vs[-2]
    return alpha, beta


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_reference_against_the_official_steps(size):
    matrix, v = symmetric(torch.linspace(-1, 2, 20) * size), rademacher(20, seeded())
    alpha, beta = lanczos(by(matrix), v, 9, reference=True)
    a, b = official(matrix.numpy(), v.numpy(), 9)
    np.testing.assert_allclose(alpha, a, rtol=1e-10, atol=1e-13 * size)
    np.testing.assert_allclose(beta, b, rtol=1e-10)
    clean = lanczos(by(matrix), v, 9)
    difference = float((clean.beta - beta).abs().max()) / size
    assert 1e-9 < difference < (1e-4 if size == 1 else 0.3)  # the offset weighs more where eigenvalues are small


def test_reference_goes_on_where_nothing_is_left():
    matrix = symmetric([0.0] * 8 + [1.0] * 4)
    assert len(lanczos(by(matrix), start_of(12), 7, reference=True).alpha) == 7
    assert len(lanczos(by(matrix), start_of(12), 7).alpha) == 2


def test_reference_takes_a_gaussian_vector_only_where_beta_is_zero():
    seen: list[torch.Tensor] = []

    def nothing(v):
        seen.append(v)
        return torch.zeros_like(v)

    lanczos(nothing, start_of(6), 3, reference=True, generator=seeded(5))
    assert len(seen) == 3
    gram = torch.stack(seen) @ torch.stack(seen).T
    torch.testing.assert_close(gram, torch.eye(3, dtype=DOUBLE), rtol=0, atol=1e-5)
    first = list(seen)
    for seed, same in ((5, True), (6, False)):
        seen.clear()
        lanczos(nothing, start_of(6), 3, reference=True, generator=seeded(seed))
        assert torch.equal(seen[1], first[1]) == same
    generator = seeded(5)
    lanczos(by(symmetric(torch.linspace(1, 2, 6))), start_of(6), 4, reference=True, generator=generator)
    lanczos(by(symmetric(torch.linspace(1, 2, 6)) * 1e-12), start_of(6), 4, reference=True, generator=generator)
    assert torch.equal(generator.get_state(), seeded(5).get_state())


# --- what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": 6}, BadInput, "6 Lanczos steps are more than the 5 parameters"),
        ({"steps": 0}, BadInput, "the number of Lanczos steps must be at least 1, not 0"),
        ({"steps": 2.0}, BadType, "must be a whole number, not 2.0"),
        ({"steps": True}, BadType, "must be a whole number, not True"),
        ({"start": torch.zeros(5)}, BadInput, "finite length above 0, not 0.0"),
        ({"start": torch.full((5,), torch.nan)}, BadInput, "finite length above 0, not nan"),
        ({"start": torch.ones(5, 1)}, BadType, r"must be a tensor \(D,\)"),
        ({"start": torch.ones(5, dtype=torch.bfloat16)}, BadType, "of float32 or float64"),
        ({"start": [1.0] * 5}, BadType, r"must be a tensor \(D,\)"),
        ({"breakdown": -1.0}, BadInput, r"breakdown must lie in \[0, 1\), not -1"),
        ({"breakdown": 1.0}, BadInput, "breakdown must lie in"),
        ({"matvec": lambda v: v * torch.nan}, BadInput, "is NaN or infinite"),
        ({"matvec": lambda v: v[:2]}, BadInput, r"must have its shape, not \(2,\)"),
        ({"matvec": lambda v: v * torch.nan, "reference": True}, BadInput, "is NaN or infinite"),
    ],
)
def test_bad_input(options, error, words):
    arguments = {"matvec": lambda v: v, "start": torch.ones(5), "steps": 3} | options
    with pytest.raises(error, match=words):
        lanczos(**arguments)


def test_quadrature_against_a_general_eigensolver():
    alpha, beta = torch.tensor([1.0, -2, 0.5, 3]), torch.tensor([0.3, 1.5, 0.1])
    t = np.diag(alpha.numpy()) + np.diag(beta.numpy(), 1) + np.diag(beta.numpy(), -1)
    values, vectors = np.linalg.eig(t.astype(float))
    order = np.argsort(values)
    ritz, weights = quadrature(alpha, beta)
    np.testing.assert_allclose(ritz, values[order], rtol=1e-7)
    np.testing.assert_allclose(weights, vectors[0, order] ** 2, rtol=1e-6)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    for bad in (torch.zeros(4), torch.zeros(2)):
        with pytest.raises(BadInput, match=r"alpha \(k,\) needs beta \(k - 1,\)"):
            quadrature(alpha, bad)
    with pytest.raises(BadInput, match="needs beta"):
        quadrature(torch.zeros(0), torch.zeros(0))


def test_rademacher_vectors():
    v = rademacher(10000, seeded(3), torch.float32)
    assert v.dtype == torch.float32
    assert set(v.tolist()) == {-1.0, 1.0}
    assert abs(float(v.mean())) < 0.05
    assert torch.equal(v, rademacher(10000, seeded(3), torch.float32))
    assert not torch.equal(v, rademacher(10000, seeded(4), torch.float32))
    assert rademacher(3, seeded()).dtype == DOUBLE


# --- the largest eigenvalues


CASES = [
    ([5.0, 3, 2, 1, 0.5, -4, -6, 0, 0, 0], 3),
    ([7.0, 7, 7, 1, 0, 0, 0, 0], 3),  # as often as it occurs
    ([7.0, 7, 7, 1, 0, 0, 0, 0], 2),
    ([-1.0, -2, -3, -4], 2),
    ([1.0, 2, 3], 3),
    ([4.0], 1),
    ([0.0, 0, 0, 0, 2], 4),  # more than there are that differ from zero
    ([3.0] * 6, 2),
    (list(np.linspace(-1, 1, 200)), 5),
    (spread().tolist(), 6),
]


@pytest.mark.parametrize(("values", "n"), CASES)
def test_largest_eigenvalues(values, n):
    scale = max(map(abs, values))
    top, residuals = found(values, n, steps=200)
    np.testing.assert_allclose(top, sorted(values, reverse=True)[:n], atol=1e-4 * scale)
    assert residuals.shape == (n,)
    assert (residuals <= 1e-4 * scale).all()
    top, _ = found(values, n, by="magnitude", steps=200)
    expected = sorted(values, key=abs, reverse=True)[:n]
    np.testing.assert_allclose(top.abs(), np.abs(expected), atol=1e-4 * scale)
    assert (top.abs().diff() <= 1e-9 * scale).all()


def test_residuals_are_those_of_the_eigenvectors_and_bound_the_error():
    values = np.linspace(-1, 1, 60)
    for tolerance in (1e-2, 1e-6):
        top, residuals = found(values, 2, tolerance=tolerance)
        assert residuals.max() <= tolerance
        assert np.abs(top.numpy() - values[::-1][:2]).max() <= residuals.max() + 1e-12
        assert residuals.max() > 1e-12  # or nothing would be tested
    loose, tight = (found(values, 2, tolerance=t)[1].max() for t in (1e-2, 1e-6))
    assert tight < loose / 100


def test_largest_eigenvalues_in_single_precision():
    top, _ = found(spread().tolist(), 3, torch.float32)
    np.testing.assert_allclose(top, [50, 10, 3], rtol=1e-5)
    assert top.dtype == DOUBLE


def test_an_exhausted_space_is_the_end_whatever_the_tolerance():
    matrix, products = symmetric([5.0, 2, 1] + [0.0] * 37), []

    def product(v):
        products.append(v)
        return matrix @ v

    top, residuals = largest_eigenvalues(product, noise_block(40, 2), 40, tolerance=1e-300)
    np.testing.assert_allclose(top, [5, 2], rtol=1e-10)
    assert residuals.max() < 1e-12
    assert len(products) <= 8  # four dimensions: three eigenvectors and what is left of the start
    noisy = symmetric(torch.linspace(0, 1, 30))
    products.clear()

    def with_noise(v):
        products.append(v)
        return noisy @ v + 1e-4 * v.roll(1)

    top, _ = largest_eigenvalues(with_noise, noise_block(30, 7), 40, tolerance=1e-300)
    assert len(products) == 30
    np.testing.assert_allclose(top, np.linspace(0, 1, 30)[:-8:-1], atol=1e-3)  # never more directions than there are
    small = symmetric([3.0, 2, 1], dtype=torch.float32)
    top, _ = largest_eigenvalues(by(small), noise_block(3, 2).float(), 40, tolerance=1e-300)
    np.testing.assert_allclose(top, [3, 2], rtol=1e-5)


def noise_block(d: int, n: int) -> torch.Tensor:
    return torch.randn(d, n, generator=seeded(2), dtype=DOUBLE)


def test_too_few_steps_are_said_to_be_too_few():
    with pytest.raises(BadInput, match="after 3 steps a residual of the 2 largest"):
        found(np.linspace(-1, 1, 200), 2, tolerance=1e-8, steps=3)
    with pytest.raises(UnknownName, match="unknown order of eigenvalues 'size'"):
        found([1.0, 2], 1, by="size")
