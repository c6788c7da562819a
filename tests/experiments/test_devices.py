"""Experiments on a device: rows, checkpoints that any device reads, and several workers that share one."""

import pytest
import torch

import pruning_core as pc
from pruning_core.experiments import final_state, recipes
from pruning_core.experiments.importances import seconds_of_choice


def small(timeline, device, **options):
    settings = {"optimizer": pc.Optimizer("sgd", lr=0.05), "batch_size": 64, "width": 0.25, "limit": 300}
    return pc.Experiment("vgg8", "digits", timeline, device=device, **settings | options)


def played(experiment):
    return pc.run(experiment, progress=False)


TIMELINES = {
    "weights": recipes.prune_and_fine_tune("snip", 0.8, 2, 1),
    "channels": recipes.prune_and_shrink("l1_norm", 0.5, 2, 1),
    "sensitivities": [
        pc.Train(1),
        pc.Prune("pfp", pc.Budget(0.5, of="weights"), batches="score", samples=8),
        pc.Shrink(),
    ],
    "penalties": [
        pc.Train(2, penalty=("slimming", 1e-3), during=pc.Every(1, [pc.Prune("slimming", 0.3), pc.Shrink()]))
    ],
    "rewinding": recipes.lottery_ticket(0.5, 2, rounds=1, early=1),
    "statistics": [pc.Train(1), pc.RecalibrateBatchNorm(64), pc.Attack("fgsm", (0.1,), samples=8)],
    "average": [pc.Train(2, average=0.9, keep="last")],
    "fast": [pc.Train(2, precision="bfloat16"), pc.Prune("l2_norm", 0.5), pc.Shrink(), pc.Train(1)],
}


@pytest.mark.parametrize("name", TIMELINES)
def test_a_timeline_is_played_on_every_device(name, device, tmp_path, monkeypatch):
    found = []
    for place in ("cpu", device):
        experiment = small(TIMELINES[name], place, channels_last=name == "fast")
        monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / f"{len(found)}"))  # the device is no part of the key
        found.append(played(experiment))
    for row, other in zip(*found, strict=True):
        for column in ("label", "epoch", "channels_removed", "asked", "epsilon"):
            assert row.get(column) == other.get(column)
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=0.1)
    state = final_state(experiment)
    assert {parameter.device.type for parameter in state.model.parameters()} == {device}
    assert {mask.device.type for mask in state.masks.values()} <= {"cpu"}


def test_a_run_goes_on_from_a_checkpoint_on_every_device(device, empty_cache):
    """The checkpoint of the first training, made on the device, is what the CPU and the device go on from."""
    first = final_state(small([pc.Train(2)], device)).model.state_dict()
    for place in ("cpu", device):
        loaded = final_state(small([pc.Train(2), pc.Prune("magnitude", 0.5)], place))
        for name, tensor in loaded.model.state_dict().items():
            kept = loaded.masks.get(name, torch.ones_like(tensor, dtype=torch.bool, device="cpu"))
            assert torch.equal(tensor.cpu(), first[name].cpu() * kept)


def test_the_time_of_a_choice_is_taken_on_the_device(device):
    data = pc.load_data("digits", device=device)
    model = pc.build_model("vgg8", "digits", width=0.25, seed=0).to(device)
    assert seconds_of_choice(model, "thinet", 0.5, list(data.score.subset(16).batches(8))) > 0


@pytest.mark.slow  # starts two processes
def test_workers_that_share_a_device_give_the_rows_of_one(device, empty_cache, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is an extra")
    experiments = [small([pc.Train(1), pc.Prune("l1_norm", 0.5)], device, seed=seed) for seed in (0, 1)]
    rows = pc.run_all(experiments, workers=2, progress=False).set_index("seed")
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "alone"))
    alone = pc.run_all(experiments, progress=False).set_index("seed")
    for seed in (0, 1):
        difference = abs(rows["accuracy"][seed] - alone["accuracy"][seed])
        assert difference <= (0 if device == "cpu" else 3)
        assert rows["sparsity"][seed] == pytest.approx(alone["sparsity"][seed], abs=0.05)
