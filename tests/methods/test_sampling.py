"""Drawing with replacement: distinct draws, unbiased factors, water-filling of the budget over the layers."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BudgetError
from pruning_core.masks.budgets import Budget
from pruning_core.methods.pfp import drawn
from pruning_core.methods.sampling import L1Sampling, L2Sampling, UniformSampling
from pruning_core.methods.shared.draws import Draws, draws_for_distinct, error, expected_distinct, water_fill
from pruning_core.methods.sipp import SiPPRand
from tests.methods.sampled_networks import DOUBLE, near, network, randomised, seeded, view_of

# --- drawing


def distinct_exactly(q: list[Fraction], m: int) -> int:
    """ceil(sum 1 - (1 - q)^m) without any rounding."""
    return math.ceil(sum((1 - (1 - part) ** m for part in q), Fraction(0)))


PROBABILITIES = {
    "flat": [1] * 9,
    "rising": list(range(1, 11)),
    "skewed": [1000, 300, 100, 30, 10, 3, 1],
    "with zeros": [0, 5, 0, 2, 1, 0, 1],
    "two": [3, 1],
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_expected_distinct(kind):
    whole = PROBABILITIES[kind]
    exact = [Fraction(part, sum(whole)) for part in whole]
    q = np.array([float(part) for part in exact])
    for m in (0, 1, 2, 3, 5, 8, 13, 40, 200):
        assert expected_distinct(q, m) == distinct_exactly(exact, m), m
        if m in (3, 13, 40):
            shown = [len(set(row)) for row in np.random.default_rng(m).choice(len(q), (4000, m), p=q).tolist()]
            mean, noise = float(np.mean(shown)), float(np.std(shown)) / 4000**0.5 + 1e-9
            assert expected_distinct(q, m) - 1 - 4 * noise <= mean <= expected_distinct(q, m) + 4 * noise


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_the_least_number_of_draws(kind):
    whole = PROBABILITIES[kind]
    exact = [Fraction(part, sum(whole)) for part in whole]
    q = np.array([float(part) for part in exact])
    living = sum(part > 0 for part in whole)
    assert draws_for_distinct(q, 0) == 0
    assert draws_for_distinct(q, 1) == 1
    for wanted in range(2, len(q) + 1):
        found = draws_for_distinct(q, wanted)
        reachable = min(wanted, living - 1)  # all of them would take infinitely many draws
        assert distinct_exactly(exact, found) >= reachable
        assert found <= 1 or distinct_exactly(exact, found - 1) < reachable
    assert draws_for_distinct(np.array([0.0, 1.0, 0.0]), 3) == 1


def factors(scores, count: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = seeded(seed)
    return torch.stack([Draws(scores, count, generator).factors() for _ in range(samples)])


@pytest.mark.parametrize("kind", ["flat", "rising", "skewed"])
def test_drawn_factors_are_one_on_average(kind):
    scores = torch.tensor(PROBABILITIES[kind], dtype=DOUBLE)
    for count in (1, 3, 5):
        found = factors(scores, count, 2500)
        near(found.mean(0), 1.0, found.std(0), 2500)
        assert found.std(0).min() > 0.05  # it is an average, not always one
        assert (found > 0).double().sum(1).mean() <= count + 0.1
        # Whatever was drawn, the factors weigh 1 in all.
        np.testing.assert_allclose(found @ (scores / scores.sum()), np.ones(2500), rtol=1e-12)
    assert torch.equal(factors(scores, len(scores), 3), torch.ones(3, len(scores), dtype=DOUBLE))


def test_an_exact_number_costs_some_bias():
    """Draws that go on until a number is reached favour what is rare; with equal probabilities nothing is favoured."""
    generator, samples = seeded(0), 1500

    def exact(scores, count):
        return torch.stack([drawn(scores, count, generator) for _ in range(samples)])

    flat, skewed = (torch.tensor(PROBABILITIES[kind], dtype=DOUBLE) for kind in ("flat", "skewed"))
    found = exact(flat, 5)
    assert ((found > 0).sum(1) == 5).all()
    near(found.mean(0), 1.0, found.std(0), samples)
    found = exact(skewed, 5)
    assert ((found > 0).sum(1) == 5).all()
    np.testing.assert_allclose(found @ (skewed / skewed.sum()), np.ones(samples), rtol=1e-12)
    off = (found.mean(0) - 1).abs() / (found.std(0) / samples**0.5)
    assert off.max() > 5  # it can be measured,
    assert (found.mean(0)[:4] - 1).abs().max() < 0.35  # but for what is drawn often it is no more than this


def test_one_more_and_one_less():
    scores = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 1.0], dtype=DOUBLE)
    for seed in range(20):
        sample = Draws(scores, 3, seeded(seed))
        for step in (sample.one_more, sample.one_less, sample.one_less, sample.one_more):
            before = sample.distinct
            if before == (len(scores) if step == sample.one_more else 0):
                continue
            step()
            assert sample.distinct - before == (1 if step == sample.one_more else -1)
            counts = np.bincount(sample.sequence, minlength=6)
            np.testing.assert_array_equal(counts, sample.counts)
            assert np.count_nonzero(counts) == sample.distinct
            if not sample.whole:
                expected = counts / (max(len(sample.sequence), 1) * (scores / scores.sum()).numpy())
                np.testing.assert_allclose(sample.factors(), expected)
    whole = Draws(scores, 6, seeded(0))
    whole.one_less()
    assert whole.distinct < 6
    assert (whole.factors() > 0).sum() == whole.distinct


REWEIGHTING = {
    "sipp_random": SiPPRand(reference=True), "uniform": UniformSampling(reference=True),
    "l1_sampling": L1Sampling(reference=True), "l2_sampling": L2Sampling(reference=True),
}  # fmt: skip


@pytest.mark.parametrize("name", REWEIGHTING)
def test_reweighted_weights_are_unbiased(name, monkeypatch):
    """As drawn (reference=True): what makes the budget exact would bias them a little."""
    model = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    randomised(model, 4)
    batches = [(torch.rand(10, 12, generator=seeded(2), dtype=DOUBLE), None)]
    method, samples = REWEIGHTING[name], 400
    view = view_of(model, batches, method, 9)
    # Only the draws differ from one time to the next; what they are made from is computed once.
    parts = method.parts(view)
    shares = method.shares(parts, 90 - 54)
    monkeypatch.setattr(type(method), "parts", lambda self, view: parts)
    monkeypatch.setattr(type(method), "shares", lambda self, parts, kept: shares)
    choices = [method.choose(view, Budget(0.6)) for _ in range(samples)]
    for parameter in ("0.weight", "2.weight"):
        values = torch.stack([choice.values[parameter] * choice.masks[parameter] for choice in choices])
        weight = model.get_parameter(parameter).detach()
        living = (values != 0).any(0)
        assert living.double().mean() > 0.5
        noise = near(values.mean(0)[living], weight[living], values.std(0)[living], samples, 5)
        assert float((noise / weight[living].abs()).median()) < 0.2  # so a bias of that size would be seen
    left = np.mean([sum(int(mask.sum()) for mask in choice.masks.values()) for choice in choices])
    assert 0.25 * 90 < left < 0.6 * 90


def test_what_is_drawn_follows_the_rule_of_each_method():
    """The mean number of draws of an entry is in proportion to 1, |w|, w^2, seen through the factors c / (m q)."""
    model = nn.Sequential(nn.Linear(8, 3, bias=False)).double()
    randomised(model, 1)
    weight = model[0].weight.detach()
    for method, q in (
        (UniformSampling(reference=True), torch.ones_like(weight)), (L1Sampling(reference=True), weight.abs()),
        (L2Sampling(reference=True), weight.square()),
    ):  # fmt: skip
        view = view_of(model, [(torch.rand(1, 8, dtype=DOUBLE), None)], method, 3)
        choice = method.choose(view, Budget(0.5))
        q = q / q.sum(1, keepdim=True)
        shares = choice.values["0.weight"] / weight * q  # c / m of what was drawn
        np.testing.assert_allclose(shares.sum(1), torch.ones(3), rtol=1e-9)
        kept = choice.masks["0.weight"].sum(1)
        draws = [draws_for_distinct(row.numpy(), 4) for row in q]
        for row, m, n in zip(shares, draws, kept, strict=True):
            np.testing.assert_allclose(row * m, (row * m).round(), atol=1e-9)
            assert 1 <= n <= min(m, 8)


# --- sharing the budget


def problem(seed: int, n: int):
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(0, 2.5, n), 1 / rng.integers(2, 40, n), rng.integers(2, 80, n)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_water_filling_is_the_convex_solution(seed, fraction):
    a, weight, most = problem(seed, 6)
    total = fraction * most.sum()

    def objective(x):
        u = a / x
        return float((weight * 0.5 * (u + np.sqrt(u**2 + 6 * u))).sum())

    found = scipy.optimize.minimize(
        objective, most * fraction, method="SLSQP", bounds=[(1e-3, m) for m in most],
        constraints=[{"type": "eq", "fun": lambda x: x.sum() - total}], options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    assert found.success, found.message
    ours = water_fill(a, weight, most, total)
    np.testing.assert_allclose(ours.sum(), total, rtol=1e-9)
    assert objective(ours) <= found.fun * (1 + 1e-9)
    np.testing.assert_allclose(objective(ours), found.fun, rtol=1e-6)
    np.testing.assert_allclose(ours, found.x, rtol=0.01, atol=0.02)
    # Sharing in proportion to the sizes is worse, so that the comparison means something.
    assert objective(most * fraction) > objective(ours) * 1.001


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.6, 0.97])
def test_water_filling_of_many_halves_meets_the_optimality_conditions(fraction):
    a, weight, most = problem(3, 4000)
    total = fraction * most.sum()
    x = water_fill(a, weight, most, total)
    np.testing.assert_allclose(x.sum(), total, rtol=1e-9)
    assert (x > 0).all() and (x <= most).all()
    gain = -weight * np.imag(error(x + 1e-30j, a)) / 1e-30  # by a complex step, which is exact
    free = x < most * (1 - 1e-9)
    assert free.any()
    np.testing.assert_allclose(gain[free], gain[free].mean(), rtol=1e-6)
    assert (gain[~free] >= gain[free].mean() * (1 - 1e-6)).all()
    if fraction > 0.5:
        assert (~free).any()


def test_a_larger_budget_takes_from_nobody():
    a, weight, most = problem(1, 200)
    shares = [water_fill(a, weight, most, fraction * most.sum()) for fraction in (0.01, 0.1, 0.3, 0.7, 0.99, 1.0, 1.5)]
    for few, many in itertools.pairwise(shares):
        assert (many >= few - 1e-6).all()
    np.testing.assert_array_equal(shares[-1], most)
    np.testing.assert_array_equal(shares[-2], most)
    assert (error(shares[0], a) > error(shares[1], a)).all()  # and every promised error falls


# --- what is refused


@pytest.mark.parametrize("method", ["sipp_random", "sipp_hybrid", "uniform", "l1_sampling", "l2_sampling"])
def test_sampling_spreads_its_budget_itself(method):
    model, batches = network("perceptron")
    for options in ({"across": "layer"}, {"across": "erk"}, {"of": "macs"}):
        with pytest.raises(BudgetError, match=f"'{method}' spreads its budget itself"):
            pc.prune(model, method, 0.5, batches=batches, **options)


@pytest.mark.parametrize("method", ["l1_sampling", "l2_sampling"])
def test_very_unequal_weights_are_drawn_in_time(method):
    model = nn.Linear(20, 3).double()
    with torch.no_grad():
        model.weight[:, :10] *= 1e-12
    result = pc.prune(model, method, 0.3)
    assert result.report.removed["weights"] == (18, 60)
    assert torch.isfinite(result.model.weight).all()


def test_poisson_arrivals_are_draws():
    """Counts up to the last new entry, drawn both ways, have the same means."""
    q = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    totals = {"poisson": torch.zeros(4, dtype=torch.float64), "single": torch.zeros(4, dtype=torch.float64)}
    repeats = 4000
    for _ in range(repeats):
        sample = Draws(q, 0, generator)
        sample._draw_until(3)
        totals["poisson"] += torch.from_numpy(sample.counts)
        sample = Draws(q, 0, generator)
        while sample.distinct < 3:
            sample._draw(1)
        totals["single"] += torch.from_numpy(sample.counts)
    means = {name: total / repeats for name, total in totals.items()}
    assert torch.allclose(means["poisson"], means["single"], rtol=0.08)


def test_the_reference_of_sampling_may_miss_its_budget():
    model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4))
    batches = [(torch.rand(16, 20, generator=torch.Generator().manual_seed(0)), None)]
    reached = {pc.prune(model, SiPPRand(reference=True), 0.5, batches=batches, seed=s).report.reached for s in range(5)}
    assert len(reached) > 1
    assert all(abs(p - 0.5) < 0.15 for p in reached)
