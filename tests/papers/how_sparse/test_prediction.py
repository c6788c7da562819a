"""The predicted limit against trying every number of weights, the official rules against loops, measured limits by hand."""

import itertools
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.masks.masks import Masks
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.prediction import actual_limits, magnitude_distance, predict, total_variation
from pruning_core.papers.how_sparse.reference import (
    reference_actual,
    reference_magnitude_mask,
    reference_predict,
    reference_widths,
)
from tests.papers.how_sparse.draws import DOUBLE, noise, seeded


def slow_distance(weights, n: int) -> float:
    return math.sqrt(sum(sorted(float(w) ** 2 for w in weights)[:n]))


def slow_width(distance, spectra, weights, epsilon, null=0.0, negative="abs") -> float:
    """The mean over probes of the sum over semi-axes."""
    found = []
    for values, shares in zip(spectra, weights, strict=True):
        total, mass = 0.0, 0.0
        for value, share in zip(values, shares, strict=True):
            if value < 0 and negative == "drop":
                continue
            size = abs(float(value)) if negative == "abs" else max(float(value), 0.0)
            total += float(share) * 2 * epsilon / (distance**2 * size + 2 * epsilon)
            mass += float(share)
        found.append(total / mass)
    return null + (1 - null) * sum(found) / len(found)


def slow_limit(weights, spectra, shares, epsilon, dimension=None, **options) -> int:
    """Every number of weights, one after the other."""
    size = dimension or len(weights)
    good = [
        n
        for n in range(len(weights) + 1)
        if n / size <= slow_width(slow_distance(weights, n), spectra, shares, epsilon, **options) + 1e-14
    ]
    assert good == list(range(len(good)))  # one crossing
    return good[-1]


# --- distances


def test_distances_of_magnitude_pruning():
    found = magnitude_distance(torch.tensor([3.0, -1.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([0, 1, 5, 14], dtype=DOUBLE).sqrt())
    weights = noise(37)
    parts = {"a": weights[:20].view(4, 5), "b": weights[20:].float().double()}
    for given_as in (
        parts,
        list(parts.values()),
        (w for w in parts.values()),
        torch.cat([w.flatten() for w in parts.values()]),
    ):
        found = magnitude_distance(given_as)
        for n in range(38):
            assert float(found[n]) == pytest.approx(slow_distance(weights, n), rel=1e-6, abs=1e-12)
    assert float(magnitude_distance(weights)[-1]) == pytest.approx(float(weights.norm()))
    assert magnitude_distance(nn.Parameter(torch.ones(2, dtype=torch.float16))).dtype == DOUBLE


# --- prediction


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-2, 2).map(lambda x: round(x, 2)), min_size=1, max_size=25),
    st.integers(1, 4),
    st.integers(1, 5),
    st.floats(1e-4, 2),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from(["abs", "zero", "drop"]),
    st.integers(0, 1000),
)
def test_predictions_against_trying_every_number(weights, probes, m, epsilon, null, negative, seed):
    spectra = noise(probes, m, seed=seed).abs() ** 3
    spectra[:, 1:] *= torch.where(noise(probes, m - 1, seed=seed + 1) > -0.5, 1.0, -1.0)
    shares = noise(probes, m, seed=seed + 2).abs() + 0.01
    found = predict(
        spectra,
        shares,
        epsilon,
        torch.tensor(weights, dtype=DOUBLE),
        null_fraction=null,
        negative=negative,
        resamples=5,
    )
    expected = slow_limit(weights, spectra, shares, epsilon, null=null, negative=negative)
    n = len(weights)
    assert found.removed == expected / n and found.kept == (n - expected) / n
    assert found.distance == pytest.approx(slow_distance(weights, expected), abs=1e-12)
    assert (found.epsilon, found.null_fraction) == (epsilon, null)
    alone = [
        slow_limit(weights, spectra[[i]], shares[[i]], epsilon, null=null, negative=negative) for i in range(probes)
    ]
    if probes == 1:
        assert (found.removed_low, found.removed_high, found.band) == (None, None, "none")
    else:
        assert (found.removed_low, found.removed_high, found.band) == (min(alone) / n, max(alone) / n, "range")
        assert found.removed_low <= found.removed <= found.removed_high


def test_exact_eigenvalues_count_equally():
    weights, spectrum = noise(40), noise(40, seed=1).square()
    found = predict(spectrum, None, 0.1, weights)
    assert found.removed == slow_limit(weights, [spectrum], [torch.ones(40)], 0.1) / 40
    assert found.band == "none"
    one = predict(spectrum, torch.full((40,), 3.0), 0.1, weights)  # one probe, any scale of weights
    assert one.removed == found.removed
    assert 0.2 < found.removed < 0.8


def test_one_equation_by_hand():
    """One eigenvalue and equal weights: n / N = 2 e / (n w^2 l + 2 e), a quadratic equation in n."""
    n, w, curvature, e = 1000, 0.1, 3.0, 0.5
    bend = w * w * curvature
    root = (-2 * e + math.sqrt(4 * e * e + 4 * bend * 2 * e * n)) / (2 * bend)
    found = predict([curvature], [1.0], e, torch.full((n,), w))
    assert found.removed == math.floor(root) / n
    assert found.distance == pytest.approx(w * math.sqrt(math.floor(root)), rel=1e-6)


def test_fractions_are_compared_in_double_precision():
    """1/3 lies between 0.33333333 and its float32 neighbour above; G at 1000 of 3000 weights is put just above 1/3."""
    for beyond, expected in ((1e-9, 1000), (-1e-9, 999)):
        width = 1 / 3 + beyond
        assert predict([1.0], None, 1000 * width / (1 - width) / 2, torch.ones(3000)).removed == expected / 3000


def test_more_coordinates_than_weights():
    weights, spectrum, shares = noise(30), noise(1, 8, seed=1).square(), torch.ones(1, 8)
    for dimension in (30, 31, 45, 300):
        found = predict(spectrum, shares, 0.02, weights, dimension=dimension)
        assert found.removed == slow_limit(weights, spectrum, shares, 0.02, dimension=dimension) / 30
    assert predict(spectrum, shares, 0.02, weights, dimension=10**9).removed == 1.0  # 30 weights are nothing
    assert predict(spectrum, shares, 0.02, weights).removed < found.removed


def test_ends():
    flat = predict([0.0, 0.0], None, 0.1, noise(5))
    assert (flat.removed, flat.kept) == (1.0, 0.0)
    gone = predict([5.0], None, 0.1, torch.zeros(7))
    assert (gone.removed, gone.distance) == (1.0, 0.0)
    steep = predict([1e12], None, 1e-6, torch.ones(7))
    assert (steep.removed, steep.kept, steep.distance) == (0.0, 1.0, 0.0)
    half = predict([1e12], None, 1e-6, torch.tensor([0.0, 0.0, 1.0, 1.0]))  # what is zero can always go
    assert half.removed == 0.5
    assert predict([-1e12, 0.0], None, 1e-6, torch.ones(9), negative="drop").removed == 1.0


def test_three_equal_probes_with_weights_that_do_not_sum_to_one_exactly():
    """At R = 0 every probe gives 1, and thirds of it may add up to a little less."""
    for probes in range(2, 30):
        found = predict(torch.ones(probes, 1), torch.full((probes, 1), 0.1), 1.0, torch.zeros(3), resamples=20)
        assert (found.removed, found.removed_low, found.removed_high) == (1.0, 1.0, 1.0)


def test_what_moves_the_limit():
    weights, spectrum = noise(500), noise(60, seed=1).square()
    removed = [predict(spectrum, None, e, weights).removed for e in (1e-3, 1e-2, 1e-1, 1.0)]
    assert all(a < b for a, b in itertools.pairwise(removed))
    scaled = [predict(spectrum, None, 0.1, weights * c).removed for c in (1, 2, 3, 4, 5)]
    assert all(a > b for a, b in itertools.pairwise(scaled))
    assert predict(spectrum * 4, None, 0.1, weights).removed == pytest.approx(scaled[1], abs=0.003)
    nulls = [predict(spectrum, None, 0.1, weights, null_fraction=z).removed for z in (0, 0.2, 0.6)]
    assert nulls[0] < nulls[1] < nulls[2] and nulls[2] >= 0.6


def test_the_bootstrap_over_probes():
    probes = 12
    spectra = noise(probes, 6).square() * torch.linspace(0.5, 2, probes)[:, None]
    shares, weights = torch.ones(probes, 6), noise(200, seed=1)
    before = torch.get_rng_state()
    found = predict(spectra, shares, 0.05, weights, resamples=40, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert found.band == "bootstrap"
    assert found == predict(spectra, shares, 0.05, weights, resamples=40, seed=5)
    drawn = torch.randint(probes, (40, probes), generator=seeded(5))
    limits = [predict(spectra[rows], shares, 0.05, weights, resamples=1).removed for rows in drawn]
    low, high = np.quantile(limits, [0.025, 0.975])
    assert (found.removed_low, found.removed_high) == pytest.approx((low, high), abs=1e-9)
    assert low < found.removed < high
    other = predict(spectra, shares, 0.05, weights, resamples=3, seed=6)
    assert (other.removed_low, other.removed_high) != (found.removed_low, found.removed_high)
    assert predict(spectra[:9], shares[:9], 0.05, weights).band == "range"
    assert predict(spectra[:10], shares[:10], 0.05, weights).band == "bootstrap"


def test_curves_and_the_value():
    weights, spectra, shares = noise(50), noise(3, 8, seed=1), torch.ones(3, 8)
    limit = predict(spectra, shares, 0.05, weights, null_fraction=0.1, negative="zero")
    curve = limit.curve()
    assert list(curve) == ["p", "R", "G"] and len(curve) == 51
    np.testing.assert_allclose(curve.p, np.arange(51) / 50)
    for row in curve.iloc[::7].itertuples():
        assert slow_distance(weights, row.Index) == pytest.approx(row.R, abs=1e-12)
        assert slow_width(row.R, spectra, shares, 0.05, 0.1, "zero") == pytest.approx(row.G)
    below = curve[curve.p <= curve.G]
    assert below.p.max() == limit.removed
    few = limit.curve(6)
    assert list(few.p) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and list(few.R) == list(curve.R[::10])
    assert "tensor" not in repr(limit)
    with pytest.raises(FrozenInstanceError):
        limit.removed = 0.0
    with pytest.raises(BadInput, match="points must be at least 2"):
        limit.curve(1)


# --- what was measured


def test_measured_limits_by_hand():
    p = [0.0, 0.2, 0.4, 0.6, 0.8]
    found = actual_limits(p, [90.0, 91.0, 90.0, 89.0, 50.0], [0.1, 0.11, 0.15, 0.151, 2.0], epsilon=0.05)
    assert found == (0.2, 0.6, 0.4)
    assert actual_limits(p, [90.0, 90.0, 80.0, 90.0, 10.0], margin=0.0) == (None, 0.6, None)
    assert actual_limits(p, [90.0, 90.0, 80.0, 90.0, 10.0], [0.0] * 5) == (None, 0.6, None)  # no epsilon, no limit
    assert actual_limits(p, [90.0] * 5, epsilon=1.0).within_epsilon is None  # no losses
    order = [3, 0, 4, 2, 1]
    shuffled = actual_limits(
        np.array(p)[order],
        np.array([90.0, 91, 90, 89, 50])[order],
        np.array([0.1, 0.11, 0.15, 0.151, 2])[order],
        epsilon=0.05,
    )
    assert shuffled == found
    given = actual_limits(p, [90.0] * 5, [1.0] * 5, epsilon=0.5, base_accuracy=95.0, base_loss=0.4)
    assert given == (None, None, None)
    better = actual_limits(p, [90.0] * 5, [1.0] * 5, epsilon=0.5, base_accuracy=89.0, base_loss=0.5)
    assert better == (0.8, 0.8, 0.8)
    assert actual_limits([0.0], [50.0]) == (None, 0.0, None)


def test_the_official_measured_limit():
    assert reference_actual([80.0, 81.0, 79.0, 80.5, 80.0]) == 3 / 5
    assert reference_actual([80.0, 80.0, 79.0]) is None
    assert reference_actual([80.0]) is None


def test_total_variation():
    a = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert total_variation(a, torch.tensor([0.0, 1.0]), bins=2) == 0
    assert total_variation(a, torch.tensor([0.0, 1.0, 1.0, 1.0]), bins=2) == 0.25
    assert total_variation(a, a + 5) == 1.0
    assert total_variation(torch.zeros(3), torch.zeros(8)) == 0
    x, y = noise(50, 3), noise(700, seed=1) * 1.5
    edges = np.linspace(float(min(x.min(), y.min())), float(max(x.max(), y.max())), 31)
    p, q = (np.histogram(v.numpy(), edges)[0] / v.numel() for v in (x, y))
    assert total_variation(x, y, bins=30) == pytest.approx(np.abs(p - q).sum() / 2) == total_variation(y, x, bins=30)


# --- the official code


def test_official_widths_and_prediction():
    grid, density = np.linspace(-0.4, 3.0, 50), np.abs(noise(50).numpy())
    density[::5] = 0
    z, epsilon, mass = 0.19, 0.02, density.sum()
    points, masses = np.append(grid, 1e-30), np.append(density, z / (1 - z) * mass)

    def width(r):
        return float(
            (masses * (2 * epsilon / np.abs(points)) / (r**2 + 2 * epsilon / np.abs(points))).sum() / masses.sum()
        )

    np.testing.assert_allclose(
        reference_widths([0, 1, 2, 7], grid, density, epsilon, z), [width(r) for r in (0, 1, 2, 7)], rtol=1e-12
    )
    distances = torch.linspace(0, 4.2, 43).double()
    assert float(distances[5]) == pytest.approx(0.5) and float(distances[15]) == pytest.approx(1.5)
    distances[[5, 15, 25]] = torch.tensor([0.5, 1.5, 2.5], dtype=DOUBLE)  # exactly half: to 0, 2 and 2
    widths = [width(round(float(r))) for r in distances]
    gaps = [abs(w - i / 43) for i, w in enumerate(widths)]
    found = reference_predict(grid, density, distances, epsilon, null_fraction=z)
    np.testing.assert_allclose(found.widths, widths, rtol=1e-12)
    assert found.position == gaps.index(min(gaps)) and found.removed == found.position / 43
    plain = reference_widths([3.0], grid, density, epsilon)
    assert float(plain[0]) == pytest.approx(normalised_width(3.0, grid, epsilon, density))


def test_the_first_of_equal_gaps_counts():
    """G is 1 at R = 0 and 1/2 at R = 1, which is as far from 1/4 as from 3/4."""
    found = reference_predict([2.0], [1.0], [0.0, 1.0, 5.0, 1.0], 1.0)
    np.testing.assert_allclose(found.widths, [1, 0.5, 1 / 26, 0.5])
    assert (found.position, found.removed) == (1, 0.25)


def test_the_official_mask_against_a_sorted_list():
    weights = {"b": (noise(4, 3) * 4).round() / 4, "a": (noise(17, seed=1) * 4).round() / 4}
    pooled = torch.cat([w.flatten() for w in weights.values()]).abs()
    ordered = sorted(pooled.tolist())
    for rate in (0.0, 0.01, 0.1, 0.35, 0.5, 0.77, 0.999, 1.0):
        threshold = ordered[max(math.ceil(rate * 29), 1) - 1]
        found = reference_magnitude_mask(weights, rate)
        assert isinstance(found.masks, Masks) and list(found.masks) == ["b", "a"]
        for name, weight in weights.items():
            assert torch.equal(found.masks[name], weight.abs() > threshold)
        assert found.threshold == threshold and found.kept == sum(w > threshold for w in ordered)
        assert found.distance == pytest.approx(math.sqrt(sum(w * w for w in ordered if w <= threshold)))


def test_the_official_ceil():
    weights = {"w": torch.arange(1, 101).double()}
    removed = {0.0: 1, 0.005: 1, 0.01: 1, 0.011: 2, 0.07: 8, 0.14: 15, 0.28: 29, 0.29: 29, 0.55: 56, 0.56: 57, 0.99: 99}
    assert {rate: 100 - reference_magnitude_mask(weights, rate).kept for rate in removed} == removed


def test_the_official_mask_of_a_network():
    model = nn.Sequential(nn.Linear(3, 2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = reference_magnitude_mask(model, 0.4)
    assert list(found.masks) == ["1.weight", "0.weight", "3.0.weight"]  # convolutions first
    named = {name: model.get_parameter(name).detach() for name in found.masks}
    same = reference_magnitude_mask(named, 0.4)
    assert found[1:] == same[1:] and all(torch.equal(found.masks[n], same.masks[n]) for n in named)
    assert found.kept == 6 + 72 + 8 - math.ceil(0.4 * 86)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(reference_magnitude_mask(nn.Linear(2, 2), 0.0).masks) == ["weight"]


# --- bad input

W = torch.ones(4)
BAD = {
    "epsilon must": [
        lambda: predict([1.0], None, 0.0, W),
        lambda: predict([1.0], None, math.nan, W),
        lambda: actual_limits([0.0], [1.0], epsilon=0.0),
        lambda: reference_predict([1.0], [1.0], [1.0], -1.0),
    ],
    "eigenvalues": [
        lambda: predict([math.inf], None, 0.1, W),
        lambda: predict([], None, 0.1, W),
        lambda: predict([[1.0]], None, 0.1, W),
        lambda: predict([1.0], [1.0, 2.0], 0.1, W),
        lambda: predict([[[1.0]]], [[[1.0]]], 0.1, W),
    ],
    "weights of eigenvalues": [
        lambda: predict([1.0, 2.0], [1.0, -0.1], 0.1, W),
        lambda: predict([[1.0], [2.0]], [[1.0], [0.0]], 0.1, W),
    ],
    "no eigenvalue is left": [lambda: predict([-1.0], None, 0.1, W, negative="drop")],
    "weights is empty": [
        lambda: predict([1.0], None, 0.1, torch.zeros(0)),
        lambda: magnitude_distance([]),
        lambda: reference_magnitude_mask({}, 0.1),
        lambda: reference_magnitude_mask(nn.ReLU(), 0.1),
    ],
    "weights must be finite": [lambda: magnitude_distance(torch.tensor([1.0, math.nan]))],
    "null_fraction must": [
        lambda: predict([1.0], None, 0.1, W, null_fraction=1.0),
        lambda: reference_widths([1.0], [1.0], [1.0], 0.1, 1.0),
        lambda: reference_widths([1.0], [1.0], [1.0], 0.1, -0.1),
    ],
    "dimension must be at least 4": [lambda: predict([1.0], None, 0.1, W, dimension=3)],
    "resamples must": [lambda: predict([1.0], None, 0.1, W, resamples=0)],
    "seed must": [lambda: predict([1.0], None, 0.1, W, seed=-1)],
    "grid and density": [
        lambda: reference_widths([1.0], [1.0, 2.0], [1.0], 0.1),
        lambda: reference_widths([1.0], [1.0], [-1.0], 0.1),
        lambda: reference_widths([1.0], [1.0], [0.0], 0.1),
        lambda: reference_widths([1.0], [[1.0]], [[1.0]], 0.1),
    ],
    "distances must": [lambda: reference_predict([1.0], [1.0], [-1.0], 0.1)]
    + [lambda: reference_predict([1.0], [1.0], [[1.0]], 0.1)],
    "rate must": [lambda: reference_magnitude_mask({"w": W}, -0.1), lambda: reference_magnitude_mask({"w": W}, 1.1)],
    "sparsities must": [lambda: actual_limits([1.5], [1.0]), lambda: actual_limits([[0.0]], [[1.0]])],
    "one value for each of the 2": [lambda: actual_limits([0.0, 0.1], [1.0])]
    + [lambda: actual_limits([0.0, 0.1], [1.0, 1.0], [1.0])],
    "accuracies must": [lambda: actual_limits([0.0], [math.nan]), lambda: reference_actual([[1.0]])],
    "margin must": [lambda: actual_limits([0.0], [1.0], margin=-1.0)],
    "base_accuracy must": [lambda: actual_limits([0.0], [1.0], base_accuracy=math.inf)],
    "base_loss must": [lambda: actual_limits([0.0], [1.0], [1.0], base_loss=math.inf)],
    "bins must": [lambda: total_variation(W, W, 0)],
    "a is empty": [lambda: total_variation([], W)],
    "b must be finite": [lambda: total_variation(W, [math.inf])],
}  # fmt: skip


@pytest.mark.parametrize(("message", "call"), [(m, c) for m, calls in BAD.items() for c in calls])
def test_bad_input(message, call):
    with pytest.raises(BadInput, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: magnitude_distance(3.0),
        lambda: magnitude_distance([1.0, 2.0]),
        lambda: predict([1.0], None, "much", W),
        lambda: predict([1.0], None, 0.1, W, dimension=4.0),
        lambda: reference_magnitude_mask([W], 0.1),
        lambda: actual_limits("x", [1.0]),
    ],
)
def test_wrong_types(call):
    with pytest.raises(BadType, match=r"must be|is needed"):
        call()


def test_an_unknown_treatment_of_negative_eigenvalues():
    with pytest.raises(UnknownName, match="'drop'"):
        predict([1.0], None, 0.1, W, negative="dropped")
