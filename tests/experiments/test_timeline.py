"""What single stages do to the state of a run, and that an interruption anywhere changes no number."""

import pytest
import torch

import pruning_core as pc
from pruning_core.experiments import play, recipes
from pruning_core.experiments.runs import final_state
from pruning_core.masks.schedules import fraction_after
from pruning_core.models.layers.gates import HardConcreteGate
from pruning_core.training.trainer import Trainer

SETTINGS = {
    "optimizer": pc.Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
    "learning_rate": pc.LearningRate("cosine"),
    "limit": 600,
    "width": 0.2,
}


def experiment(stages, model="lenet300", **options) -> pc.Experiment:
    return pc.Experiment(model, "digits", stages, **(SETTINGS | options))


def rows_of(stages, **options):
    return pc.run(experiment(stages, **options), progress=False)


def numbers(rows):
    return [{name: value for name, value in row.items() if name not in ("seconds", "experiment")} for row in rows]


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


@pytest.mark.parametrize("schedule", ["linear", "geometric", "cubic", "snip_it", "harmonic"])
def test_a_schedule_follows_the_rounds_of_repeat(schedule):
    rows = rows_of([pc.Repeat(4, [pc.Prune("magnitude", 0.9, schedule=schedule), pc.Measure("round")])])
    wanted = [fraction_after(schedule, i, 4, 0.9) for i in range(1, 5)]
    assert [row["sparsity"] for row in rows[:4]] == pytest.approx(wanted, abs=1e-3)


def test_a_schedule_follows_the_events_that_take_place():
    event = pc.Every(2, [pc.Prune("magnitude", 0.8, schedule="linear"), pc.Measure("event")], after=1, times=3)
    rows = rows_of([pc.Train(9, during=event)])
    assert [row["epoch"] for row in rows] == [3, 5, 7, 9]
    assert [row["sparsity"] for row in rows] == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0.8], abs=1e-3)


def test_rounds_of_one_stage_are_those_of_its_schedule():
    at_once = rows_of([pc.Prune("magnitude", 0.9, rounds=3, schedule="cubic")])
    one_by_one = rows_of([pc.Repeat(3, [pc.Prune("magnitude", 0.9, schedule="cubic")])])
    assert [row["loss"] for row in at_once] == [row["loss"] for row in one_by_one]


def test_rewinding_weights_leaves_biases_and_norms_trained():
    state = final_state(
        experiment([pc.Train(2), pc.Save("trained"), pc.Rewind("init", what="weights")], model="lenet5")
    )
    first, trained, now = state.snapshots["init"], state.snapshots["trained"], state.model.state_dict()
    for name, tensor in now.items():
        assert torch.equal(tensor, (first if tensor.dim() > 1 else trained)[name]), name
        assert name.endswith("num_batches_tracked") or not torch.equal(first[name], trained[name]), name


def test_new_random_weights_are_new_and_keep_the_masks():
    stages = [pc.Train(1), pc.Save("trained"), pc.Prune("magnitude", 0.5), pc.Rewind("new")]
    one, again = (final_state(experiment(stages)) for _ in range(2))
    for name, mask in one.masks.items():
        tensor = one.model.state_dict()[name]
        assert torch.count_nonzero(tensor[~mask]) == 0
        assert torch.equal(tensor, again.model.state_dict()[name])
        for label in ("init", "trained"):
            assert (tensor[mask] != one.snapshots[label][name][mask]).float().mean() > 0.99


def test_training_only_the_gates_moves_nothing_else():
    penalty = ("l0", 1e-4)
    stages = [pc.Train(1, penalty=penalty), pc.Save("before"), pc.Train(2, penalty=penalty, only="gates")]
    state = final_state(experiment(stages, optimizer=pc.Optimizer("adam", lr=0.05)))
    gates = [n for n, m in state.model.named_modules() if isinstance(m, HardConcreteGate)]
    assert gates
    for name, tensor in state.model.named_parameters():
        moved = not torch.equal(tensor, state.snapshots["before"][name])
        assert moved == (name.rpartition(".")[0] in gates), name


@pytest.mark.parametrize("optimizer", [SETTINGS["optimizer"], pc.Optimizer("adam", lr=0.01)])
@pytest.mark.parametrize("model", ["lenet300", "resnet20"])
def test_cutting_in_the_middle_of_training_is_the_same_as_masking(model, optimizer):
    """Momentum and moments are cut along with the weights; starting them anew is something else."""
    options = {"model": model, "optimizer": optimizer, "width": 0.25, "limit": 300}

    def loss_with(*cut):
        event = pc.Every(2, [pc.Prune("l1_norm", 0.5), *cut], times=1)
        return rows_of([pc.Train(3, during=event)], **options)[0]["loss"]

    masked, small, fresh = loss_with(), loss_with(pc.Shrink()), loss_with(pc.Shrink(fresh_optimizer=True))
    assert small == pytest.approx(masked, rel=1e-3)
    assert abs(fresh - masked) > 10 * abs(small - masked)


class Stopped(Exception):
    pass


TIMELINES = {
    "fine-tuned": recipes.prune_and_fine_tune("magnitude", 0.8, 3, 2),
    "ticket": recipes.lottery_ticket(0.8, 3, rounds=2, early=1),
    "cut on the way": [
        pc.Train(5, during=pc.Every(1, [pc.Prune("l1_norm", 0.6, schedule="linear"), pc.Shrink(), pc.Measure("cut")])),
        pc.Save("small"),
        pc.Train(2),
        pc.Rewind("small"),
        pc.Train(1),
    ],
    "best epoch": [pc.Train(4, keep="best_validation"), pc.Prune("random", 0.5), pc.Train(2)],
    "gates": recipes.l0(1e-5, 4, 2),
}


@pytest.mark.parametrize("name", TIMELINES)
def test_stopped_after_every_epoch_and_run_again_gives_the_same_rows(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "whole"))
    whole = rows_of(TIMELINES[name])
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "stopped"))
    monkeypatch.setattr(play, "SECONDS_BETWEEN_SAVES", 0)
    trained, train_epoch = [], Trainer.train_epoch

    def one_epoch_a_run(trainer, *arguments):
        if trained:
            raise Stopped
        trained.append(trainer.epoch)
        return train_epoch(trainer, *arguments)

    monkeypatch.setattr(Trainer, "train_epoch", one_epoch_a_run)
    runs = 0
    while True:
        trained.clear()
        runs += 1
        assert runs < 30, "no progress"
        try:
            rows = rows_of(TIMELINES[name])
            break
        except Stopped:
            assert not list((tmp_path / "stopped" / "records").glob("*.json"))
    assert runs >= whole[-1]["epoch"] - 1
    assert numbers(rows) == numbers(whole)
    assert not list((tmp_path / "stopped" / "checkpoints").glob("*-halfway*"))
