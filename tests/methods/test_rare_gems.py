"""Rare Gems: layers with scores, the penalty on them, and the search and training as a recipe."""

import copy
import math

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, Unprunable
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.stages import Measure, Prune, Train
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.methods.rare_gems import RareGems
from pruning_core.models.layers.protocol import to_plain
from pruning_core.models.layers.scored import Scored
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


def network(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
        return RareGems(**settings).prepare(model, torch.zeros(1, 1, 8, 8))


def test_a_layer_uses_the_weights_of_high_score():
    layer = Scored(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        layer.layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.scores.copy_(torch.tensor([[0.51, 0.5], [0.0, 1.0]]))  # one half itself is not above it
    assert layer(torch.ones(1, 2)).tolist() == [[1.0, 4.0]]


def test_the_gradient_goes_straight_through():
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = network()
    model(x).square().sum().backward()
    for scored in (m for m in model if isinstance(m, Scored)):
        plain = copy.deepcopy(model)
        twin = to_plain(plain)
        for parameter in twin.parameters():
            parameter.grad = None
        twin(x).square().sum().backward()
        index = list(model).index(scored)
        expected = scored.layer.weight * twin[index].weight.grad
        assert torch.allclose(scored.scores.grad, expected, atol=1e-6)
        # also where the score is too low to be used: a weight can come back
        assert torch.count_nonzero(scored.scores.grad[scored.scores < 0.5]) > 0


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.ConvTranspose2d(3, 4, 3)])
def test_plain_layers_do_the_same(make):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    scored = nn.Sequential(Scored(make()))
    before = scored(x)
    plain = to_plain(scored)
    assert not any(isinstance(module, Scored) for module in plain.modules())
    assert torch.equal(plain(x), before)


def test_preparing_keeps_the_weights_and_draws_scores():
    fresh = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    weights = [p.detach().clone() for p in fresh.parameters()]
    model = RareGems(signed=False).prepare(fresh, None)
    assert [type(m).__name__ for m in model] == ["Scored", "BatchNorm2d", "ReLU", "Flatten", "Scored"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights, [p for n, p in model.named_parameters() if "scores" not in n], strict=True)
    )
    scores = model[4].scores.detach()
    assert scores.shape == (10, 144) and scores.min() >= 0 and scores.max() < 1
    assert abs(float(scores.mean()) - 0.5) < 0.05
    again = RareGems().prepare(model, None)
    assert again[4].scores.data_ptr() == scores.data_ptr()  # a prepared network is left alone


def test_signed_weights_have_one_size():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 5)
    signs = layer.weight.detach().sign()
    prepared = RareGems().prepare(nn.Sequential(layer), None)
    assert torch.allclose(prepared[0].layer.weight, signs * math.sqrt(2 / 75))


def test_the_penalty_is_the_sum_of_squares_of_living_scores():
    model = network()
    scores = {name: p.detach() for name, p in model.named_parameters() if name.endswith("scores")}
    assert RareGems().penalty(model, Masks()).item() == pytest.approx(
        sum(float(p.square().sum()) for p in scores.values())
    )
    alive = Masks({"1.layer.weight": torch.zeros(20, 64, dtype=torch.bool)})
    assert RareGems().penalty(model, alive).item() == pytest.approx(float(scores["3.scores"].square().sum()))


def test_the_lowest_scores_go_and_the_ticket_is_whole():
    model = network()
    for finish in (False, True):
        result = pc.prune(model, RareGems(finish=finish), 0.8)
        pooled = torch.cat([model[i].scores.flatten() for i in (1, 3)])
        threshold = pooled.sort().values[result.masks.removed]
        for i in (1, 3):
            mask = result.masks[f"{i}.layer.weight"]
            assert torch.equal(mask, model[i].scores >= threshold)
            assert torch.equal(result.model[i].scores, mask.float() if finish else model[i].scores)
            if finish:
                assert torch.equal(result.model[i].used(), mask.float())


def test_the_search_moves_scores_only():
    digits = pc.load_data("digits")
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(model, Optimizer("sgd", 50.0), epochs=1, only=lambda name: name.endswith("scores"))
    trainer.train_epoch(digits.train.subset(320))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.endswith("scores")
    for i in (1, 3):
        assert model[i].scores.min().item() == 0 and model[i].scores.max().item() == 1  # clamped after each step


def test_the_recipe_as_stages():
    search, ticket, measured, tune = recipes.rare_gems(0.9, 20, 7, strength=1e-3, signed=False)
    ((method, strength),) = search.penalty
    assert (method, strength, search.only) == (RareGems(signed=False), 1e-3, "gates")
    # The authors count epochs from 0 and cut after epochs 5, 10, ..., but floor((epochs - 1) / period) times.
    assert search.during.epochs(20) == [6, 11, 16]
    (cut,) = search.during.stages
    assert (cut.budget, cut.schedule) == (Budget(0.9), "geometric")
    assert ticket.method == RareGems(signed=False, finish=True)
    assert measured == Measure("mined")
    assert (tune.epochs, tune.only, tune.penalty) == (7, "weights", None)
    assert recipes.rare_gems(0.5, 151, 1)[0].during.epochs(151)[-1] == 151


@pytest.mark.parametrize(("model", "sparsity"), [("lenet300", 0.9), ("lenet5", 0.6)])
def test_the_recipe_meets_the_budget_and_beats_chance(model, sparsity):
    timeline = [*recipes.rare_gems(sparsity, 11, 10, strength=1e-3), Measure("final")]
    settings = {"width": 0.2, "batch_size": 64}
    experiment = Experiment(model, "digits", timeline, **settings)
    mined, final = run(experiment, progress=False)[:2]
    assert (mined["label"], final["label"], final["method"]) == ("mined", "final", "rare_gems")
    assert final["sparsity"] == pytest.approx(sparsity, abs=1e-3)
    assert final["accuracy"] > 50
    assert final["accuracy"] > mined["accuracy"]
    state = final_state(experiment)
    total = state.masks.total
    assert state.masks.removed == math.floor(sparsity * total + 0.5 + 1e-9)
    for name, mask in state.masks.items():
        assert torch.count_nonzero(state.model.get_parameter(name)[~mask]) == 0
        assert torch.equal(state.model.get_parameter(name.replace("layer.weight", "scores")), mask.float())
    searched = final_state(Experiment(model, "digits", timeline[:1], **settings))
    init = searched.snapshots["init"]
    for name, mask in searched.masks.items():  # the search left the weights as they were
        assert torch.equal(searched.model.get_parameter(name), init[name] * mask)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: recipes.rare_gems(0.9, 5, 1), BadInput, "needs more than 5"),
        (lambda: recipes.rare_gems(0.9, 5, 1, period=0), BadInput, "period"),
        (lambda: recipes.rare_gems(1.0, 10, 1), BadInput, "sparsity"),
        (lambda: pc.prune(nn.Sequential(nn.Linear(4, 2)), "rare_gems", 0.5), Unprunable, "has no scores"),
        (lambda: RareGems().penalty(nn.Linear(4, 2), Masks()), Unprunable, "has no scores"),
        (
            lambda: RareGems().prepare(nn.Sequential(nn.LSTM(4, 3)), None),
            Unprunable,
            "not on '0.weight_ih_l0' of a LSTM",
        ),
        (lambda: RareGems().prepare(nn.Linear(4, 2), None), Unprunable, "inside a network"),
        (lambda: Scored(nn.BatchNorm2d(3)), BadInput, "not on a BatchNorm2d"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_training_of_gates_means_the_scores():
    timeline = [Train(1, penalty=("rare_gems", 0.0), only="gates"), Prune("rare_gems", 0.5), Measure("final")]
    state = final_state(Experiment("lenet300", "digits", timeline, width=0.1))
    init = state.snapshots["init"]
    moved = {
        name for name, p in state.model.named_parameters() if not torch.equal(p, init[name]) and name not in state.masks
    }
    assert moved and all(name.endswith("scores") for name in moved)
