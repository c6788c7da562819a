"""SiPP, PFP, ThiNet and low rank against slow ways of computing the same, and what their papers promise."""

import copy
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.budgets import Budget
from pruning_core.errors import BadInput
from pruning_core.errors import BudgetError
from pruning_core.errors import UnknownName
from pruning_core.errors import Unprunable
from pruning_core.low_rank import low_rank
from pruning_core.masks import Masks
from pruning_core.methods import METHODS
from pruning_core.methods import View
from pruning_core.methods.pfp import PFP
from pruning_core.methods.pfp import PFPRandom
from pruning_core.methods.pfp import PFPTop
from pruning_core.methods.pfp import drawn
from pruning_core.methods.pfp import draws_at
from pruning_core.methods.pfp import kept_at
from pruning_core.methods.pfp import last_errors
from pruning_core.methods.pfp import split
from pruning_core.methods.sampling import Draws
from pruning_core.methods.sampling import draws_for_distinct
from pruning_core.methods.sampling import error
from pruning_core.methods.sampling import expected_distinct
from pruning_core.methods.sampling import water_fill
from pruning_core.methods.sipp import L1Sampling
from pruning_core.methods.sipp import L2Sampling
from pruning_core.methods.sipp import Largest
from pruning_core.methods.sipp import SiPP
from pruning_core.methods.sipp import SiPPHybrid
from pruning_core.methods.sipp import SiPPRand
from pruning_core.methods.sipp import UniformSampling
from pruning_core.methods.thinet import ThiNet
from pruning_core.sensitivity import sensitivity
from pruning_core.sites import find_sites

DOUBLE = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that depend on the seed alone, norms that are not the identity, double precision."""
    generator = seeded(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.weight /= module.weight[0].numel() ** 0.5
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return model.double().eval()


class Branches(nn.Module):
    """A residual block, a depthwise-separable layer, a dense connection, and a linear layer behind a flatten."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.Conv2d(8, 7, 1)
        self.extra = nn.Conv2d(7, 5, 3, padding=1)
        self.join = nn.Conv2d(12, 6, 3)
        self.fc1, self.fc2 = nn.Linear(24, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        x = F.relu(self.pointwise(F.relu(self.depthwise(x))))
        x = F.relu(self.join(torch.cat([x, F.relu(self.extra(x))], 1)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 14, 3, stride=2), nn.ReLU(),
        nn.Conv2d(14, 11, 2), nn.ReLU(), nn.Flatten(), nn.Linear(44, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


NETWORKS = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 4)), (12,)),
    "chain": (chain, (2, 7, 7)),
    "branches": (Branches, (2, 8, 8)),
}  # fmt: skip


def network(kind: str, seed: int = 0):
    """A network and batches of inputs for it."""
    build, shape = NETWORKS[kind]
    with torch.random.fork_rng(devices=[]):
        model = randomised(build(), seed)
    x = torch.randn(12, *shape, generator=seeded(seed + 1), dtype=DOUBLE)
    return model, [(x[:5], torch.zeros(5, dtype=torch.long)), (x[5:], torch.zeros(7, dtype=torch.long))]


def view_of(model, batches, method, seed=0) -> View:
    """What the method is shown."""
    example = batches[0][0][:1]
    sites = find_sites(model, channels=method.unit == "channel", example_input=example, refuses=method.refuses)
    return View(model, sites, Masks(), batches, F.cross_entropy, seeded(seed), example)


def inputs_by_hand(model, names, batches) -> dict[str, torch.Tensor]:
    """What the layers are given, with hooks of our own."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda m, given, n=name: seen[n].append(given[0].detach()))
        for name in names
    ]
    with torch.no_grad():
        for x, _ in batches:
            model(x)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(maps) for name, maps in seen.items()}


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


def near(mean, expected, spread, samples: int, errors: float = 4.5):
    """Within so many standard errors; where nothing varies, equal."""
    noise = spread / samples**0.5
    assert (abs(mean - expected) <= errors * noise + 1e-9).all()
    return noise


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


# --- weights


WEIGHT_METHODS = ["sipp", "sipp_random", "sipp_hybrid", "uniform", "l1_sampling", "l2_sampling"]
FINE = [0.0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.62, 0.75, 0.9, 0.95]


def test_these_are_the_methods_of_the_paper_that_prune_weights():
    ours = {name for name, method in METHODS.items() if method.citation == "baykal2019sipp" and method.unit == "weight"}
    assert ours == set(WEIGHT_METHODS)


@pytest.mark.parametrize("method", WEIGHT_METHODS)
@pytest.mark.parametrize("kind", ["perceptron", "branches"])
def test_weight_budgets_are_exact(method, kind):
    model, batches = network(kind)
    with torch.no_grad():  # entries that are zero in the network, and whole filters of them
        layer = next(module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d))
        layer.weight[:2] = 0
    total = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    view = view_of(model, batches, METHODS[method](), 1)
    # Drawing nearly all weights in proportion to their squares takes millions of draws.
    for sparsity in [s for s in FINE if method != "l2_sampling" or s in (0.0, 0.25, 0.5, 0.75, 0.95)]:
        masks = METHODS[method]().choose(view, Budget(sparsity)).masks
        left = sum(
            int(masks[name].sum()) if name in masks else view.sites.shapes[name].numel() for name in view.sites.weights
        )
        assert abs(left - (1 - sparsity) * total) <= 0.5 + 1e-6, sparsity


@pytest.mark.parametrize("method", ["sipp", "pfp", SiPP(reduce="max"), PFP(kernel="sum")])
@pytest.mark.parametrize("kind", ["perceptron", "chain", "branches"])
def test_a_larger_sparsity_keeps_a_part_of_what_a_smaller_one_keeps(method, kind):
    model, batches = network(kind)
    of = "channels" if method == "pfp" or isinstance(method, PFP) else "weights"
    found = [pc.prune(model, method, s, batches=batches) for s in (0.1, 0.3, 0.5, 0.7)]
    for large, small in itertools.pairwise(found):
        assert small.masks <= large.masks
        assert small.report.removed[of][0] > large.report.removed[of][0]


def test_sipp_keeps_the_largest_sensitivities_of_all_layers():
    model, batches = network("chain")
    names = ["0", "3", "5", "8", "10"]
    maps = inputs_by_hand(model, names, batches)
    for reduce in ("mean", "max"):
        scores = {name: sensitivity(model.get_submodule(name), [maps[name]], reduce).weight.numpy() for name in names}
        every = np.sort(np.concatenate([s.ravel() for s in scores.values()]))[::-1]
        kept = len(every) - math.floor(0.7 * len(every) + 0.5)
        result = pc.prune(model, SiPP(reduce=reduce), 0.7, batches=batches)
        for name in names:
            mask = result.masks[f"{name}.weight"].numpy()
            cut = every[kept - 1]
            assert mask[scores[name] > cut * (1 + 1e-9)].all()
            assert not mask[scores[name] < cut * (1 - 1e-9)].any()
        # Weights that stay are as they were.
        for name, mask in result.masks.items():
            assert torch.equal(result.model.get_parameter(name)[mask], model.get_parameter(name)[mask])


def flat_layer(inputs: int = 400) -> tuple[nn.Module, list]:
    """One wide layer in which all weights matter about the same: here draws promise less error."""
    model = nn.Sequential(nn.Linear(inputs, 3, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(1 + 0.2 * torch.rand(3, inputs, generator=seeded(0), dtype=DOUBLE))
    return model, [(1 + 0.2 * torch.rand(6, inputs, generator=seeded(1), dtype=DOUBLE), None)]


def test_the_hybrid_draws_where_all_halves_promise_less_error_by_drawing():
    model, batches = flat_layer()
    for seed in range(3):
        sampled, hybrid = (
            pc.prune(model, method, 0.5, batches=batches, seed=seed) for method in ("sipp_random", "sipp_hybrid")
        )
        assert sampled.masks == hybrid.masks
        assert torch.equal(sampled.model[0].weight, hybrid.model[0].weight)
        assert not torch.equal(
            hybrid.model[0].weight[hybrid.masks["0.weight"]], model[0].weight[hybrid.masks["0.weight"]]
        )


def test_the_hybrid_keeps_the_largest_where_all_halves_promise_less_error_by_that():
    model, batches = network("perceptron")
    names = ["0", "2", "4"]
    maps = inputs_by_hand(model, names, batches)
    result = pc.prune(model, SiPPHybrid(constant=1e-3), 0.6, batches=batches)
    for name in names:
        weight = model.get_submodule(name).weight.detach()
        scores = sensitivity(model.get_submodule(name), [maps[name]]).weight
        mask = result.masks[f"{name}.weight"]
        assert torch.equal(result.model.get_parameter(f"{name}.weight")[mask], weight[mask])
        for sign, i in itertools.product((1, -1), range(len(weight))):
            half = (weight[i] * sign > 0) & (scores[i] > 0)
            if (mask[i] & half).any() and (~mask[i] & half).any():
                assert scores[i][mask[i] & half].min() >= scores[i][~mask[i] & half].max()


@pytest.mark.parametrize("constant", [0.02, 0.1, 3.0])
def test_the_hybrid_takes_the_smaller_promised_error_half_by_half(constant):
    """A flat wide layer beside a small one, with both promises computed anew from the sensitivities."""
    model = nn.Sequential(nn.Linear(400, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    randomised(model, 2)
    with torch.no_grad():
        model[0].weight.abs_().add_(0.2)
    batches = [(torch.rand(8, 400, generator=seeded(3), dtype=DOUBLE), None)]
    method, delta = SiPPHybrid(constant=constant), 1e-16
    halves = method.halves(view_of(model, batches, method))
    maps = inputs_by_hand(model, ["0", "2"], batches)
    taken = {True: 0, False: 0}
    for half in halves:
        name = half.parameter.removesuffix(".weight")
        layer = model.get_submodule(name)
        scores = sensitivity(layer, [maps[name]]).weight.flatten()[half.entries].numpy()
        signs = layer.weight.detach().flatten()[half.entries].sign()
        assert (signs == signs[0]).all()
        assert len(torch.unique(half.entries // layer.in_features)) == 1
        a = scores.sum() * 2 * constant / 3 * math.log(8 * 2 * 1 / delta)
        for count in {2, len(scores) // 2, len(scores) - 1, len(scores)}:
            if count < 2:
                continue
            by_draws = 0.5 * (a / count + math.sqrt((a / count) ** 2 + 6 * a / count))
            by_order = constant * float(np.sort(scores)[::-1][count:].sum())
            chosen = method.drawn(half, count, seeded(0))
            assert isinstance(chosen, Largest) == (by_order <= by_draws)
            taken[isinstance(chosen, Largest)] += 1
            if isinstance(chosen, Largest):
                assert chosen.factors().sum() == count
                assert set(chosen.factors().tolist()) <= {0.0, 1.0}
    assert taken[True]
    assert taken[False] or constant < 3


def test_halves_have_the_coefficients_of_the_paper():
    model, batches = network("branches")
    method = SiPPRand(constant=2.0, delta=1e-3)
    halves = method.halves(view_of(model, batches, method))
    positions = {"stem": 64, "conv1": 64, "conv2": 64, "depthwise": 16, "pointwise": 16, "extra": 16, "join": 4}
    maps = inputs_by_hand(model, [half.parameter.removesuffix(".weight") for half in halves], batches)
    sums: dict[str, float] = {}
    for half in halves:
        name = half.parameter.removesuffix(".weight")
        layer = model.get_submodule(name)
        scores = sensitivity(layer, [maps[name]]).weight.flatten()
        np.testing.assert_allclose(half.scores, scores[half.entries])
        kernel = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
        scale = 2 * 2.0 * math.log(8 * (positions.get(name, 1) + 1) * kernel / 1e-3)
        np.testing.assert_allclose(half.coefficient, scores[half.entries].sum() * scale)
        assert half.weight == 1 / len(layer.weight)
        sums[name] = sums.get(name, 0) + float(half.scores.sum())
    for name, total in sums.items():  # no half is forgotten, and none counted twice
        np.testing.assert_allclose(total, sensitivity(model.get_submodule(name), [maps[name]]).weight.sum())


# --- channels: PFP


def slow_kept(error_: float, scores: np.ndarray, a: float) -> int:
    """How many channels an error leaves, as the paper's sheet has it."""
    q = scores / scores.sum()
    m = max(math.ceil(3 * (6 + 2 * error_) * a / error_**2), 1)
    return min(math.ceil(float(np.sum(1 - (1 - q) ** min(m, 1e15))) - 1e-9), int((q > 0).sum()))


def slow_errors(scores: np.ndarray, a: float) -> np.ndarray:
    """For each channel the error at which it goes, by bisection of ``slow_kept``; infinite for the best one."""
    found = np.zeros(len(scores))
    for rank, channel in enumerate(np.argsort(-scores, kind="stable").tolist(), 1):
        if scores[channel] == 0:
            continue
        low, high = 1e-7, 1e12
        for _ in range(200):
            middle = math.sqrt(low * high)
            if slow_kept(middle, scores, a) >= rank:
                low = middle
            else:
                high = middle
        found[channel] = math.inf if rank == 1 else low
    return found


def random_scores(seed: int) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(seed)
    scores = 10 ** rng.uniform(-2, 0, rng.integers(2, 20))
    scores[rng.random(len(scores)) < 0.15] = 0
    scores[0] = max(scores[0], 0.3)
    return scores, float(10 ** rng.uniform(0, 3))


@pytest.mark.parametrize("seed", range(12))
def test_last_errors_against_a_grid_of_errors(seed):
    scores, a = random_scores(seed)
    last = last_errors(torch.from_numpy(scores), a).numpy()
    np.testing.assert_allclose(last, slow_errors(scores, a), rtol=1e-7)
    order = np.argsort(-scores, kind="stable")
    assert (np.diff(last[order][1:]) <= 0).all()
    assert (last[scores == 0] == 0).all()
    seen = set()
    for error_ in np.geomspace(1e-3, 1e5, 700):
        kept = slow_kept(error_, scores, a)
        assert kept == kept_at(error_, scores / scores.sum(), a)
        assert ((last >= error_) == np.isin(np.arange(len(scores)), order[:kept])).all()
        seen.add(kept)
    assert len(seen) > 1


def test_last_errors_of_equal_and_of_single_channels():
    last = last_errors(torch.tensor([0.5, 0.5, 0.5]), 10.0)
    assert last[0] == math.inf
    assert last[1] >= last[2] > 0
    assert last_errors(torch.tensor([0.0, 0.2, 0.0]), 10.0).tolist() == [0, math.inf, 0]
    assert last_errors(torch.zeros(3), 10.0).tolist() == [0, 0, 0]
    # Three times (6 + 2 e) a / e^2 rounded up: at e = 3 and a = 1 that is 4.
    assert draws_at(3.0, 1.0) == 4
    assert draws_at(1e9, 1.0) == 1


READERS = {
    # group -> the layers that read it, and which channel each of their inputs is (an offset, and inputs a channel)
    "chain": {"0": {"3": (0, 1)}, "3": {"5": (0, 1)}, "5": {"8": (0, 4)}, "8": {"10": (0, 1)}},
    "branches": {
        # The stem, conv2 and the depthwise filters are one group.
        "stem": {"conv1": (0, 1), "pointwise": (0, 1)}, "conv1": {"conv2": (0, 1)}, "join": {"fc1": (0, 4)},
        "pointwise": {"extra": (0, 1), "join": (0, 1)}, "extra": {"join": (7, 1)}, "fc1": {"fc2": (0, 1)},
    },
    "perceptron": {"0": {"2": (0, 1)}, "2": {"4": (0, 1)}},
}  # fmt: skip
# Output positions of the reading layers that are convolutions.
POSITIONS = {
    "chain": {"3": 9, "5": 4},
    "branches": {"conv1": 64, "conv2": 64, "pointwise": 16, "extra": 16, "join": 4},
    "perceptron": {},
}


def by_hand(kind: str, model, batches, kernel: str = "max", constant: float = 3.0, delta: float = 1e-16):
    """Layer -> (sensitivities of the channels it reads, coefficient), for layers that read one or more groups."""
    layers = sorted({layer for readers in READERS[kind].values() for layer in readers})
    maps = inputs_by_hand(model, layers, batches)
    found = {}
    for name in layers:
        layer = model.get_submodule(name)
        scores = sensitivity(layer, [maps[name]], "max", "sum" if kernel == "sum" else "reduce").channel.numpy()
        each = max(readers[name][1] for readers in READERS[kind].values() if name in readers)
        scores = scores.reshape(-1, each).max(1)  # a channel behind a flatten: the largest of its positions
        window = (layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1) * each
        p = POSITIONS[kind].get(name, 1)
        found[name] = (scores, scores.sum() * 2 * constant * math.log(8 * (p + 1) * window / delta))
    return found


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("method", [PFP(), PFP(kernel="sum"), PFP(constant=10.0, delta=1e-3)])
def test_a_channel_goes_with_the_last_layer_that_reads_it(kind, method):
    model, batches = network(kind)
    view = view_of(model, batches, method)
    scores = method.score(view)
    layers = by_hand(kind, model, batches, method.kernel, method.constant, method.delta)
    errors = {name: slow_errors(*found) for name, found in layers.items()}
    groups = READERS[kind]
    assert set(scores) == set(groups)
    expected = {}
    for name, readers in groups.items():
        size = view.sites.groups[name].size
        expected[name] = np.max([errors[layer][start : start + size] for layer, (start, _) in readers.items()], axis=0)
    finite = max(part[np.isfinite(part)].max() for part in expected.values())
    for name, part in expected.items():
        best = ~np.isfinite(part)
        np.testing.assert_allclose(np.asarray(scores[name])[~best], part[~best], rtol=1e-6)
        assert (np.asarray(scores[name])[best] > finite).all()
        assert torch.isfinite(scores[name]).all()
    if (
        kind == "branches"
    ):  # both readers decide in some channel, and of one concatenation one part has the best channel
        ours = errors["conv1"] > errors["pointwise"]
        assert ours.any() and not ours.all()
        assert np.isinf(errors["join"]).sum() == 1


@pytest.mark.parametrize("kind", ["chain", "perceptron"])
@pytest.mark.parametrize("of", ["channels", "weights"])
def test_one_error_sets_the_widths_of_all_layers(kind, of):
    model, batches = network(kind)
    layers = by_hand(kind, model, batches)
    readers = {group: next(iter(names)) for group, names in READERS[kind].items()}
    different = 0
    for sparsity in (0.1, 0.2, 0.3, 0.45, 0.6, 0.75):
        result = pc.prune(model, "pfp", sparsity, of=of, batches=batches)
        counts = {name: int(group.alive(result.masks).sum()) for name, group in result.sites.groups.items()}
        low, high = 1e-7, 1e12  # the largest error that leaves as many
        for _ in range(300):
            middle = math.sqrt(low * high)
            if sum(slow_kept(middle, *layers[reader]) for reader in readers.values()) >= sum(counts.values()):
                low = middle
            else:
                high = middle
        away = [
            sum(abs(slow_kept(e, *layers[reader]) - counts[name]) for name, reader in readers.items())
            for e in (low, high)
        ]
        assert min(away) <= 1, sparsity
        different += len({counts[name] / result.sites.groups[name].size for name in counts}) > 1
        # In each layer the largest sensitivities stay.
        for name, reader in readers.items():
            scores, alive = layers[reader][0], result.sites.groups[name].alive(result.masks).numpy()
            np.testing.assert_array_equal(
                np.flatnonzero(alive), np.sort(np.argsort(-scores, kind="stable")[: counts[name]])
            )
    assert different > 3  # otherwise any method that takes the same from all layers would pass


CHANNEL_METHODS = ["pfp", "pfp_random", "pfp_top", "thinet"]


@pytest.mark.parametrize("method", CHANNEL_METHODS)
@pytest.mark.parametrize("kind", ["perceptron", "chain"])
def test_channel_budgets_are_exact(method, kind):
    model, batches = network(kind)
    total = sum({"perceptron": (20, 15), "chain": (9, 14, 11, 16)}[kind])
    for sparsity in (0.0, 0.05, 0.2, 0.5, 0.77, 0.9):
        result = pc.prune(model, method, sparsity, batches=batches)
        left = sum(int(group.alive(result.masks).sum()) for group in result.sites.groups.values())
        assert abs(left - (1 - sparsity) * total) <= 0.5 + 1e-6
        assert all(group.alive(result.masks).any() for group in result.sites.groups.values())


@pytest.mark.parametrize("kind", ["chain", "branches"])
def test_variants_that_draw_have_the_widths_of_pfp(kind):
    model, batches = network(kind)
    for sparsity in (0.2, 0.5, 0.7):
        widths = []
        for method in ("pfp", "pfp_random", "pfp_top"):
            result = pc.prune(model, method, sparsity, batches=batches, seed=3)
            widths.append({name: int(group.alive(result.masks).sum()) for name, group in result.sites.groups.items()})
        assert widths[0] == widths[1] == widths[2]


def two_layers(seed: int = 0):
    """A hidden layer whose channels matter very differently, and the layer that reads them."""
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).double()
    randomised(model, seed)
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.abs_()
        model[2].weight.mul_(torch.logspace(0, -1.5, 12, dtype=DOUBLE))
    return model, [(torch.rand(20, 6, generator=seeded(seed + 1), dtype=DOUBLE), None)]


def test_pfp_top_keeps_certain_channels_as_they_are():
    model, batches = two_layers()
    scores = by_hand_scores(model, batches)
    q = scores / scores.sum()
    for sparsity in (0.25, 0.5, 0.75):
        count = 12 - math.floor(12 * sparsity + 0.5)
        certain, sampled = split(q, count)
        # The least number of draws that shows so many, by counting up.
        m = next(m for m in range(1, 10**6) if math.ceil(float(np.sum(1 - (1 - q) ** m)) - 1e-9) >= min(count, 11))
        assert (certain, sampled) == (min(int((q >= 1 / m).sum()), count), count - certain)
        order = np.argsort(-scores, kind="stable")
        others = set()
        for seed in range(12):
            result = pc.prune(model, "pfp_top", sparsity, batches=batches, seed=seed)
            left = result.model[2].weight.detach()
            kept = np.flatnonzero(left.abs().sum(0).numpy())
            assert len(kept) == count
            assert set(order[:certain].tolist()) <= set(kept.tolist())
            assert torch.equal(left[:, order[:certain]], model[2].weight.detach()[:, order[:certain]])
            rest = sorted(set(kept.tolist()) - set(order[:certain].tolist()))
            others |= set(rest)
            # Drawn channels are multiplied by c / (m q): with q these factors weigh 1 in all.
            factors_ = (left[:, rest] / model[2].weight.detach()[:, rest]).numpy()
            np.testing.assert_allclose(factors_, np.broadcast_to(factors_[0], factors_.shape), rtol=1e-9)
            if len(rest) and len(rest) < 12 - certain:
                remaining = np.delete(np.arange(12), order[:certain])
                share = scores[rest] / scores[remaining].sum()
                np.testing.assert_allclose((factors_[0] * share).sum(), 1, rtol=1e-9)
        assert 0 < certain < count or sampled == count
        assert not sampled or len(others) > sampled  # not always the same


def by_hand_scores(model, batches) -> np.ndarray:
    maps = inputs_by_hand(model, ["2"], batches)
    return sensitivity(model[2], [maps["2"]]).channel.numpy()


def test_drawn_channels_leave_the_mean_of_the_next_outputs():
    """Columns that matter the same are drawn with equal probability: nothing is favoured by the exact number either."""
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4)).double()
    randomised(model, 3)
    with torch.no_grad():  # all hidden channels are equal, only the weights of their readers have a sign of their own
        model[0].weight.copy_(torch.rand(1, 6, generator=seeded(5), dtype=DOUBLE).expand(10, 6))
        model[0].bias.fill_(0.1)
        model[2].weight.copy_(model[2].weight.sign() * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=DOUBLE)[:, None])
        model[2].weight[0].abs_()  # this filter alone decides over no channel more than another
        model[2].weight[1:] = model[2].weight[:1] * torch.tensor([2.0, -3.0, 4.0], dtype=DOUBLE)[:, None]
    x = torch.rand(15, 6, generator=seeded(6), dtype=DOUBLE)
    batches = [(x, None)]
    np.testing.assert_allclose(by_hand_scores(model, batches), np.full(10, 0.1))
    method, samples = PFPRandom(), 400
    view = view_of(model, batches, method, 4)
    hidden = torch.relu(model[0](x)).detach()
    outputs = []
    for _ in range(samples):
        choice = method.choose(view, Budget(0.5, of="channels"))
        assert (choice.masks["2.weight"].any(0)).sum() == 5
        outputs.append(hidden @ (choice.values["2.weight"] * choice.masks["2.weight"]).T)
    found = torch.stack(outputs)
    near(found.mean(0), hidden @ model[2].weight.detach().T, found.std(0), samples, 5)
    # With filters that agree in every channel, even a single draw gives the exact output: q times the factor is c / m.
    assert found.std(0).max() < 1e-9
    # Single columns do vary, and are right on average.
    columns = torch.stack([method.choose(view, Budget(0.5, of="channels")).values["2.weight"] for _ in range(samples)])
    near(columns.mean(0), model[2].weight.detach(), columns.std(0), samples, 5)
    assert columns.std(0).min() > 0.3


def test_bias_of_drawn_channels_is_small():
    """Sensitivities that differ: the exact number of channels costs some bias, next to nothing beside the noise."""
    model, batches = two_layers()
    hidden = torch.relu(model[0](batches[0][0])).detach()
    method, samples = PFPRandom(), 400
    view = view_of(model, batches, method, 2)
    outputs = []
    for _ in range(samples):
        choice = method.choose(view, Budget(0.5, of="channels"))
        outputs.append(hidden @ (choice.values["2.weight"] * choice.masks["2.weight"]).T)
    found, dense = torch.stack(outputs), hidden @ model[2].weight.detach().T
    kept = hidden @ (model[2].weight.detach() * (view_scores(model, batches) >= view_scores(model, batches).median())).T
    bias = (found.mean(0) - dense).abs().mean()
    assert bias < 0.2 * found.std(0).mean()
    assert bias < 0.1 * dense.abs().mean()
    # Without any factors the outputs would shrink by more than that.
    assert kept.abs().mean() < dense.abs().mean()


def view_scores(model, batches) -> torch.Tensor:
    return torch.from_numpy(by_hand_scores(model, batches))


def test_channels_without_any_sensitivity_go_first_and_come_back_last():
    model, batches = two_layers()
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = 0, -1.0  # never on
        model[2].weight[:, 7] = 0  # never read
    for method in ("pfp", "pfp_random", "pfp_top"):
        masks = pc.prune(model, method, 2 / 12, batches=batches).masks
        assert np.flatnonzero(~masks["2.weight"].any(0).numpy()).tolist() == [3, 7]
        if method != "pfp":  # all that have one are kept, so nothing is re-weighted
            kept = pc.prune(model, method, 1 / 12, batches=batches)
            left = kept.masks["2.weight"].any(0)
            assert int(left.sum()) == 11 and left[3] != left[7]
            assert torch.equal(kept.model[2].weight[:, left], model[2].weight[:, left])


# --- ThiNet


def contributions(model, reader: str, group_inputs: np.ndarray, batches) -> np.ndarray:
    """What each channel alone adds to the outputs of the reading layer: (channels, everything)."""
    maps = inputs_by_hand(model, [reader], batches)[reader]
    layer = copy.deepcopy(model.get_submodule(reader))
    layer.bias = None
    rows = []
    for channel in range(int(group_inputs.max()) + 1):
        alone = maps.clone()
        alone[:, torch.from_numpy(group_inputs != channel)] = 0
        with torch.no_grad():
            rows.append(layer(alone).numpy().ravel())
    return np.stack(rows)


def greedy_order(rows: np.ndarray, count: int) -> list[int]:
    """One channel after the other, each time the one with which the sum of the chosen stays smallest."""
    chosen: list[int] = []
    for _ in range(count):
        best = min(
            (c for c in range(len(rows)) if c not in chosen),
            key=lambda c: float((rows[chosen].sum(0) + rows[c]) @ (rows[chosen].sum(0) + rows[c])),
        )
        chosen.append(best)
    return chosen


THINET = {
    # group -> the layer that reads it, and which channel each of its inputs is
    "chain": {
        "0": ("3", np.arange(9)), "3": ("5", np.arange(14)), "5": ("8", np.repeat(np.arange(11), 4)),
        "8": ("10", np.arange(16)),
    },
    "perceptron": {"0": ("2", np.arange(20)), "2": ("4", np.arange(15))},
}  # fmt: skip


@pytest.mark.parametrize("kind", THINET)
@pytest.mark.parametrize("seed", range(3))
def test_thinet_removes_what_the_next_layer_misses_least(kind, seed):
    model, batches = network(kind, seed)
    for group, (reader, inputs) in THINET[kind].items():
        size = int(inputs.max()) + 1
        rows = contributions(model, reader, inputs, batches)
        for sparsity in (0.3, 0.6):
            removed = math.floor(size * sparsity + 0.5)
            result = pc.prune(model, "thinet", None, across={group: removed / size}, batches=batches)
            alive = result.sites.groups[group].alive(result.masks).numpy()
            assert set(np.flatnonzero(~alive).tolist()) == set(greedy_order(rows, removed))
            other = pc.prune(model, ThiNet(reference=True), None, across={group: removed / size}, batches=batches)
            alive = other.sites.groups[group].alive(other.masks).numpy()
            assert set(np.flatnonzero(alive).tolist()) == set(greedy_order(rows, size - removed))


def test_thinet_by_reference_keeps_what_the_other_removes_first():
    model, batches = network("perceptron")
    right, turned = (
        pc.prune(model, method, None, across={"0": 0.5}, batches=batches)
        for method in (ThiNet(), ThiNet(reference=True))
    )
    group = right.sites.groups["0"]
    assert torch.equal(group.alive(right.masks), ~group.alive(turned.masks))


def test_the_order_of_thinet_matters_in_a_trained_network():
    digits = pc.load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        randomised(model, 0).float()
        pc.fit(model, digits, epochs=15, optimizer=pc.Optimizer("sgd", lr=0.1), batch_size=32, progress=False)
    batches = list(digits.score.subset(64).batches(32))
    x, y = digits.test.inputs, digits.test.labels

    def accuracy(net):
        with torch.no_grad():
            return float((net.eval()(x).argmax(1) == y).double().mean())

    whole = accuracy(model)
    right, turned = (
        accuracy(pc.prune(model, method, 0.5, batches=batches).model) for method in (ThiNet(), ThiNet(reference=True))
    )
    assert whole > 0.85
    assert right > turned + 0.2
    assert right > whole - 0.2


# --- low rank


LOW_RANK = {
    "perceptron": lambda: nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 20, bias=False)),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, dilation=2, padding="same", bias=False),
        nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect"), nn.Conv2d(12, 12, 3, groups=12), nn.Flatten(),
    ),
}  # fmt: skip
SHAPES = {"perceptron": (4, 30), "convolutions": (4, 3, 10, 10)}


def of_rank(model: nn.Module, rank: int) -> nn.Module:
    """The same network with weights of that rank at most, made by a product."""
    with torch.no_grad():
        for i, module in enumerate(model.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                rows = module.weight.flatten(1)
                left = torch.randn(len(rows), rank, generator=seeded(i))
                right = torch.randn(rank, rows.shape[1], generator=seeded(i + 100))
                module.weight.copy_((left @ right / rows.shape[1] ** 0.5).view_as(module.weight))
    return model


@pytest.mark.parametrize("kind", LOW_RANK)
def test_a_rank_that_is_enough_changes_no_output(kind):
    model = of_rank(LOW_RANK[kind](), 3)
    x = torch.randn(SHAPES[kind], generator=seeded(2))
    small, ranks = low_rank(model, 0.4)
    assert ranks and min(ranks.values()) >= 3
    with torch.no_grad():
        dense, again = model(x), small(x)
    assert (dense - again).abs().max() <= 1e-5 * max(1.0, float(dense.abs().max()))
    # With a rank that is not enough, the outputs are others.
    tiny, ranks = low_rank(model, 0.95)
    assert min(ranks.values()) < 3
    with torch.no_grad():
        assert (tiny(x) - dense).abs().max() > 1e-2 * dense.abs().max()


@pytest.mark.parametrize("kind", LOW_RANK)
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.75])
def test_low_rank_has_the_parameters_asked_for_and_the_best_products(kind, sparsity):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LOW_RANK[kind]()
    before = copy.deepcopy(model.state_dict())
    small, ranks = low_rank(model, sparsity)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight = module.weight.detach()
        new = small.get_submodule(name)
        if name not in ranks:
            assert torch.equal(new.weight, weight)
            continue
        assert len(new) == 2
        size = sum(part.weight.numel() for part in new)
        each = weight.shape[0] + weight[0].numel()
        assert ranks[name] == 1 or size <= (1 - sparsity) * weight.numel()
        assert size + each > (1 - sparsity) * weight.numel()  # one more would be too many
        product = (new[1].weight.flatten(1) @ new[0].weight.flatten(1)).detach().double().numpy()
        lost = np.linalg.norm(product - weight.flatten(1).double().numpy())
        sizes = np.linalg.svd(weight.flatten(1).double().numpy(), compute_uv=False)
        np.testing.assert_allclose(lost, np.linalg.norm(sizes[ranks[name] :]), rtol=1e-4, atol=1e-6)
        assert (new[0].bias is None) and ((new[1].bias is None) == (module.bias is None))
    with torch.no_grad():
        x = torch.randn(SHAPES[kind], generator=seeded(2))
        assert small(x).shape == model(x).shape
    total = sum(p.numel() for p in small.parameters())
    assert total < sum(p.numel() for p in model.parameters())


def test_low_rank_refuses():
    model = LOW_RANK["perceptron"]()
    for sparsity in (1.0, -0.1, math.nan):
        with pytest.raises(BadInput, match="sparsity must lie in"):
            low_rank(model, sparsity)
    with pytest.raises(Unprunable, match="Sequential has no layer that a lower rank would make smaller"):
        low_rank(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), 0.5)
    with pytest.raises(Unprunable, match="no layer that a lower rank"):
        low_rank(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(4, 4, 3, groups=4)), 0.5)


# --- what is refused


ALL_METHODS = [*WEIGHT_METHODS[:3], "pfp", "pfp_random", "pfp_top"]


@pytest.mark.parametrize("method", ALL_METHODS)
def test_sensitivities_need_points(method):
    model, _ = network("perceptron")
    with pytest.raises(BadInput, match="batches is empty"):
        pc.prune(model, method, 0.5, batches=[])
    with pytest.raises(BadInput, match="needs batches of inputs"):
        pc.prune(model, method, 0.5)
    with pytest.raises(BadInput, match="holds no sample"):
        pc.prune(model, method, 0.5, batches=[(torch.rand(0, 12, dtype=DOUBLE), None)])


@pytest.mark.parametrize("method", ALL_METHODS)
def test_activations_that_are_all_zero_are_refused(method):
    model, _ = network("perceptron")
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.bias.fill_(-1.0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match="all activations are zero for these samples"):
        pc.prune(model, method, 0.5, batches=[(torch.zeros(4, 12, dtype=DOUBLE), None)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ALL_METHODS)
def test_inputs_that_are_not_finite_are_refused(method):
    model, batches = network("perceptron")
    batches[1][0][3, 2] = math.nan
    with pytest.raises(BadInput, match="NaN or infinite for these samples"):
        pc.prune(model, method, 0.5, batches=batches)


@pytest.mark.parametrize("method", ["sipp_random", "sipp_hybrid", "pfp", "pfp_random", "pfp_top"])
def test_constants_that_mean_nothing_are_refused(method):
    for constant in (0.0, -3.0, math.nan):
        with pytest.raises(BadInput, match="the constant C must be positive"):
            METHODS[method](constant=constant)
    for delta in (0.0, 1.0, -1e-16, math.nan):
        with pytest.raises(BadInput, match="delta is the probability"):
            METHODS[method](delta=delta)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(UnknownName, match="unknown reduction 'median'"):
        SiPP(reduce="median")
    for kind in (PFP, PFPRandom, PFPTop):
        with pytest.raises(UnknownName, match="unknown reduction over the kernel"):
            kind(kernel="mean")


@pytest.mark.parametrize("method", CHANNEL_METHODS)
def test_a_sparsity_that_would_empty_a_layer_is_refused(method):
    model, batches = network("chain")
    with pytest.raises(BudgetError, match=r"a layer would be emptied|cannot be kept"):
        pc.prune(model, method, 0.97, batches=batches)


@pytest.mark.parametrize("method", ["sipp_random", "sipp_hybrid", "uniform", "l1_sampling", "l2_sampling"])
def test_sampling_spreads_its_budget_itself(method):
    model, batches = network("perceptron")
    for options in ({"across": "layer"}, {"across": "erk"}, {"of": "macs"}):
        with pytest.raises(BudgetError, match=f"'{method}' spreads its budget itself"):
            pc.prune(model, method, 0.5, batches=batches, **options)


@pytest.mark.parametrize("method", ["sipp", "sipp_random", "sipp_hybrid"])
def test_weights_without_sensitivities_are_refused(method):
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    batches = [(torch.rand(5, 2, 8), None)]
    with pytest.raises(Unprunable, match="linear and 2-d convolutional layers, not Conv1d"):
        pc.prune(model, method, 0.5, batches=batches)
    scoped = pc.prune(model, method, 0.5, batches=batches, scope=["3"])
    assert set(scoped.masks) == {"3.weight"}


@pytest.mark.parametrize("method", ["pfp", "pfp_random", "pfp_top"])
def test_channels_without_sensitivities_are_refused(method):
    model = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    batches = [(torch.rand(5, 2, 8), None)]
    result = pc.prune(model, method, 0.5, batches=batches)
    assert set(result.sites.groups) == {"2"}
    assert "read by Conv1d, for which sensitivities are not defined" in result.sites.excluded["channels of 0"]
    with pytest.raises(Unprunable, match="read by Conv1d, for which sensitivities are not defined"):
        pc.prune(nn.Sequential(*model[:3]), method, 0.5, batches=batches)


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


def test_half_precision_is_raised():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).half()
    batches = [((torch.rand(16, 8) * 1e-5).half(), torch.zeros(16, dtype=torch.long))]
    for method in ("sipp", "sipp_random"):
        assert pc.prune(model, method, 0.5, batches=batches).report.reached == 0.5


def test_a_layer_that_is_used_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(torch.relu(self.a(torch.relu(self.a(x)))))

    with pytest.raises(Unprunable, match="used more than once"):
        pc.prune(Twice(), "sipp", 0.5, batches=[(torch.rand(8, 4), None)])


def test_attention_keeps_its_output_layer():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0])

    smaller, ranks = low_rank(Attending(), 0.5)
    assert list(ranks) == ["head"]
    assert smaller(torch.rand(2, 3, 16)).shape == (2, 3, 16)


def test_mean_channels_do_not_depend_on_chunks():
    layer = nn.Conv2d(2, 2, 3).double()
    x = torch.rand(6, 2, 3, 3, dtype=torch.float64)
    assert torch.allclose(sensitivity(layer, [x], "mean").channel, sensitivity(layer, x.split(1), "mean").channel)
