"""Simulations against the same experiment done the long way, exact laws, and the predicted curves."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest

from pruning_core.errors import BadInput, BadType, PruningError
from pruning_core.papers.how_sparse.geometry.cones import CircularCone, L1DescentCone
from pruning_core.papers.how_sparse.transitions import (
    _lowest,
    basis_pursuit,
    circular_cone,
    ellipsoid,
    l1_recovery,
    log_uniform,
    meeting_probability,
    transitions,
)
from tests.papers.how_sparse.draws import DOUBLE, noise, seeded


def quiet(simulate, *arguments, **options) -> pd.DataFrame:
    return simulate(*arguments, progress=False, **options)


# --- circular cones


def test_circular_cones_follow_the_exact_law():
    rows = quiet(circular_cone, 30, [0.4, 0.9], trials=2000)
    assert list(rows) == [
        "simulation",
        "ambient",
        "angle",
        "k",
        "trials",
        "successes",
        "probability",
        "predicted",
        "seed",
    ]
    assert len(rows) == 2 * 31 and set(rows.trials) == {2000} and set(rows.seed) == {0}
    for row in rows.itertuples():
        spread = math.sqrt(row.probability * (1 - row.probability) / 2000)
        assert abs(row.successes / 2000 - row.probability) <= 4.5 * spread + 1e-12
        assert row.predicted == pytest.approx(30 - CircularCone(30, row.angle).statistical_dimension())
    ends = rows[(rows.k == 0) | (rows.k == 30)]
    assert list(ends.successes) == [0, 2000, 0, 2000]


def test_the_exact_law_against_subspaces_that_are_really_turned():
    ambient, k, angle, trials = 12, 5, 0.9, 3000
    basis = torch.linalg.qr(noise(trials, ambient, k)).Q
    cosine = basis[:, 0].norm(dim=1)  # of the angle between the first axis and the subspace
    share = float((cosine >= math.cos(angle)).double().mean())
    exact = meeting_probability(CircularCone(ambient, angle), k)
    assert 0.1 < exact < 0.9 and abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / trials)


def test_circular_cones_at_the_ends():
    """The ray is met by the whole space only, the half space by every subspace but the origin."""
    rows = quiet(circular_cone, 6, [0.0, math.pi / 2], trials=50)
    assert list(rows[rows.angle == 0].successes) == [0, 0, 0, 0, 0, 0, 50]
    assert list(rows[rows.angle > 0].successes) == [0, 50, 50, 50, 50, 50, 50]
    np.testing.assert_allclose(rows.probability, rows.successes / 50, atol=1e-12)


def test_the_prediction_is_near_the_exact_half_point():
    for angle in (0.3, 0.7, 1.1):
        cone = CircularCone(200, angle)
        predicted = 200 - cone.statistical_dimension()
        exact = next(k for k in range(201) if meeting_probability(cone, k) >= 0.5)
        assert abs(exact - predicted) < 2


# --- ellipsoids


def test_the_lowest_value_on_a_subspace_against_elimination():
    """The long way: a basis B of the kernel, and the k x k equations B' H B c = B' H u."""
    d, trials = 9, 4
    spectrum = log_uniform(d, 1e-2, 5.0)
    found = _lowest(spectrum, d, trials, seeded(3))
    assert found.shape == (trials, d + 1)
    generator = seeded(3)  # the same draws, in the same order
    directions = torch.randn(trials, d, 1, generator=generator, dtype=DOUBLE)[..., 0]
    normals = torch.randn(trials, d, d, generator=generator, dtype=DOUBLE)
    h = torch.diag(spectrum)
    for t in range(trials):
        u = directions[t] / directions[t].norm()
        for m in range(d + 1):
            basis = (
                torch.linalg.svd(normals[t, :, :m].T, full_matrices=True).Vh[m:].T if m else torch.eye(d, dtype=DOUBLE)
            )
            x = basis @ torch.linalg.solve(basis.T @ h @ basis, basis.T @ h @ u)
            assert float(found[t, m]) == pytest.approx(float((x - u) @ h @ (x - u)) / 2, rel=1e-7, abs=1e-12)


def test_ellipsoids_seen_from_a_distance():
    spectrum = log_uniform(20)
    rows = quiet(ellipsoid, spectrum, [0.1, 1.0], [3.0, 6.0], trials=300, seed=4)
    assert list(rows) == [
        "simulation",
        "ambient",
        "distance",
        "epsilon",
        "k",
        "trials",
        "successes",
        "predicted",
        "seed",
    ]
    assert len(rows) == 4 * 21
    for (distance, epsilon), cells in rows.groupby(["distance", "epsilon"]):
        squares = 2 * epsilon / spectrum
        assert cells.predicted.iloc[0] == pytest.approx(20 - float((squares / (distance**2 + squares)).sum()))
        assert cells.successes.is_monotonic_increasing and cells.successes.iloc[-1] == 300
    # At k = 0 the origin itself must lie inside: u' H u R^2 / 2 <= epsilon for a random direction u.
    u = noise(100_000, 20)
    u /= u.norm(dim=1, keepdim=True)
    for distance, epsilon in [(3.0, 1.0), (3.0, 0.1)]:
        share = float(((u.square() @ spectrum) * distance**2 / 2 <= epsilon).double().mean())
        cell = rows[(rows.k == 0) & (rows.distance == distance) & (rows.epsilon == epsilon)]
        assert abs(int(cell.successes.iloc[0]) / 300 - share) < 4 * math.sqrt(max(share, 0.003) / 300)
    near = quiet(ellipsoid, spectrum, [1.0], [0.3], [0, 20], trials=50)
    assert list(near.successes) == [50, 50]  # the origin always lies inside, since 0.3^2 * 10 / 2 < 1
    # A larger distance and a smaller epsilon are the same thing: R^2 / epsilon decides.
    scaled = quiet(ellipsoid, spectrum, [4.0], [12.0], trials=300, seed=4)
    same = quiet(ellipsoid, spectrum, [1.0], [6.0], trials=300, seed=4)
    assert list(scaled.successes) == list(same.successes)
    assert list(scaled.predicted) == pytest.approx(list(same.predicted))


def test_sizes_do_not_change_what_is_predicted_and_batches_not_the_law(monkeypatch):
    rows = quiet(ellipsoid, log_uniform(24), [0.5], sizes=[18, 12, 18], trials=400)
    assert list(rows.k) == [12, 18]
    whole = quiet(ellipsoid, log_uniform(24), [0.5], trials=400, seed=1)
    for row in rows.itertuples():
        other = int(whole[whole.k == row.k].successes.iloc[0])
        assert abs(row.successes - other) < 4.5 * math.sqrt(2 * 400) / 2
        assert row.predicted == whole.predicted.iloc[0]
    monkeypatch.setattr(sys.modules[ellipsoid.__module__], "BLOCK", 24 * 12 * 7)  # 58 batches, the last of one trial
    batches = quiet(ellipsoid, log_uniform(24), [0.5], sizes=[12, 18], trials=400)
    assert (batches.trials == 400).all()
    assert (np.abs(batches.successes - rows.successes) < 4.5 * math.sqrt(2 * 400) / 2).all()
    assert list(quiet(ellipsoid, [1.0, 2.0], [0.1], sizes=[2], trials=3).successes) == [3]


@pytest.mark.parametrize("ambient", [60, 120])
def test_the_ellipsoid_jumps_a_little_below_the_prediction(ambient):
    """The acceptance band: at most 0.08 D below, never above; the window narrower than 0.2 D at 120."""
    found = transitions(quiet(ellipsoid, log_uniform(ambient), [0.05, 0.5, 2.0], trials=400, seed=1))
    assert ((found.difference < 0) & (found.difference >= -0.08)).all()
    assert found.difference.is_monotonic_decreasing  # worse for a larger epsilon
    assert (found.low < found.middle).all() and (found.middle < found.high).all()
    assert ((found.high - found.low) / ambient < (0.35 if ambient == 60 else 0.2)).all()


# --- recovery


def test_basis_pursuit():
    sensing = torch.tensor([[2.0, 1.0, 1.0]], dtype=DOUBLE)
    torch.testing.assert_close(basis_pursuit(sensing, torch.tensor([-3.0], dtype=DOUBLE))[0].item(), -1.5)
    a, x = noise(12, 20), torch.zeros(20, dtype=DOUBLE)
    x[[3, 11]] = torch.tensor([1.0, -4.0], dtype=DOUBLE)
    torch.testing.assert_close(basis_pursuit(a, a @ x), x, atol=1e-9, rtol=0)
    found = basis_pursuit(noise(5, 20, seed=1), noise(5, seed=2))
    torch.testing.assert_close(noise(5, 20, seed=1) @ found, noise(5, seed=2), atol=1e-8, rtol=0)
    with pytest.raises(PruningError, match="not solved"):
        basis_pursuit(torch.zeros(1, 3, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE))


def test_recovery_by_bisection_equals_trying_every_number():
    ambient, nonzero, trials = 16, 3, 6
    rows = quiet(l1_recovery, ambient, [nonzero], range(1, 17), trials=trials, seed=2)
    assert list(rows) == [
        "simulation",
        "ambient",
        "nonzero",
        "measurements",
        "trials",
        "successes",
        "predicted",
        "seed",
    ]
    generator = seeded(2)
    successes = np.zeros(ambient, dtype=int)
    for _ in range(trials):
        x = torch.zeros(ambient, dtype=DOUBLE)
        x[:nonzero] = torch.randn(nonzero, generator=generator, dtype=DOUBLE)
        a = torch.randn(ambient, ambient, generator=generator, dtype=DOUBLE)
        for m in range(1, ambient + 1):
            successes[m - 1] += bool((basis_pursuit(a[:m], a[:m] @ x) - x).norm() < 1e-4 * x.norm())
    assert list(rows.successes) == list(successes)
    assert list(rows.measurements) == list(range(1, 17))
    assert rows.predicted.iloc[0] == pytest.approx(L1DescentCone(16, 3).statistical_dimension())


def test_recovery_near_the_predicted_curve():
    rows = quiet(l1_recovery, 60, [3, 12, 30], trials=12, seed=1)
    found = transitions(rows)
    assert list(found.nonzero) == [3, 12, 30]
    assert (found.difference.abs() < 0.06).all()
    assert (rows.groupby("nonzero").measurements.max() >= 58).all()
    none = quiet(l1_recovery, 10, [10], [9, 10], trials=5)
    assert list(none.successes) == [0, 5]  # nothing is sparse about it: every entry must be measured
    loose = quiet(l1_recovery, 10, [10], [9], trials=5, tolerance=10.0)
    assert list(loose.successes) == [5]


# --- where the jump is


def table(fractions, sizes=None, **more) -> pd.DataFrame:
    sizes = list(range(len(fractions))) if sizes is None else sizes
    about = {"simulation": "x", "ambient": 10, "predicted": 2.0, "seed": 0, "trials": 20} | more
    return pd.DataFrame([about | {"k": k, "successes": round(20 * f)} for k, f in zip(sizes, fractions, strict=True)])


def test_transitions_by_hand():
    found = transitions(pd.concat([table([0, 0.2, 0.4, 0.8, 1], angle=0.1), table([0, 1], [0, 10], angle=0.2)]))
    assert list(found.angle) == [0.1, 0.2]
    np.testing.assert_allclose(found.low, [0.5, 1.0])
    np.testing.assert_allclose(found.middle, [2.25, 5.0])
    np.testing.assert_allclose(found.high, [3.5, 9.0])
    np.testing.assert_allclose(found.difference, [0.025, 0.3])
    shuffled = transitions(table([0.8, 0, 1, 0.4, 0.2], [3, 0, 4, 2, 1]))
    np.testing.assert_allclose(shuffled.middle, [2.25])


def test_transitions_that_are_not_bracketed_are_nan():
    found = transitions(table([0.3, 0.4, 0.6]))
    assert math.isnan(found.low[0]) and math.isnan(found.high[0]) and found.middle[0] == pytest.approx(1.5)
    assert math.isnan(transitions(table([0.6, 1])).middle[0])


# --- all of them


SIMULATIONS = [
    (circular_cone, (8, [0.4, 0.9])),
    (ellipsoid, (log_uniform(8), [0.1, 1.0], [2.0, 4.0])),
    (l1_recovery, (8, [2, 3])),
]


@pytest.mark.parametrize(("simulate", "arguments"), SIMULATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_seeds_and_the_global_random_state(simulate, arguments, capsys):
    before = torch.get_rng_state()
    one = quiet(simulate, *arguments, trials=9, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    pd.testing.assert_frame_equal(one, quiet(simulate, *arguments, trials=9, seed=3))
    assert list(one.successes) != list(quiet(simulate, *arguments, trials=9, seed=4).successes)
    assert set(one.seed) == {3} and ((one.successes >= 0) & (one.successes <= one.trials)).all()
    assert capsys.readouterr().err == ""
    found = transitions(one)
    setting = {"angle": 2, "epsilon": 4, "nonzero": 2}
    assert len(found) == next(n for name, n in setting.items() if name in found)
    assert np.ndim(one.successes.iloc[0]) == 0 and one.successes.dtype.kind == "i"


def test_numpy_sizes_and_log_uniform():
    rows = quiet(circular_cone, 8, np.array([0.5]), np.arange(2, 9, 2), trials=2)
    assert list(rows.k) == [2, 4, 6, 8]
    spectrum = log_uniform(5)
    torch.testing.assert_close(spectrum, torch.tensor([1e-3, 1e-2, 1e-1, 1.0, 10.0], dtype=DOUBLE))
    assert log_uniform(1, 2.0, 2.0).tolist() == pytest.approx([2.0])
    u = (log_uniform(400).log10().numpy() + 3) / 4
    assert kstest(u, "uniform").statistic < 0.01


BAD = {
    "ambient must be at least 2": [lambda: circular_cone(1, [0.3])],
    "ambient must be at least 1": [lambda: l1_recovery(0, [1]), lambda: log_uniform(0)],
    "angle must": [lambda: circular_cone(5, [2.0])],
    "angles must have a length of at least 1": [lambda: circular_cone(5, [])],
    "each of sizes must be between 0 and 5": [
        lambda: circular_cone(5, [0.3], [6]),
        lambda: circular_cone(5, [0.3], [-1]),
    ],
    "trials must be": [
        lambda: circular_cone(5, [0.3], trials=0),
        lambda: ellipsoid([1.0], [0.1], trials=0),
        lambda: l1_recovery(5, [1], trials=0),
    ],
    "seed must": [lambda: circular_cone(5, [0.3], seed=-1)],
    "vector of positive numbers": [lambda: ellipsoid([1.0, 0.0], [0.1]), lambda: ellipsoid([[1.0]], [0.1])],
    "each of epsilons must": [lambda: ellipsoid([1.0], [0.0])],
    "each of distances must": [lambda: ellipsoid([1.0], [0.1], [-1.0])],
    "distances must have a length of at least 1": [lambda: ellipsoid([1.0], [0.1], [])],
    "epsilons must have a length of at least 1": [lambda: ellipsoid([1.0], [])],
    "sizes must have a length of at least 1": [lambda: ellipsoid([1.0] * 5, [0.1], sizes=[])],
    "nonzeros must have a length of at least 1": [lambda: l1_recovery(5, [])],
    "each of nonzeros must be between 1 and 5": [lambda: l1_recovery(5, [6]), lambda: l1_recovery(5, [0])],
    "each of measurements must be between 1 and 5": [
        lambda: l1_recovery(5, [1], [0]),
        lambda: l1_recovery(5, [1], [6]),
    ],
    "tolerance must": [lambda: l1_recovery(5, [1], tolerance=0.0)],
    "k must be between 0 and 5": [lambda: meeting_probability(CircularCone(5, 0.3), 6)]
    + [lambda: meeting_probability(CircularCone(5, 0.3), -1)],
    "high must": [lambda: log_uniform(3, 2.0, 1.0)],
    "low must": [lambda: log_uniform(3, 0.0, 1.0)],
    "rows of": [lambda: transitions(pd.DataFrame({"k": [1]})), lambda: transitions(pd.DataFrame())],
}


@pytest.mark.parametrize(("message", "call"), [(m, c) for m, calls in BAD.items() for c in calls])
def test_bad_input(message, call):
    with pytest.raises(BadInput, match=message):
        call()


def test_wrong_types():
    for call in (lambda: circular_cone(5, [0.3], [1.5]), lambda: l1_recovery(5, [1.0]), lambda: ellipsoid("x", [0.1])):
        with pytest.raises(BadType, match="must be"):
            call()
    for call in (lambda: circular_cone(5, 0.3), lambda: l1_recovery(5, 1), lambda: ellipsoid([1.0], 0.1)):
        with pytest.raises(BadType, match="collection"):
            call()
    with pytest.raises(BadType, match="DataFrame"):
        transitions([])
