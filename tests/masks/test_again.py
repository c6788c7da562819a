"""Pruning what was pruned before: dead stays dead and is counted, by masks that are given or that the network carries."""

import copy

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, BudgetError
from pruning_core.masks.masks import Masks

X = torch.randn((6, 2, 7, 7), generator=torch.Generator().manual_seed(0)).double()
BATCHES = [(X, torch.arange(6) % 3)]
WEIGHTS = ["magnitude", "random", "snip", "grasp", "synflow", "rigl", "sipp", "l1_sampling"]
CHANNELS = ["l1_norm", "l2_norm", "geometric_median", "random_channels", "snap", "ispasp"]


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(2, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
        return nn.Sequential(*layers).double().eval()


def zeros(result) -> float:
    weights = [result.model.get_parameter(name) for name in result.sites.weights]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize("how", ["carried", "copied", "given", "wrapped"])
def test_weights_that_are_dead_count_in_the_next_cut(method, how):
    first = pc.prune(network(), method, 0.3, batches=BATCHES)
    model, options, prefix = first.model, {}, ""
    if how == "copied":
        model = copy.deepcopy(model)
    elif how == "given":
        model, options = network(), {"masks": first.masks}
        model.load_state_dict(first.model.state_dict())
    elif how == "wrapped":
        model, prefix = nn.Sequential(model), "0."
    second = pc.prune(model, method, 0.6, batches=BATCHES, seed=1, **options)
    assert second.report.reached == pytest.approx(0.6, abs=1e-3)
    assert zeros(second) == pytest.approx(second.report.reached, abs=1e-3)
    assert second.masks <= Masks({prefix + name: mask for name, mask in first.masks.items()})
    assert "were dead before" in second.report.summary


@pytest.mark.parametrize("method", CHANNELS)
def test_channels_that_are_dead_count_in_the_next_cut(method):
    first = pc.prune(network(), method, 0.3, batches=BATCHES)
    second = pc.prune(first.model, method, 0.6, batches=BATCHES, seed=1)
    removed, total = second.report.removed["channels"]
    assert (removed, total) == (12, 20) and second.masks <= first.masks
    assert second.shrink()[0].out_channels + second.shrink()[2].out_channels == 8


@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_a_schedule_runs_over_what_is_left(schedule):
    first = pc.prune(network(), "magnitude", 0.8)
    second = pc.prune(first.model, "magnitude", 0.9, rounds=4, schedule=schedule)
    assert second.report.reached == pytest.approx(0.9, abs=1e-3) and second.masks <= first.masks
    with pytest.raises(BudgetError, match="already lacks 80"):
        pc.prune(first.model, "magnitude", 0.5, rounds=2, schedule=schedule)


def test_masks_that_are_given_cut_the_network_given_as_well():
    masks = Masks({"0.weight": torch.zeros(12, 2, 3, 3, dtype=torch.bool)})
    model = network()
    result = pc.prune(model, "snip", 0.5, batches=BATCHES, masks=masks)
    assert not result.model[0].weight.any() and model[0].weight.all()


def test_what_lives_again_after_training_is_alive_and_masks_can_be_forgotten():
    first = pc.prune(network(), "random", 0.5)
    nn.init.ones_(first.model[2].weight)
    carried = Masks.carried(first.model)
    assert "2.weight" not in carried and carried["0.weight"].equal(first.masks["0.weight"])
    assert pc.prune(first.model, "magnitude", 0.1, masks={}).report.reached == pytest.approx(0.1, abs=1e-3)
    assert not Masks.carried(network())


@pytest.mark.parametrize(
    ("masks", "error", "match"),
    [
        ([True], BadType, "masks must map names"),
        ({"0.weight": torch.ones(12, 2, 3, 3)}, BadType, "must be a bool tensor"),
        ({"9.weight": torch.ones(1, dtype=torch.bool)}, BadInput, "no parameter '9.weight'"),
        ({"0.weight": torch.ones(1, dtype=torch.bool)}, BadInput, "has shape"),
    ],
)
def test_masks_that_do_not_fit_get_one_sentence(masks, error, match):
    with pytest.raises(error, match=match):
        pc.prune(network(), "magnitude", 0.5, masks=masks)


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_geometric_median_is_one_of_living_filters(rounds):
    for seed in range(6):
        model = network()
        filters = torch.randn((12, 18), generator=torch.Generator().manual_seed(seed)).double() + 0.4
        model[0].weight.data = filters.view_as(model[0].weight).clone()
        if rounds == 2:
            options = {"rounds": 2, "schedule": "linear"}
        else:
            model, options = pc.prune(model, "geometric_median", 0.25, example_input=X, scope=["0"]).model, {}
        found = pc.prune(model, "geometric_median", 0.5, example_input=X, scope=["0"], **options)
        alive = list(range(12))
        for _ in range(2):
            order = torch.cdist(filters[alive], filters[alive]).sum(1).argsort()
            alive = sorted(alive[i] for i in order[3:].tolist())
        assert found.masks["0.weight"].flatten(1).any(1).nonzero().flatten().tolist() == alive
