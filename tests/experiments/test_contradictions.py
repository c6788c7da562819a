"""Checkpoints and records with the right name and checksum, but with other contents: refused with what to delete."""

import json
import os

import pytest
import torch

import pruning_core as pc
from pruning_core import records
from pruning_core.__main__ import main
from pruning_core.errors import BadInput, CorruptFile
from pruning_core.experiments import runs
from pruning_core.experiments.studies import study
from pruning_core.records import hashes, table
from pruning_core.records.checkpoints import load_tensors, save_tensors

SETTINGS = {"width": 0.1, "profile": "smoke", "limit": 200}


def experiment(epochs=1):
    return pc.Experiment("lenet300", "digits", [pc.Train(epochs), pc.Prune("magnitude", 0.5), pc.Measure()], **SETTINGS)


def refused(call, path):
    with pytest.raises(CorruptFile) as caught:
        call()
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert "elete" in sentence
    return sentence


INFO = {
    "dense": [None, [], {"weights": None}, {"weights": {}}, {"more": {}}],
    "epoch": ["x", None, -1, 1.5, True],
    "rows": [None, {}, "x", [1], [{"accuracy": "x"}], [{"accuracy": 101.0}], [{"seed": 1.5}]],
    "seconds": ["x", None, -1.0, [1.0], float("nan")],
    "training_macs": ["x", None, -1.0],
    "last": [None, [], "x"],
    "kind": ["masks", None],
}
TENSORS = {
    "NaN weights": lambda name, t: t * float("nan") if name.startswith("model:") else t,
    "NaN in a snapshot": lambda name, t: t * float("nan") if name.startswith("snapshot:") else t,
    "no snapshot": lambda name, t: None if name.startswith("snapshot:") else t,
    "no weights": lambda name, t: None if name.startswith("model:") else t,
    "whole numbers": lambda name, t: t.long(),
    "a mask of floats": lambda name, t: t,  # one joins
}


@pytest.fixture
def trained(empty_cache):
    """An experiment, and the checkpoint of its training; its record is gone."""
    one = experiment()
    pc.run(one, progress=False)
    one.record().unlink()
    return one, runs.checkpoint(runs.beginnings(one)[0])


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in INFO for value in INFO[name]], ids=str)
def test_a_checkpoint_that_says_something_else_of_itself(trained, name, value):
    one, path = trained
    tensors, info = load_tensors(path)
    save_tensors(path, tensors, info | {name: value})
    refused(lambda: pc.run(one, progress=False), path)
    path.unlink()
    assert len(pc.run(one, progress=False)) == 1


@pytest.mark.parametrize("kind", TENSORS)
def test_a_checkpoint_with_other_tensors(trained, kind):
    one, path = trained
    tensors, info = load_tensors(path)
    changed = {name: TENSORS[kind](name, tensor) for name, tensor in tensors.items()}
    changed = {name: tensor for name, tensor in changed.items() if tensor is not None}
    changed |= {"mask:fc1.weight": torch.ones(2)} if "mask" in kind else {}
    save_tensors(path, changed, info)
    refused(lambda: pc.run(one, progress=False), path)


def put(kind, path):
    """Something else than a file of ours in its place."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hole":
        path.touch()
        os.truncate(path, 5 * 2**40)
    elif kind == "no JSON":
        path.write_text("{")
    else:
        path.symlink_to("nowhere")


@pytest.mark.parametrize("suffix", ["", "-halfway"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere", "hole"])
def test_something_else_in_the_place_of_a_checkpoint(empty_cache, kind, suffix, monkeypatch):
    one = experiment()
    path = runs.checkpoint(runs.beginnings(one)[0], suffix)
    path.parent.mkdir(parents=True)
    put(kind, path)
    monkeypatch.setattr(pc.Trainer, "train_epoch", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(BadInput, match=r"elete (it|the link)") as caught:
        pc.run(one, progress=False)
    assert str(path) in str(caught.value)


TRAINER = {
    "epoch": ["x", None, -1, 1.5],
    "history": [None, "x", {}, [1]],
    "best": ["x", {}, {"epoch": "x", "validation_accuracy": 1.0}, {"epoch": 1, "validation_accuracy": None}],
    "steps_averaged": ["x", None, -1],
}
TRAINING = {
    "NaN": ("model:", lambda t: t * float("nan")),
    "whole numbers": ("model:", lambda t: t.long()),
    "another generator": ("generator", lambda t: t[:5]),
    "a generator of floats": ("generator", lambda t: t.float()),
    "NaN moments": ("optimizer:exp_avg:", lambda t: t * float("nan")),
    "moments of another shape": ("optimizer:exp_avg:", lambda t: t[:1]),
    "steps of another shape": ("optimizer:step:", lambda t: torch.ones(3)),
    "no second moments": ("optimizer:exp_avg_sq:", lambda t: None),
}


def fitted(path, digits):
    network = pc.build_model("lenet300", "digits", width=0.1, seed=0)
    return pc.fit(network, digits, epochs=2, checkpoint=path, optimizer=pc.Optimizer("adam", lr=1e-3), progress=False)


@pytest.fixture(scope="module")
def digits():
    return pc.load_data("digits", limit=200)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in TRAINER for value in TRAINER[name]], ids=str)
def test_a_training_that_says_something_else_of_itself(digits, tmp_path, name, value):
    path = tmp_path / "checkpoint"
    fitted(path, digits)
    tensors, info = load_tensors(path)
    save_tensors(path, tensors, info | {name: value})
    assert "Delete it to train from the start." in refused(lambda: fitted(path, digits), path)


@pytest.mark.parametrize("kind", TRAINING)
def test_a_training_with_other_tensors(digits, tmp_path, kind):
    path, (start, change) = tmp_path / "checkpoint", TRAINING[kind]
    fitted(path, digits)
    tensors, info = load_tensors(path)
    changed = {name: change(tensor) if name.startswith(start) else tensor for name, tensor in tensors.items()}
    save_tensors(path, {name: tensor for name, tensor in changed.items() if tensor is not None}, info)
    refused(lambda: fitted(path, digits), path)


def test_half_a_training_that_does_not_hold_what_it_must(empty_cache, monkeypatch):
    monkeypatch.setattr("pruning_core.experiments.play.SECONDS_BETWEEN_SAVES", 0.0)
    two = experiment(epochs=2)
    halfway = runs.checkpoint(runs.beginnings(two)[0], "-halfway")
    with pytest.raises(pc.errors.OutOfTime):
        pc.run(two, progress=False, max_minutes=1e-9)
    tensors, info = load_tensors(halfway)
    save_tensors(halfway, tensors, info | {"trainer": info["trainer"] | {"epoch": "x"}})
    refused(lambda: pc.run(two, progress=False), halfway)
    halfway.unlink()
    assert len(pc.run(two, progress=False)) == 1


ROWS = {
    "seed": [1, None, "0", 0.5],
    "model": ["lenet5", None, 3],
    "data": ["mnist", None],
    "profile": ["paper", "no profile", None, 1],
    "width": [0.2, None, "x"],
    "limit": [100, None],
    "random_labels": [3],
    "accuracy": ["x", 100.5, -1, [1], True],
    "loss": ["x", [1.0]],
    "seconds": ["x", -1.0],
}


def written(path, rows):
    """A record with a fitting checksum, whatever it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": table.FORMAT, "sha256": hashes.digest(rows), "rows": rows}))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ROWS for value in ROWS[name]], ids=str)
def test_a_record_that_contradicts_its_experiment(empty_cache, name, value):
    one = experiment()
    (row,) = pc.run(one, progress=False)
    written(one.record(), [row | {name: value}])
    refused(lambda: pc.run(one, progress=False), one.record())
    one.record().unlink()
    assert pc.run(one, progress=False)[0]["accuracy"] == row["accuracy"]


def test_a_record_of_another_profile_of_its_kind_is_read(empty_cache):
    rows = pc.run(experiment(), progress=False)
    quick = pc.Experiment("lenet300", "digits", experiment().timeline, **SETTINGS | {"profile": "quick"})
    assert pc.run(quick, progress=False) == rows


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere", "hole", "no JSON"])
@pytest.mark.parametrize("of", ["experiment", "study"])
def test_something_else_in_the_place_of_a_record(empty_cache, kind, of, monkeypatch):
    one = experiment()
    settings = {"name": "none"}
    if of == "study":
        study(settings, lambda: [{"n": 1}])
        (path,) = (empty_cache / "records").glob("*.json")
        path.unlink()
    else:
        path = one.record()
        path.parent.mkdir(parents=True)
    put(kind, path)
    monkeypatch.setattr("pruning_core.experiments.runs.start", lambda *_: pytest.fail("it was played"))
    with pytest.raises(BadInput, match=r"elete (it|the link)") as caught:
        study(settings, lambda: pytest.fail("it was made")) if of == "study" else pc.run(one, progress=False)
    assert str(path) in str(caught.value)


def test_half_a_letter_in_a_record_is_told(empty_cache, capsys):
    row = {"experiment": "a", "profile": "paper", "model": "lenet300", "data": "digits", "accuracy": 1.0}
    path = empty_cache / "records" / "a.json"
    for where in ({"note": "\ud800"}, {"tags": {"x": ["\udfff"]}}, {"\ud800": 1}):
        written(path, [row | where])
        assert "half of a letter" in refused(records.load, path)
    assert main(["scoreboard"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    written(path, [row | {"note": "\U0001f600"}])  # two halves, as JSON has them
    assert records.load(path)["note"].tolist() == ["\U0001f600"]


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for row in ({"accuracy": 101.0}, {"accuracy": "x"}, {"seed": 0.5}, {"model": 3}):
        with pytest.raises((BadInput, TypeError), match=f"the {next(iter(row))} of a row must"):
            records.write_rows(tmp_path / "r.json", [{"experiment": "a"}, row])
    records.write_rows(tmp_path / "r.json", [{"study": "own", "accuracy": "high", "loss": [1, 2]}])
    assert records.read_rows(tmp_path / "r.json")[0]["accuracy"] == "high"
