"""SiPP against its formulas, exact budgets, and what the methods of sensitivity refuse."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, BudgetError, UnknownName, Unprunable
from pruning_core.masks.budgets import Budget
from pruning_core.methods.base import METHODS
from pruning_core.methods.pfp import PFP, PFPRandom, PFPTop
from pruning_core.methods.shared.halves import Largest
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.methods.sipp import SiPP, SiPPHybrid, SiPPRand
from tests.methods.sampled_networks import CHANNEL_METHODS, DOUBLE, inputs_by_hand, network, randomised, seeded, view_of

# --- weights


WEIGHT_METHODS = ["sipp", "sipp_random", "sipp_hybrid", "uniform", "l1_sampling", "l2_sampling", "l1_l2_sampling"]


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
        with pytest.raises(BadInput, match="constant must be finite and above 0"):
            METHODS[method](constant=constant)
    for delta in (0.0, 1.0, -1e-16, math.nan):
        with pytest.raises(BadInput, match=r"delta must lie in \(0, 1\)"):
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


@pytest.mark.parametrize("method", ["sipp", "sipp_random", "sipp_hybrid"])
def test_weights_without_sensitivities_are_refused(method):
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    batches = [(torch.rand(5, 2, 8), None)]
    with pytest.raises(Unprunable, match="linear and 2-d convolutional layers, not Conv1d"):
        pc.prune(model, method, 0.5, batches=batches)
    scoped = pc.prune(model, method, 0.5, batches=batches, scope=["3"])
    assert set(scoped.masks) == {"3.weight"}


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
