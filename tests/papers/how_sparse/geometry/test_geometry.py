"""Cones against closed forms, optimality conditions and random draws; widths and limits against sums written out."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.papers.how_sparse.geometry.cones import CircularCone, HalfSpace, L1DescentCone, Orthant, Ray, Subspace
from pruning_core.papers.how_sparse.geometry.kinematic import (
    kinematic,
    limit_bounds,
    normalised_width,
    trace_bound,
    window,
)
from pruning_core.papers.how_sparse.geometry.widths import Ellipsoid, gaussian_width, monte_carlo
from tests.papers.how_sparse.draws import DOUBLE, noise, seeded

CONES = [
    Subspace(7, 3),
    Subspace(4, 0),
    Subspace(4, 4),
    Orthant(6),
    Orthant(1),
    HalfSpace(5),
    HalfSpace(1),
    Ray(5),
    Ray(1),
    CircularCone(6, 0.7),
    CircularCone(2, 1.2),
    CircularCone(5, 0.0),
    CircularCone(5, math.pi / 2),
    L1DescentCone(8, 3),
    L1DescentCone(20, 1),
    L1DescentCone(5, 5),
    L1DescentCone(4, 0),
    L1DescentCone(1, 1),
]
IDS = [repr(cone) for cone in CONES]


def inside(cone, x: np.ndarray, slack: float = 1e-9) -> bool:
    """Membership, from each cone's definition."""
    if isinstance(cone, Subspace):
        return bool(np.all(np.abs(x[cone.dimension :]) <= slack))
    if isinstance(cone, Orthant):
        return bool(np.all(x >= -slack))
    if isinstance(cone, HalfSpace):
        return bool(x[0] >= -slack)
    if isinstance(cone, Ray):
        return bool(x[0] >= -slack and np.all(np.abs(x[1:]) <= slack))
    if isinstance(cone, CircularCone):
        return bool(x[0] >= np.linalg.norm(x) * math.cos(cone.angle) - slack)
    # The l1 norm has the one-sided derivative sum of x over the support + sum of |x| elsewhere.
    return bool(x[: cone.nonzero].sum() + np.abs(x[cone.nonzero :]).sum() <= slack)


def members(cone, n: int) -> list[np.ndarray]:
    """Points of the cone that owe nothing to project(): some on the surface, some within."""
    rng = np.random.default_rng(3)
    found = [np.zeros(cone.ambient)]
    for _ in range(n):
        x = rng.normal(size=cone.ambient)
        if isinstance(cone, Subspace):
            x[cone.dimension :] = 0
        elif isinstance(cone, Orthant):
            x = np.abs(x) * (rng.random(cone.ambient) < 0.7)
        elif isinstance(cone, HalfSpace):
            x[0] = abs(x[0]) * (rng.random() < 0.7)
        elif isinstance(cone, Ray):
            x[1:], x[0] = 0, abs(x[0])
        elif isinstance(cone, CircularCone):
            angle = cone.angle * rng.random() ** 0.2
            x = np.concatenate([[math.cos(angle)], math.sin(angle) * x[1:] / np.linalg.norm(x[1:])]) * rng.exponential()
        elif cone.nonzero == 0:
            x[:] = 0
        else:  # push the support down until the derivative is not positive
            excess = x[: cone.nonzero].sum() + np.abs(x[cone.nonzero :]).sum()
            x[: cone.nonzero] -= (excess / cone.nonzero) * (1 if excess > 0 else rng.random())
        assert inside(cone, x)
        found.append(x)
    return found


# --- projections


@pytest.mark.parametrize("cone", CONES, ids=IDS)
def test_a_projection_is_the_nearest_point(cone):
    points = torch.cat(
        [noise(40, cone.ambient) * 2, noise(3, cone.ambient, seed=1).round(), torch.zeros(1, cone.ambient)]
    )
    near = cone.project(points)
    assert near.shape == points.shape and near.dtype == DOUBLE
    others = members(cone, 40)
    for g, p in zip(points.numpy(), near.numpy(), strict=True):
        # p is in the cone, g - p is at a right angle to p and in the polar cone: that is the nearest point, and no other.
        assert inside(cone, p)
        assert abs((g - p) @ p) < 1e-9
        assert max(float((g - p) @ x) for x in others) < 1e-9
    torch.testing.assert_close(cone.project(near), near, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cone.project(points * 3), near * 3)
    kept = torch.tensor(np.array(others))
    torch.testing.assert_close(cone.project(kept), kept, rtol=1e-9, atol=1e-9)


def test_projections_by_hand():
    points = torch.tensor([[3.0, 4.0], [-3.0, 4.0], [5.0, 1.0], [-4.0, 1.0]])
    ray = (points @ torch.tensor([1.0, 1.0])).clamp(min=0)[:, None] / 2
    cone = CircularCone(2, math.pi / 4).project(points)
    torch.testing.assert_close(cone[0], torch.full((2,), 3.5, dtype=DOUBLE))
    torch.testing.assert_close(cone[1], ray[1].double().expand(2))
    torch.testing.assert_close(cone[2], points[2].double())
    torch.testing.assert_close(cone[3], torch.zeros(2, dtype=DOUBLE))
    # Descent directions at (+, 0, 0): x1 + |x2| + |x3| <= 0. From (1, 2, 0) the best t is (1 + 2) / 2.
    found = L1DescentCone(3, 1).project(torch.tensor([[1.0, 2.0, 0.0], [-9.0, 2.0, -1.0], [2.0, -1.0, 1.0]]))
    expected = torch.tensor([[-0.5, 0.5, 0.0], [-9.0, 2.0, -1.0], [0.0, 0.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("ambient", "nonzero"), [(12, 1), (12, 5), (12, 11), (3, 2)])
def test_the_descent_cone_against_a_search_for_the_multiple(ambient, nonzero):
    cone = L1DescentCone(ambient, nonzero)
    for g in noise(30, ambient, seed=4):

        def distance(t, g=g):
            return float(((g[:nonzero] - t) ** 2).sum() + ((g[nonzero:].abs() - t).clamp(min=0) ** 2).sum())

        best = min(distance(0.0), minimize_scalar(distance, bounds=(0, 10), method="bounded").fun)
        assert float(cone.project(g[None]).square().sum()) == pytest.approx(best, abs=1e-6)


# --- statistical dimensions


def test_closed_forms():
    assert [Subspace(9, k).statistical_dimension() for k in (0, 4, 9)] == [0, 4, 9]
    assert Orthant(9).statistical_dimension() == 4.5
    assert HalfSpace(9).statistical_dimension() == 8.5
    assert Ray(9).statistical_dimension() == 0.5


@pytest.mark.parametrize("angle", [0, 0.2, 0.7, 1.1, 1.5, math.pi / 2])
def test_circular_cones_in_two_and_three_dimensions(angle):
    """By conic intrinsic volumes: 1/2 + 2 angle / pi, and 3/2 + sin - cos."""
    plane, space = (CircularCone(d, angle).statistical_dimension() for d in (2, 3))
    assert plane == pytest.approx(0.5 + 2 * angle / math.pi, rel=1e-9)
    assert space == pytest.approx(1.5 + math.sin(angle) - math.cos(angle), rel=1e-9)


@pytest.mark.parametrize("ambient", [2, 5, 40, 3000, 10**6])
def test_circular_cones_at_the_ends_and_in_high_dimension(ambient):
    assert CircularCone(ambient, 0).statistical_dimension() == pytest.approx(0.5, rel=1e-8)
    assert CircularCone(ambient, math.pi / 2).statistical_dimension() == pytest.approx(ambient - 0.5, rel=1e-9)
    for angle in (0.1, 0.6, math.pi / 4, 1.3):
        cone, polar_like = CircularCone(ambient, angle), CircularCone(ambient, math.pi / 2 - angle)
        delta = cone.statistical_dimension()
        # The polar of a circular cone is one of the complementary angle, and the two dimensions add up to D.
        assert delta + polar_like.statistical_dimension() == pytest.approx(ambient, rel=1e-9)
        # D sin^2 + cos(2 angle) is right up to 1 / D.
        assert abs(delta - ambient * math.sin(angle) ** 2 - math.cos(2 * angle)) < (
            0.6 if ambient < 10 else 0.2 if ambient < 100 else 1e-3
        )


def excess(cone) -> float:
    """By how much its statistical dimension, an upper bound, may lie above the true value."""
    exact = not isinstance(cone, L1DescentCone) or cone.nonzero in (0, cone.ambient)
    return 0.0 if exact else 2 * math.sqrt(cone.ambient / cone.nonzero)


@pytest.mark.parametrize("cone", CONES, ids=IDS)
def test_monte_carlo_agrees(cone):
    estimate = monte_carlo(cone, 4000, seeded(1))
    low = cone.statistical_dimension() - excess(cone)
    assert low - 4 * estimate.standard_error - 1e-9 <= estimate.mean
    assert estimate.mean <= cone.statistical_dimension() + 4 * estimate.standard_error + 1e-9
    if not isinstance(cone, Subspace) or cone.dimension > 0:
        assert estimate.standard_error > 0 or estimate.mean == 0


def test_the_descent_cone_is_nearly_exact_in_high_dimension():
    cone = L1DescentCone(400, 40)
    estimate = monte_carlo(cone, 1500, seeded())
    assert 4 * estimate.standard_error < 0.01 * cone.ambient
    assert abs(estimate.mean - cone.statistical_dimension()) < 0.01 * cone.ambient


@pytest.mark.parametrize(("ambient", "nonzero"), [(10, 1), (100, 3), (100, 50), (100, 99), (10**6, 1), (10**9, 5)])
def test_the_descent_cone_minimises_the_mean_squared_distance(ambient, nonzero):
    def beyond(t):
        return 2 * quad(lambda u: (u - t) ** 2 * math.exp(-u * u / 2) / math.sqrt(2 * math.pi), t, t + 30, epsabs=0)[0]

    def distance(t):
        return nonzero * (1 + t * t) + (ambient - nonzero) * beyond(t)

    best = minimize_scalar(distance, bounds=(0, 8), method="bounded", options={"xatol": 1e-9}).fun
    assert L1DescentCone(ambient, nonzero).statistical_dimension() == pytest.approx(best, rel=1e-8)


def test_known_dimensions_of_the_descent_cone():
    assert L1DescentCone(6, 0).statistical_dimension() == 0
    assert L1DescentCone(6, 6).statistical_dimension() == 5.5  # a half space
    deltas = [L1DescentCone(50, s).statistical_dimension() for s in range(50)]
    assert all(a < b for a, b in itertools.pairwise(deltas)) and deltas[-1] < 50


# --- widths


@pytest.mark.parametrize("cone", CONES, ids=IDS)
def test_widths_of_cones_lie_within_their_bounds(cone):
    estimate = gaussian_width(cone, 4000, seeded(2))
    high = math.sqrt(cone.statistical_dimension())
    low = math.sqrt(max(cone.statistical_dimension() - excess(cone) - 1, 0))
    assert low - 4 * estimate.standard_error - 1e-9 <= estimate.mean <= high + 4 * estimate.standard_error + 1e-9


def test_widths_of_cones_by_hand():
    # E |g_1| over half of the draws, and the mean length of a Gaussian vector in three dimensions.
    assert gaussian_width(Ray(3), 40000, seeded()).mean == pytest.approx(1 / math.sqrt(2 * math.pi), abs=0.01)
    assert gaussian_width(Subspace(5, 3), 40000, seeded()).mean == pytest.approx(math.sqrt(8 / math.pi), abs=0.015)


@pytest.mark.parametrize("radii", [[2.0], [1.0, 2, 3], [3.0, 3, 3], [1e-3, 5, 0], [1.0] * 300, [10.0] + [0.1] * 50])
def test_widths_of_ellipsoids(radii):
    body = Ellipsoid(torch.tensor(radii))
    estimate = gaussian_width(body, 20000, seeded(3))
    exact = body.exact_width()
    assert abs(exact - estimate.mean) < 4.5 * estimate.standard_error
    # By Jensen, and since the norm varies no more than its Lipschitz constant allows.
    size = math.sqrt(sum(r * r for r in radii))
    low = max(math.sqrt(2 / math.pi) * size, math.sqrt(size**2 - max(radii) ** 2))
    assert low <= exact * (1 + 1e-9) and exact <= size * (1 + 1e-9)
    assert Ellipsoid([7 * r for r in radii]).exact_width() == pytest.approx(7 * exact, rel=1e-9)
    if len(set(radii)) == 1:  # a ball: the mean of a chi variable
        d = len(radii)
        chi = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
        assert exact == pytest.approx(radii[0] * chi, rel=1e-8)


def test_ends_of_ellipsoids():
    assert Ellipsoid([1.0]).exact_width() == pytest.approx(math.sqrt(2 / math.pi))
    assert Ellipsoid([0.0, 0.0]).exact_width() == 0


def test_the_ellipsoid_of_a_sublevel_set():
    body = Ellipsoid.of_sublevel([4.0, 0.5], 0.5)
    torch.testing.assert_close(body.radii, torch.tensor([0.5, math.sqrt(2)], dtype=DOUBLE))
    for i, r in enumerate(body.radii):
        assert 0.5 * [4.0, 0.5][i] * float(r) ** 2 == pytest.approx(0.5)
    for spectrum in ([1.0, 0.0], [1.0, -2.0]):
        with pytest.raises(BadInput, match="positive eigenvalues"):
            Ellipsoid.of_sublevel(spectrum, 0.5)


def test_monte_carlo_is_seeded_leaves_the_global_state_and_does_not_depend_on_blocks(monkeypatch):
    before = torch.get_rng_state()
    one = monte_carlo(Orthant(6), 500, seeded(5))
    assert torch.equal(before, torch.get_rng_state())
    assert one == monte_carlo(Orthant(6), 500, seeded(5)) != monte_carlo(Orthant(6), 500, seeded(6))
    g = torch.randn(500, 6, generator=seeded(5), dtype=DOUBLE)
    squares = g.clamp(min=0).square().sum(1)
    assert one.mean == pytest.approx(float(squares.mean()))
    assert one.standard_error == pytest.approx(float(squares.std(correction=1)) / math.sqrt(500))
    monkeypatch.setattr("pruning_core.papers.how_sparse.geometry.widths.BLOCK", 64)  # 10 rows a block, 50 blocks
    blocks = monte_carlo(Orthant(6), 503, seeded(5))
    assert blocks.mean == pytest.approx(one.mean, abs=6 * one.standard_error) and blocks.mean != one.mean


# --- the normalised width


def slow_width(distance, eigenvalues, epsilon, weights, null, negative):
    """The sum, term by term, over semi-axes."""
    total, mass = 0.0, 0.0
    for value, weight in zip(eigenvalues, weights, strict=True):
        if value < 0 and negative == "drop":
            continue
        value = abs(value) if negative == "abs" else max(value, 0.0)
        squared = math.inf if value == 0 else 2 * epsilon / value
        total += weight * (1.0 if math.isinf(squared) or distance == 0 else squared / (distance**2 + squared))
        mass += weight
    return null + (1 - null) * total / mass


numbers = st.floats(-5, 5, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(numbers, st.floats(0.01, 3)), min_size=1, max_size=8),
    st.lists(st.floats(0, 50), min_size=1, max_size=4),
    st.floats(1e-3, 3),
    st.floats(0, 1),
    st.sampled_from(["abs", "zero", "drop"]),
)
def test_the_normalised_width_against_the_sum(pairs, distances, epsilon, null, negative):
    eigenvalues, weights = zip(*pairs, strict=True)
    if negative == "drop" and max(eigenvalues) < 0:
        with pytest.raises(BadInput, match="no eigenvalue is left"):
            normalised_width(1.0, eigenvalues, epsilon, weights, null, negative)
        return
    expected = [slow_width(r, eigenvalues, epsilon, weights, null, negative) for r in distances]
    found = normalised_width(torch.tensor(distances, dtype=DOUBLE), eigenvalues, epsilon, weights, null, negative)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    alone = [normalised_width(r, eigenvalues, epsilon, weights, null, negative) for r in distances]
    assert all(isinstance(value, float) for value in alone)
    np.testing.assert_allclose(alone, expected, rtol=1e-12)


def test_edges_of_the_normalised_width():
    assert normalised_width(0.0, [3.0, 1.0, 0.1], 0.1, [0.1, 0.3, 0.7]) == 1.0
    assert normalised_width(1e9, [0.0, 2.0], 0.1) == pytest.approx(0.5)
    assert normalised_width(3.0, [2.0], 0.1, null_fraction=1.0) == 1.0
    assert normalised_width(2.0, [0.5], 1.0) == pytest.approx(0.5)  # R = r: half
    assert normalised_width(2.0, [0.5, 99.0], 1.0, [3.0, 0.0]) == pytest.approx(0.5)
    found = normalised_width(np.array([[0.0, 1.0, 2.0]]), torch.tensor([[1.0], [2.0]]), 0.5)
    assert found.shape == (1, 3) and found[0, 0] == 1
    assert found[0, 1] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_blocks_of_the_normalised_width(monkeypatch):
    spectrum, distances = noise(50).abs(), noise(33, seed=1).abs() * 3
    whole = normalised_width(distances, spectrum, 0.2)
    monkeypatch.setattr("pruning_core.papers.how_sparse.geometry.kinematic.BLOCK", 160)
    torch.testing.assert_close(normalised_width(distances, spectrum, 0.2), whole, rtol=1e-13, atol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=9), st.floats(0, 20), st.floats(1e-3, 2))
def test_the_trace_bounds_what_must_be_kept(eigenvalues, distance, epsilon):
    bound = trace_bound(distance, float(np.mean(eigenvalues)), epsilon)
    assert 1 - normalised_width(distance, eigenvalues, epsilon) <= bound + 1e-12
    equal = [float(np.mean(eigenvalues))] * len(eigenvalues)
    assert 1 - normalised_width(distance, equal, epsilon) == pytest.approx(bound, abs=1e-12)


# --- the kinematic formula


def test_the_window():
    assert window(400, 0.01) == pytest.approx(math.sqrt(8 * math.log(400)) * 20)
    assert window(3_900_000, 0.01) / 3_900_000 == pytest.approx(0.0035, abs=5e-5)


def test_verdicts():
    d, eta = 1000, 0.05
    half = window(d, eta)
    assert kinematic(400, 600 - half - 1e-6, d, eta).verdict == "miss"
    assert kinematic(400, 600 - half + 1e-3, d, eta).verdict == "undecided"
    assert kinematic(400, 600 + half - 1e-3, d, eta).verdict == "undecided"
    assert kinematic(400, 600 + half + 1e-6, d, eta).verdict == "meet"
    # The bounds are those of the verdict, solved for the probability.
    assert kinematic(400, 600 - half, d, eta)[1:] == pytest.approx((0, eta))
    assert kinematic(400, 600 + half, d, eta)[1:] == pytest.approx((1 - eta, 1))
    assert kinematic(400, 600, d, eta) == ("undecided", 0, 1)
    assert kinematic(200, 600, d, eta)[1:] == pytest.approx((0, 4 * math.exp(-5)))
    assert kinematic(600, 600, d, eta)[1:] == pytest.approx((1 - 4 * math.exp(-5), 1))


def test_the_bounds_of_the_limit():
    spectrum, weights = [0.5, 2.0, -1.0], [1.0, 2.0, 3.0]
    share = slow_width(2.0, spectrum, 0.3, weights, 0.2, "zero")
    found = limit_bounds(2.0, spectrum, 0.3, 10_000, 0.05, weights, 0.2, "zero")
    assert found.predicted == pytest.approx(10_000 * (1 - share))
    assert found.window == pytest.approx(window(10_000, 0.05))
    assert found.impossible_below == pytest.approx(found.predicted - found.window)
    assert found.possible_above == pytest.approx(found.predicted + found.window)
    assert limit_bounds(0.0, spectrum, 0.3, 100)[:3] == pytest.approx((0, window(100, 0.01), 0))
    assert limit_bounds(1e9, [1.0], 0.3, 100)[:3] == pytest.approx((100 - window(100, 0.01), 100, 100))
    assert limit_bounds(1e9, [1.0], 0.3, 2)[:3] == pytest.approx((0, 2, 2))


# --- bad input

BAD = {
    "must be at least 1": [lambda: Orthant(0), lambda: window(0, 0.1), lambda: kinematic(0, 0, 0)],
    "must be at least 2": [lambda: CircularCone(1, 0.3), lambda: monte_carlo(Ray(3), 1, seeded())],
    "must be between 0 and 3": [
        lambda: Subspace(3, -1),
        lambda: L1DescentCone(3, -1),
        lambda: Subspace(3, 4),
        lambda: L1DescentCone(3, 4),
    ],
    "angle must": [lambda: CircularCone(3, -0.1), lambda: CircularCone(3, 1.6), lambda: CircularCone(3, math.nan)],
    "points must have shape": [lambda: Ray(3).project(torch.zeros(3)), lambda: Ray(3).project(torch.zeros(2, 4))],
    "points must be finite": [lambda: Ray(2).project([[1.0, math.inf]])],
    "points is empty": [lambda: Ray(3).project(torch.zeros(0, 3))],
    "radii must": [lambda: Ellipsoid([1.0, -1.0]), lambda: Ellipsoid([[1.0]]), lambda: Ellipsoid([math.inf])],
    "epsilon must": [
        lambda: normalised_width(1.0, [1.0], 0),
        lambda: normalised_width(1.0, [1.0], math.inf),
        lambda: trace_bound(1.0, 1.0, -1),
        lambda: Ellipsoid.of_sublevel([1.0], 0),
    ],
    "distance must": [
        lambda: normalised_width(-1.0, [1.0], 0.1),
        lambda: normalised_width([1.0, math.nan], [1.0], 0.1),
        lambda: trace_bound(-1.0, 1.0, 0.1),
        lambda: limit_bounds(-1.0, [1.0], 0.1, 10),
    ],
    "eigenvalues": [
        lambda: normalised_width(1.0, [math.nan], 0.1),
        lambda: normalised_width(1.0, [], 0.1),
        lambda: normalised_width(1.0, [1.0, 2.0], 0.1, [1.0]),
    ],
    "weights of eigenvalues": [lambda: normalised_width(1.0, [1.0, 2.0], 0.1, [1.0, -0.5])],
    "no eigenvalue is left": [
        lambda: normalised_width(1.0, [1.0], 0.1, [0.0]),
        lambda: normalised_width(1.0, [-1.0], 0.1, negative="drop"),
    ],
    "null_fraction must": [lambda: normalised_width(1.0, [1.0], 0.1, None, -0.1)]
    + [lambda: normalised_width(1.0, [1.0], 0.1, None, 1.1)],
    "mean_eigenvalue must": [lambda: trace_bound(1.0, -1.0, 0.1)],
    "eta must": [lambda: window(10, 0.0), lambda: window(10, 1.0), lambda: kinematic(1, 1, 10, 2.0)],
    r"delta_c must lie in \[0, 10\]": [lambda: kinematic(-1, 1, 10), lambda: kinematic(11, 1, 10)],
    r"delta_k must lie in \[0, 10\]": [lambda: kinematic(1, -1, 10), lambda: kinematic(1, 11, 10)],
}  # fmt: skip


@pytest.mark.parametrize(("message", "call"), [(m, c) for m, calls in BAD.items() for c in calls])
def test_bad_input(message, call):
    with pytest.raises(BadInput, match=message):
        call()


WRONG = {
    "whole number": [lambda: Orthant(2.0), lambda: Subspace(3, True), lambda: window(2.5, 0.1)],
    "Generator": [lambda: monte_carlo(Ray(3), 5, None), lambda: gaussian_width(Ray(3), 5, 0)],
    "a cone is needed": [lambda: monte_carlo(Ellipsoid([1.0]), 5, seeded())],
    "a cone or an ellipsoid": [lambda: gaussian_width(3, 5, seeded())],
    "numbers": [
        lambda: normalised_width(1.0, "spectrum", 0.1),
        lambda: normalised_width(1.0, None, 0.1),
        lambda: normalised_width(1.0, [[1.0], [1.0, 2.0]], 0.1),
        lambda: normalised_width(1.0, np.array([True]), 0.1),
    ],
    "real numbers": [
        lambda: normalised_width(1.0, torch.tensor([True]), 0.1),
        lambda: normalised_width(1.0, torch.ones(2, dtype=torch.complex64), 0.1),
    ],
    "epsilon must be a number": [
        lambda: normalised_width(1.0, [1.0], [0.1, 0.2]),
        lambda: normalised_width(1.0, [1.0], "0.1"),
    ],
}


@pytest.mark.parametrize(("message", "call"), [(m, c) for m, calls in WRONG.items() for c in calls])
def test_wrong_types(message, call):
    with pytest.raises(BadType, match=message):
        call()


def test_an_unknown_treatment_of_negative_eigenvalues():
    with pytest.raises(UnknownName, match="'abs'"):
        normalised_width(1.0, [1.0], 0.1, negative="absolute")


def test_what_numbers_may_come_as():
    expected = normalised_width(2.0, [0.5, 0.25], 0.1)
    for kind in (np.array([0.5, 0.25], dtype=np.float32), torch.tensor([0.5, 0.25], requires_grad=True), (0.5, 0.25)):
        assert normalised_width(np.float64(2), kind, torch.tensor(0.1, dtype=DOUBLE)) == expected
    assert normalised_width(2, [0.1], 0.1) == normalised_width(2.0, torch.tensor([0.1], dtype=DOUBLE), 0.1)
