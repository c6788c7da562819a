"""Killed, interrupted, out of room, damaged: a training goes on where it was, or says in one sentence why not."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pruning_core.data.loading import load_data
from pruning_core.errors import BadInput, CorruptFile
from pruning_core.records.checkpoints import load_tensors, save_tensors
from pruning_core.training.evaluation import evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer

EPOCHS = 4
STEPS_PER_EPOCH = 18  # 1,150 samples by 64

# A training that says where it is, and waits there, so that it can be hit in the middle of an epoch.
SCRIPT = """
import signal
import time
import torch
from pathlib import Path
from torch import nn
from pruning_core.data import load_data
from pruning_core.records import save_tensors
from pruning_core.training import LearningRate, Optimizer, fit

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs us in the background ignores it
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
steps = 0

def hook(module, inputs):
    global steps
    steps += module.training
    if wait_after and steps == wait_after:
        Path(result + ".waiting").touch()
        time.sleep(60)

model.register_forward_pre_hook(hook)
history = fit(
    model, load_data("digits"), epochs=4, optimizer=Optimizer("adam", lr=0.01), learning_rate=LearningRate("cosine"),
    masks={"1.weight": torch.arange(32 * 64).view(32, 64) % 3 > 0}, keep="best_validation", batch_size=64,
    checkpoint=checkpoint, progress=False,
)
save_tensors(result, dict(model.state_dict()), {"history": list(history), "best": history.best_epoch, "steps": steps})
"""


@pytest.fixture(scope="module")
def start():
    """Starts the script as a process of its own: forked from a server that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    # torch imports torch._dynamo when the first optimizer is made, which takes seconds.
    context.set_forkserver_preload(["pruning_core.training.fit", "sklearn.datasets", "torch._dynamo"])

    def begin(checkpoint, result, wait_after=0):
        names = {"checkpoint": str(checkpoint), "result": str(result), "wait_after": wait_after}
        process = context.Process(target=exec, args=(SCRIPT, names))
        process.start()
        return process

    return begin


def ended(process):
    process.join(60)
    assert process.exitcode == 0


def numbers_in(result):
    tensors, info = load_tensors(result)
    for row in info["history"]:
        del row["seconds"]
    return tensors, info


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    ended(start(folder / "checkpoint", folder / "result"))
    return numbers_in(folder / "result")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_training_ends_with_the_same_numbers(start, undisturbed, tmp_path, how):
    checkpoint, result = tmp_path / "checkpoint", tmp_path / "result"
    process = start(checkpoint, result, wait_after=2 * STEPS_PER_EPOCH + 5)  # in the middle of the third epoch
    deadline = time.monotonic() + 60
    while not (tmp_path / "result.waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, how)
    process.join(30)
    assert process.exitcode == (-signal.SIGKILL if how == signal.SIGKILL else 1)
    assert load_tensors(checkpoint)[1]["epoch"] == 2
    assert not result.exists()
    ended(start(checkpoint, result))
    tensors, info = numbers_in(result)
    wanted, wanted_info = undisturbed
    assert equal(tensors, wanted)
    assert info["history"] == wanted_info["history"]
    assert info["best"] == wanted_info["best"]
    assert info["steps"] == 2 * STEPS_PER_EPOCH  # and the first two epochs were not trained again
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".partial")] == []


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def trained(digits, checkpoint, **options):
    settings = {"epochs": EPOCHS, "optimizer": Optimizer(lr=0.05), "learning_rate": LearningRate("cosine"), "seed": 1}
    return fit(network(), digits, checkpoint=checkpoint, progress=False, **(settings | options))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
@pytest.mark.parametrize("every", [1, 2])
def test_an_exception_after_any_epoch_loses_nothing(digits, tmp_path, epoch, every):
    def stop(trainer, row):
        if trainer.epoch == epoch:
            raise Stopped

    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        trained(digits, path, checkpoint_every=every, observers=[stop])
    assert load_tensors(path)[1]["epoch"] == (epoch - 1) // every * every  # the observer stopped it before it was saved
    resumed, straight = trained(digits, path), trained(digits, None)
    assert equal(resumed.model.state_dict(), straight.model.state_dict())
    assert [row["train_loss"] for row in resumed] == [row["train_loss"] for row in straight]


def test_a_finished_training_is_read_back(digits, tmp_path, monkeypatch):
    first = trained(digits, tmp_path / "checkpoint", keep="best_validation")

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "train_epoch", never)
    again = trained(digits, tmp_path / "checkpoint", keep="best_validation")
    assert list(again) == list(first)
    assert again.best_epoch == first.best_epoch
    assert equal(again.model.state_dict(), first.model.state_dict())
    assert evaluate(again.model, digits.test) == evaluate(first.model, digits.test)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed"),
        ({"epochs": 9}, "epochs"),
        ({"optimizer": Optimizer(lr=0.06)}, "settings"),
        ({"learning_rate": LearningRate()}, "learning_rate"),
        ({"batch_size": 64}, "batch_size"),
        ({"masks": {"1.weight": torch.ones(16, 64, dtype=torch.bool)}}, "masks"),
        ({"penalty": lambda model: 0.1 * model[1].weight.abs().sum()}, "penalty"),
        ({"precision": "bfloat16"}, "precision"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(digits, tmp_path, change, named):
    path = tmp_path / "checkpoint"
    trained(digits, path, epochs=0)
    before = path.read_bytes()
    with pytest.raises(BadInput, match=rf"belongs to another run \(it differs in [a-z_ ,]*{named}") as caught:
        trained(digits, path, **{"epochs": 0, **change})
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_data_or_weights_is_refused(digits, tmp_path):
    path = tmp_path / "checkpoint"
    trained(digits, path, epochs=0)
    with pytest.raises(BadInput, match="differs in data"):
        trained(digits.score, path, epochs=0)
    with pytest.raises(BadInput, match="differs in initial weights"):
        fit(network(seed=5), digits, epochs=0, optimizer=Optimizer(lr=0.05), learning_rate=LearningRate("cosine"),
            seed=1, checkpoint=path, progress=False)  # fmt: skip
    save_tensors(path, {}, {"kind": "masks"})
    with pytest.raises(BadInput, match="not a checkpoint of a training"):
        trained(digits, path, epochs=0)


def test_a_damaged_checkpoint_is_refused_with_the_way_out(digits, tmp_path):
    path = tmp_path / "checkpoint"
    trained(digits, path, epochs=1)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:middle],
        content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        b"",
        b"{}",
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=r"Delete it to train from the start\.$") as caught:
            trained(digits, path, epochs=1)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == damaged
    path.unlink()
    trained(digits, path, epochs=1)


def refused_before_training(digits, path, monkeypatch):
    def never(*_):
        raise AssertionError("trained although the checkpoint cannot be written")

    monkeypatch.setattr(Trainer, "train_epoch", never)
    with pytest.raises(BadInput) as caught:
        trained(digits, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_found_before_training(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    refused_before_training(digits, tmp_path / "file" / "checkpoint", monkeypatch)


def test_no_permission_is_found_before_training(digits, tmp_path, monkeypatch):
    def denied(self, content):  # as root, which the tests may be, no folder is closed
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", denied)
    refused_before_training(digits, tmp_path / "checkpoint", monkeypatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_room_keeps_the_last_good_checkpoint(digits, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    trained(digits, path, epochs=2, checkpoint_every=2)
    good = path.read_bytes()
    tensors, info = load_tensors(path)

    def to_the_full_device(self, content):
        with open("/dev/full", "wb") as full:
            full.write(content)
        return len(content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", to_the_full_device)
        with pytest.raises(BadInput, match="room") as caught:
            save_tensors(path, tensors, info)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == good
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_two_runs_may_write_the_same_checkpoint(start, tmp_path):
    checkpoint, results = tmp_path / "checkpoint", [tmp_path / "one", tmp_path / "two"]
    for process in [start(checkpoint, result) for result in results]:
        ended(process)
    assert equal(load_tensors(results[0])[0], load_tensors(results[1])[0])
    assert load_tensors(checkpoint)[1]["epoch"] == 4
