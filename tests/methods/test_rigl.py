"""RigL: what is dropped, what grows, how much of it and when, and that nothing else moves."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, BudgetError
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.stages import Every, Measure, Prune, Train
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.rigl import Rigl, exchange
from pruning_core.methods.shared.elasticities import loss_gradients
from pruning_core.pruning import prune_step
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def batches():
    return list(pc.load_data("digits").score.subset(64).batches(32))


def sparse_network(sparsity=0.7, across="erk", seed=0):
    """A perceptron after the random start: network, masks, sites."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    sites = find_sites(model, channels=False)
    budget = Budget(sparsity, across=across)
    masks = prune_step(model, Rigl(), budget, sites, Masks(), batches=[(torch.zeros(1, 1, 8, 8), None)]).masks
    return model, masks, sites, budget


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize(("across", "sparsity"), [("erk", 0.7), ("uniform", 0.1), ("layer", 0.7), ("global", 0.7)])
def test_every_layer_keeps_its_number_of_weights(across, sparsity, batches):
    model, masks, sites, budget = sparse_network(sparsity, across)
    moved = prune_step(model, Rigl(drop=0.5), budget, sites, masks, batches, round=1, of=4).masks
    assert moved != masks
    assert counts(moved) == counts(masks)


def test_the_smallest_are_dropped_and_the_largest_gradients_grow(batches):
    model, masks, sites, budget = sparse_network()
    before = {name: model.get_parameter(name).detach().clone() for name in sites.weights}
    gradients, _ = loss_gradients(model, sites.weights, batches[:1], F.cross_entropy)
    method = Rigl(drop=0.4)
    moved = prune_step(model, method, budget, sites, masks, batches, round=2, of=5).masks
    for name in sites.weights:
        old, new, weight, gradient = masks[name], moved[name], before[name].abs(), gradients[name].abs()
        number = math.floor(method.fraction(2, 5) * int(old.sum()))
        smallest = weight[old].sort().values[:number]
        dropped = old & (weight <= smallest.max())
        candidates = ~old | dropped
        assert int(dropped.sum()) == number
        expected = (old & ~dropped) | (candidates & (gradient >= gradient[candidates].sort().values[-number]))
        assert torch.equal(new, expected)
        assert torch.count_nonzero(model.get_parameter(name)[new & ~old]) == 0  # what is new starts at 0
        assert torch.equal(model.get_parameter(name)[new & old], before[name][new & old])


def test_a_weight_may_grow_right_after_it_was_dropped():
    weight, gradient = torch.tensor([0.1, 1.0, 2.0, 0.0, 0.0]), torch.tensor([9.0, 0.0, 0.0, 1.0, 2.0])
    alive = torch.tensor([True, True, True, False, False])
    assert exchange(weight, gradient, alive, 0.4).tolist() == [True, True, True, False, False]
    assert exchange(weight, gradient, alive, 0.7).tolist() == [True, False, True, False, True]


def test_equal_values_leave_the_lower_index_alive():
    weight, alive = torch.ones(6), torch.tensor([True, True, True, True, False, False])
    assert exchange(weight, torch.zeros(6), alive, 0.0).tolist() == alive.tolist()
    assert exchange(weight, torch.tensor([0.0, 0, 0, 0, 5, 5]), alive, 0.25).tolist() == [True] * 3 + [
        False,
        True,
        False,
    ]


def test_the_number_of_exchanged_weights_is_rounded_down():
    alive = torch.ones(10, dtype=torch.bool)
    alive[5:] = False
    gradient = torch.arange(10.0)
    assert torch.equal(exchange(torch.ones(10), gradient, alive, 0.19), alive)
    assert int((exchange(torch.ones(10), gradient, alive, 0.59) & ~alive).sum()) == 2
    assert (
        int((exchange(torch.ones(10), gradient, alive, 0.6) & ~alive).sum()) == 3
    )  # 0.6 * 5 is 3, whatever floats say


def test_the_cosine():
    method = Rigl(drop=0.3, end=4)
    found = [method.fraction(i, 10) for i in (1, 2, 3, 4, 9)]
    expected = [0.15 * (1 + math.cos(math.pi * t / 4)) for t in (1, 2, 3)] + [0.0, 0.0]
    assert found == pytest.approx(expected, abs=1e-12)
    assert Rigl(drop=0.3).fraction(1, 1) == pytest.approx(0.15)  # halfway to the one after the last
    assert [Rigl().fraction(i, 3) for i in (1, 2, 3)] == sorted(
        [Rigl().fraction(i, 3) for i in (1, 2, 3)], reverse=True
    )


def test_nothing_changes_without_a_drop(batches):
    model, masks, sites, budget = sparse_network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert prune_step(model, Rigl(drop=0), budget, sites, masks, batches).masks == masks
    assert prune_step(model, Rigl(end=2), budget, sites, masks, batches, round=2, of=2).masks == masks
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_start_is_random_and_spread_as_asked():
    first, again = sparse_network()[1], sparse_network()[1]
    assert first == again
    assert first.sparsity == pytest.approx(0.7, abs=1e-3)
    density = {name: float(mask.float().mean()) for name, mask in first.items()}
    assert density["1.weight"] / density["3.weight"] == pytest.approx((94 / 1920) / (40 / 300), rel=0.01)
    even = sparse_network(across="layer")[1]
    assert [float(mask.float().mean()) for mask in even.values()] == pytest.approx([0.3, 0.3], abs=1e-3)


def test_masks_of_parameters_out_of_scope_stay(batches):
    model, masks, _, _ = sparse_network()
    sites = find_sites(model, channels=False, scope=["3"])
    there = masks["3.weight"]
    budget = Budget(1 - int(there.sum()) / there.numel())
    moved = prune_step(model, Rigl(), budget, sites, masks, batches).masks
    assert torch.equal(moved["1.weight"], masks["1.weight"])
    assert not torch.equal(moved["3.weight"], masks["3.weight"])


def test_what_grows_has_no_momentum(batches):
    digits = pc.load_data("digits")
    for settings in (Optimizer("sgd", 0.1, momentum=0.9, weight_decay=1e-2), Optimizer("adam", 0.01)):
        model, masks, sites, budget = sparse_network()
        trainer = Trainer(model, settings, epochs=2, masks=masks)
        trainer.train_epoch(digits.train.subset(256))
        moved = prune_step(model, Rigl(), budget, sites, masks, batches).masks
        trainer.masks = moved
        for name in sites.weights:
            state = trainer.optimizer.state[model.get_parameter(name)]
            for entry in (e for e in state.values() if isinstance(e, torch.Tensor) and e.shape == moved[name].shape):
                assert torch.count_nonzero(entry[moved[name] & ~masks[name]]) == 0
                assert torch.count_nonzero(entry[moved[name] & masks[name]]) > 0
        trainer.train_epoch(digits.train.subset(256))
        for name in sites.weights:
            assert torch.count_nonzero(model.get_parameter(name)[~moved[name]]) == 0
            assert torch.count_nonzero(model.get_parameter(name)[moved[name] & ~masks[name]]) > 0


def test_the_recipe_as_stages():
    start, train = recipes.rigl(0.9, 20, every=2, drop=0.5)
    assert (start.method.name, start.budget) == ("random", Budget(0.9, across="erk"))
    assert train.during == Every(2, (Prune(Rigl(drop=0.5, end=7.5), Budget(0.9, across="erk")),), times=7)
    assert train.during.epochs(20)[-1] == 14  # the last before three quarters of the training
    assert recipes.rigl(0.9, 8)[1].during.epochs(8) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("across", ["erk", "layer"])
def test_the_recipe_beats_chance_and_stays_as_sparse(across):
    timeline = [*recipes.rigl(0.9, 20, across=across), Measure("final")]
    experiment = Experiment("lenet300", "digits", timeline, width=0.2, batch_size=64)
    rows = run(experiment, progress=False)
    assert rows[-1]["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert (rows[-1]["method"], rows[-1]["asked"]) == ("rigl", 0.9)
    assert rows[-1]["accuracy"] > 50
    state = final_state(experiment)
    still = final_state(Experiment("lenet300", "digits", timeline[:1] + [Train(20)], width=0.2, batch_size=64))
    assert counts(state.masks) == counts(still.masks)
    assert state.masks != still.masks


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Rigl(drop=1.5), BadInput, r"drop must lie in \[0, 1\], not 1\.5"),
        (lambda: Rigl(drop=-0.1), BadInput, r"drop must lie in \[0, 1\], not -0\.1"),
        (lambda: Rigl(drop="0.3"), BadType, "drop must be a number"),
        (lambda: Rigl(end=0), BadInput, "end must be finite and above 0"),
        (lambda: Rigl(batches=0), BadInput, "batches must be at least 1"),
        (lambda: recipes.rigl(0.9, 1), BadInput, "leave no exchange"),
        (lambda: recipes.rigl(0.9, 10, every=8), BadInput, "leave no exchange every 8"),
        (lambda: recipes.rigl(0.9, 10, every=0), BadInput, "every"),
        (lambda: recipes.rigl(0.9, 10, until=1.2), BadInput, r"until must lie in \(0, 1\]"),
        (lambda: recipes.rigl(1.0, 10), BadInput, "sparsity"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_thresholds_and_lower_sparsities_are_refused(batches):
    model, masks, sites, _ = sparse_network()
    with pytest.raises(BadInput, match="no scores to compare"):
        prune_step(model, Rigl(), Budget(below=0.1), sites, masks, batches)
    with pytest.raises(BudgetError, match="revive"):
        prune_step(model, Rigl(), Budget(0.5, across="erk"), sites, masks, batches)
