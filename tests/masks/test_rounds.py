"""How many cuts a schedule makes when nobody says it."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, UnknownName
from pruning_core.masks.schedules import rounds_of
from pruning_core.models.layers.norms import ClampedBatchNorm2d, SigmoidBatchNorm1d, SigmoidBatchNorm2d


def test_schedules_with_a_number_of_their_own_take_it():
    seen = []

    class Counting(pc.Method):
        name, citation = "counting_rounds", "han2015learning"

        def score(self, view):
            seen.append((view.round, view.of))
            return pc.Scores({name: w.abs() for name, w in view.weights().items()})

    try:
        method = pc.register(Counting)()
        network = nn.Linear(100, 10)
        for schedule, number in (("snip_it", 7), ("tick_tock", 11), ("geometric", 1), ("one_shot", 1)):
            seen.clear()
            assert pc.prune(network, method, 0.5, schedule=schedule).masks.sparsity == 0.5
            assert seen == [(i, number) for i in range(1, number + 1)]
        seen.clear()
        pc.prune(network, method, 0.5, schedule="snip_it", rounds=3)
        assert len(seen) == 3
    finally:
        pc.METHODS.pop("counting_rounds", None)


@pytest.mark.parametrize("schedule", ["linear", "cubic", "harmonic"])
def test_the_others_need_one(schedule):
    with pytest.raises(BadInput, match="needs a number of rounds"):
        pc.prune(nn.Linear(10, 10), "magnitude", 0.5, schedule=schedule)
    with pytest.raises(UnknownName, match="did you mean 'snip_it'"):
        rounds_of("SNIPit", None, 0.5)


def test_a_timeline_does_not_take_a_schedule_for_a_single_cut():
    with pytest.raises(BadInput, match="with one round is a single cut"):
        pc.Experiment("lenet300", "digits", [pc.Prune("snip", 0.9, schedule="snip_it")])
    inside = pc.Every(1, [pc.Prune("snip", 0.9, schedule="snip_it")])
    pc.Experiment("lenet300", "digits", [pc.Prune("snip", 0.9, 7, "snip_it"), pc.Train(2, during=inside)])


@pytest.mark.parametrize("kind", [SigmoidBatchNorm2d, SigmoidBatchNorm1d, ClampedBatchNorm2d])
@pytest.mark.parametrize("momentum", [-1, 1.5, float("nan")])
def test_a_norm_takes_a_share_as_momentum(kind, momentum):
    with pytest.raises(BadInput, match="momentum"):
        kind(3, momentum=momentum)
    assert kind(3, momentum=None).momentum is None


def test_both_norms_together_give_the_chances_of_a_draw():
    weight = torch.tensor([[1.0, -2.0, 3.0, 0.0]], dtype=torch.float64)
    layer = nn.Linear(4, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    kept = torch.zeros(4)
    for seed in range(400):
        kept += pc.prune(layer, "l1_l2_sampling", 0.75, seed=seed).masks["weight"].flatten()
    chances = (weight.abs() + weight.square()).flatten()
    torch.testing.assert_close(kept / kept.sum(), (chances / chances.sum()).float(), rtol=0, atol=0.06)
