"""What is written down while an experiment trains: it changes nothing, and a run that goes on leaves the same log."""

import csv
import json
import os
import resource
import threading
from pathlib import Path

import pytest

import pruning_core as pc
from pruning_core.errors import BadInput, OutOfTime, PruningError
from pruning_core.experiments import Watch, recipes, runs
from pruning_core.experiments.log_files import CURVES, EPOCHS, HOW, MEASURED, read_curves, read_epochs
from pruning_core.experiments.watching import measured_file
from pruning_core.papers.sipp_pfp import SippTags
from pruning_core.papers.snipit import OfficialTags
from pruning_core.training.tensorboard import TensorBoard
from pruning_core.training.trainer import Trainer

pytest.importorskip("tensorboard", reason="an extra")
TIMES = {"seconds", "time/batch_time"}


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


def experiment(watch=None, timeline=None, **options) -> pc.Experiment:
    timeline = timeline or [*recipes.snap_it_during(0.5, 4, steps=1, every=1, after=0), pc.Train(2)]
    settings = {"width": 0.1, "limit": 400, "profile": "smoke"} | options
    return pc.Experiment("mlp5_snip", "digits", timeline, watch=watch, **settings)


def everything(folder: Path, **options) -> Watch:
    return Watch(folder, **({"tags": OfficialTags, "histograms": 2, "sign_flips": True, "elasticities": 2} | options))


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """File -> its rows, without what a clock says."""
    found = {}
    for path in sorted(folder.glob("*/*.csv")):
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        found[str(path.relative_to(folder))] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    return found


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), {"scalars": 0, "histograms": 0, "images": 0}).Reload()


def times_trained(monkeypatch) -> list[int]:
    epochs: list[int] = []
    original = Trainer.train_epoch

    def counted(self, *arguments):
        epochs.append(self.epoch)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "train_epoch", counted)
    return epochs


def test_watching_changes_no_key_and_no_number(tmp_path):
    watched = experiment(everything(tmp_path / "logs"))
    assert watched.key == experiment().key
    assert watched == experiment()
    rows = pc.run(watched, progress=False)
    watched.record().unlink()
    for path in runs.checkpoint("x").parent.glob("*"):
        path.unlink()
    plain = pc.run(experiment(), progress=False)
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in plain
    ]


def test_a_log_holds_every_epoch_under_our_names_and_the_official_ones(tmp_path):
    pc.run(experiment(everything(tmp_path)), progress=False)
    first, second = sorted(tmp_path.glob("*-training*"))
    rows = tables(tmp_path)
    epochs = [row for place in (first, second) for row in rows[f"{place.name}/{EPOCHS}"]]
    assert [row["epoch"] for row in epochs] == ["1", "2", "3", "4", "5", "6"]
    wanted = {"train_loss", "validation_accuracy", "sign_flips", "sign_flips_from_start", "median_elasticity"}
    assert wanted | {"acc/train", "sparse/weight", "time/flops_log_cum"} <= set(epochs[3])
    assert float(epochs[-1]["sparse/node"]) == pytest.approx(0.5, abs=0.01)
    assert 0 < float(epochs[-1]["sign_flips_from_start"]) < 1
    flops = [float(row["time/flops_per_sample"]) for row in epochs]
    samples = len(pc.load_data("digits", limit=400).train)
    assert 10 ** float(epochs[-1]["time/flops_log_cum"]) == pytest.approx(sum(flops) * samples)
    shown = events(first)
    assert {"acc/train", "acc/test", "loss/test", "sparse/hm", "sign_flips"} <= set(shown.Tags()["scalars"])
    assert "train_loss" not in shown.Tags()["scalars"]
    assert [event.step for event in shown.Scalars("acc/train")] == [1, 2, 3, 4]
    assert [event.step for event in shown.Histograms("weight/fc1.weight")] == [2, 4]
    assert [curve["epoch"] for curve in json.loads((first / CURVES).read_text())] == [2, 4]
    (end,) = tmp_path.glob(f"*/{MEASURED}")
    assert end == measured_file(experiment(Watch(tmp_path)))
    assert [row["label"] for row in rows[str(end.relative_to(tmp_path))]] == ["final"]


def test_pictures_histograms_and_texts_have_their_official_names(tmp_path):
    pc.run(experiment(everything(tmp_path, pictures=2), [pc.Train(3)]), progress=False)
    (place,) = tmp_path.glob("*-training1-*")
    shown = events(place)
    layers = [f"weight/{name}" for name in ("fc1.weight", "fc2.weight", "fc3.weight", "fc4.weight", "fc5.weight")]
    network = {"network/confusion", "network/saliency", "network/visualisation", "track/weight_saliency"}
    assert set(shown.Tags()["images"]) == network | {*layers}
    assert [event.step for event in shown.Images("network/visualisation")] == [2]
    confusion = shown.Images("network/confusion")[0]
    assert (confusion.height, confusion.width) == (10, 10)
    assert {"weight/magnitude", "layer/sparsity"} <= set(shown.Tags()["histograms"])
    (layers_left,) = [event.histogram_value for event in shown.Histograms("layer/sparsity")]
    assert (layers_left.num, layers_left.min, layers_left.max) == (5, 100, 100)
    texts = {
        tag: shown.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("args", "architecture")
    }
    assert "model: mlp5_snip" in texts["args"] and "- Train(epochs=3" in texts["args"]
    assert "Linear(" in texts["architecture"]


def test_without_tags_the_columns_have_their_own_names(tmp_path):
    pc.run(experiment(Watch(tmp_path), [pc.Train(1)]), progress=False)
    (place,) = tmp_path.glob("*-training1-*")
    assert {"train_loss", "validation_loss", "learning_rate"} <= set(events(place).Tags()["scalars"])
    (end,) = tmp_path.glob(f"*/{MEASURED}")
    assert {"measured/accuracy", "measured/sparsity"} <= set(events(end.parent).Tags()["scalars"])


def test_the_tags_of_sipp_and_pfp(tmp_path):
    pc.run(
        experiment(Watch(tmp_path, tags=SippTags), recipes.prune_and_fine_tune("magnitude", 0.9, 1, 1)), progress=False
    )
    dense, retrained = sorted(tmp_path.glob("*-training*"))
    assert {"TrainingLoss", "TrainingAcc1", "TrainingTestAcc5"} <= set(events(dense).Tags()["scalars"])
    assert {"RetrainingTestLoss", "RetrainingTestAcc1"} <= set(events(retrained).Tags()["scalars"])
    (end,) = tmp_path.glob(f"*/{MEASURED}")
    pruned, tuned = tables(tmp_path)[str(end.relative_to(tmp_path))]
    found = events(end.parent).Scalars("Test Error param")
    assert {event.step for event in found} == {1000}  # a tenth of the weights is left
    assert [event.value for event in found] == pytest.approx([100 - float(row["accuracy"]) for row in (pruned, tuned)])
    assert {"Top 5 Test Error flops", "Test Loss flops"} <= set(events(end.parent).Tags()["scalars"])
    budgets = [
        event.histogram_value for event in events(end.parent).Histograms("Percentage of Sample Budget Per Layer")
    ]
    assert [budget.num for budget in budgets] == [5, 5]  # layers
    assert [budget.sum for budget in budgets] == pytest.approx([100, 100])
    assert "parameters/text_summary" in events(dense).Tags()["tensors"]


def test_a_run_that_stops_and_goes_on_leaves_the_log_of_one_that_did_not(tmp_path, monkeypatch):
    pc.run(experiment(everything(tmp_path / "whole")), progress=False)
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "other"))
    for epoch in range(1, 6):  # one epoch a call
        with pytest.raises(OutOfTime, match=f"after epoch {epoch}, and the same call goes on"):
            pc.run(experiment(everything(tmp_path / "parts")), progress=False, max_minutes=1e-9)
    pc.run(experiment(everything(tmp_path / "parts")), progress=False, max_minutes=1e-9)
    assert tables(tmp_path / "parts") == tables(tmp_path / "whole")
    (curves,) = (tmp_path / "whole").glob(f"*training1*/{CURVES}")
    assert (tmp_path / "parts" / curves.relative_to(tmp_path / "whole")).read_text() == curves.read_text()
    (place,) = (tmp_path / "parts").glob("*-training1-*")
    assert [event.step for event in events(place).Scalars("acc/train")] == [1, 2, 3, 4]


def test_what_ran_unwatched_is_trained_again_for_its_log_and_only_once(tmp_path, monkeypatch):
    first = pc.run(experiment(), progress=False)
    trained = times_trained(monkeypatch)
    again = pc.run(experiment(everything(tmp_path)), progress=False)
    assert len(trained) == 6
    assert again == first  # read from the record
    assert pc.run_all([experiment(everything(tmp_path))], progress=False)["accuracy"].tolist() == [first[0]["accuracy"]]
    assert len(trained) == 6
    pc.run(experiment(everything(tmp_path, sign_flips=False)), progress=False)  # the log is there, if with more in it
    assert len(trained) == 6


def test_experiments_that_begin_alike_share_the_log_of_their_beginning(tmp_path, monkeypatch):
    trained = times_trained(monkeypatch)
    watch = Watch(tmp_path, tensorboard=False, sign_flips=True)
    cuts = [experiment(watch, recipes.prune_and_fine_tune("magnitude", p, 2, 1)) for p in (0.5, 0.9)]
    pc.run_all(cuts, progress=False)
    assert len(trained) == 4
    assert len(list(tmp_path.glob("*-training1-*"))) == 1
    assert len(list(tmp_path.glob("*-training2-*"))) == 2
    assert not list(tmp_path.glob("*/events*"))


def test_a_damaged_log_is_written_anew(tmp_path, monkeypatch):
    watch = Watch(tmp_path, tensorboard=False)
    pc.run(experiment(watch, [pc.Train(2)]), progress=False)
    whole = tables(tmp_path)
    (place,) = tmp_path.glob("*-training1-*")
    trained = times_trained(monkeypatch)
    for content in (b"", b"\xff\xfe", (place / EPOCHS).read_bytes()[:40]):
        (place / EPOCHS).write_bytes(content)
        measured_file(experiment(watch, [pc.Train(2)])).parent.joinpath("watch.json").write_text("{")
        pc.run(experiment(watch, [pc.Train(2)]), progress=False)
        assert tables(tmp_path) == whole
    assert trained == [0, 1] * 3


def test_another_way_of_watching_is_another_log(tmp_path, monkeypatch):
    timeline = [pc.Train(2)]
    pc.run(experiment(Watch(tmp_path, tensorboard=False), timeline), progress=False)
    trained = times_trained(monkeypatch)
    more = experiment(Watch(tmp_path, tensorboard=False, sign_flips=True), [*timeline, pc.Train(1)])
    pc.run(more, progress=False)
    assert trained == [0, 1, 0]
    (rows,) = (rows for name, rows in tables(tmp_path).items() if "training1" in name)
    assert all("sign_flips" in row for row in rows)


def test_observers_of_ones_own_see_every_epoch(tmp_path):
    def norm(trainer, row):
        row["norm"] = float(sum(p.detach().norm() for p in trainer.model.parameters()))

    pc.run(experiment(Watch(tmp_path, observers=[norm], tensorboard=False), [pc.Train(2)]), progress=False)
    (rows,) = (rows for name, rows in tables(tmp_path).items() if "training" in name)
    assert all(float(row["norm"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histograms": 0}, "histograms must be between 1 and 1000000"),
        ({"elasticities": -1}, "elasticities must be between 1 and 1000000"),
        ({"sign_flips": 1}, "sign_flips must be True or False"),
        ({"tags": "snipit"}, "tags must be a class such as OfficialTags"),
        ({"observers": [3]}, "each of observers must be a function"),
        ({"tags": OfficialTags, "tensorboard": False}, "are for TensorBoard"),
        ({"histograms": 1, "tensorboard": False}, "are for TensorBoard"),
        ({"pictures": 0}, "pictures must be between 1 and 1000000"),
        ({"pictures": 1, "tensorboard": False}, "are for TensorBoard"),
        ({"pictures": 1}, "give tags that have some"),
        ({"pictures": 1, "tags": SippTags}, "give tags that have some"),
        ({"folder": ""}, "folder must be the path"),
    ],
)
def test_what_cannot_be_watched_is_refused_at_once(tmp_path, options, message):
    with pytest.raises(PruningError, match=message):
        Watch(**({"folder": tmp_path} | options))


def test_without_tensorboard_one_sentence_and_tables_still(tmp_path, monkeypatch):
    def missing():
        raise BadInput("TensorBoard is not installed")

    monkeypatch.setattr("pruning_core.experiments.watching.summary_writer", missing)
    with pytest.raises(BadInput, match="not installed"):
        Watch(tmp_path)
    assert not Watch(tmp_path, tensorboard=False).tensorboard
    with pytest.raises(PruningError, match="watch must be of type Watch"):
        experiment("logs")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="watch is a folder for files"):
        Watch(tmp_path / "file", tensorboard=False)
    watch = Watch(tmp_path / "logs", tensorboard=False)
    (tmp_path / "logs").write_text("")  # in the meantime
    with pytest.raises(BadInput, match="cannot write"):
        pc.run(experiment(watch, [pc.Train(1)]), progress=False)


def occupied(place: Path, kind: str) -> None:
    """Something that is no file of a log in the place of one."""
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to({"link to nowhere": "nowhere", "device": "/dev/zero"}[kind])


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere", "device"])
@pytest.mark.parametrize("name", [EPOCHS, CURVES, HOW, MEASURED, "events"])
def test_what_is_no_file_in_the_place_of_one_is_said_before_any_training(name, kind, tmp_path, monkeypatch):
    logs = tmp_path / "logs"
    watched = experiment(Watch(logs), [pc.Train(1), pc.Train(1)])
    place = measured_file(watched).parent
    if name != MEASURED:
        pc.run(experiment(Watch(logs), [pc.Train(1)]), progress=False)
        (place,) = logs.glob("*-training1-*")
    place.mkdir(parents=True, exist_ok=True)
    occupied(next(place.glob("events*")) if name == "events" else place / name, kind)
    trained, there = times_trained(monkeypatch), sorted(logs.rglob("*"))
    with pytest.raises(BadInput, match=r"^cannot write the log: .* is in the place of one: move it\.$"):
        pc.run(watched, progress=False)
    assert not trained
    assert sorted(logs.rglob("*")) == there


def test_a_folder_that_is_none_is_said_before_an_earlier_training(tmp_path, monkeypatch):
    watched = experiment(Watch(tmp_path, tensorboard=False), [pc.Train(1), pc.Train(1)])
    measured_file(watched).parent.write_text("")
    trained = times_trained(monkeypatch)
    with pytest.raises(BadInput, match="cannot write the log: watch is a folder"):
        pc.run(watched, progress=False)
    assert not trained


@pytest.mark.parametrize(
    "content",
    [
        "epoch,a\n1,2,3\n", "epoch,a\n1\n", "a\n1\n", "epoch,a\nx,1\n", "epoch,a\n1.5,1\n", "[" * 100_000, "epoch,a\n1,\0\n,",
        "epoch,a\n1," + "9" * 200_000 + "\n",
    ],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_a_table_that_is_none_holds_no_epochs(content, tmp_path):
    (tmp_path / EPOCHS).write_text(content)
    assert read_epochs(tmp_path) == []


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{}", "3", "[1]", "[{}]", '[{"epoch": "x"}]', '[{"epoch": 9}]', "\0"]
)
def test_curves_that_are_none_are_left_out(content, tmp_path):
    (tmp_path / CURVES).write_text(content)
    assert read_curves(tmp_path, 3) == []


@pytest.mark.parametrize("name", [EPOCHS, CURVES, HOW])
@pytest.mark.parametrize("content", ["too large", "[" * 100_000, "epoch,time/flops_per_sample\n1,x\n"])
def test_a_file_that_somebody_put_there_is_replaced(name, content, tmp_path):
    watch, timeline = everything(tmp_path, elasticities=1), [pc.Train(1)]
    pc.run(experiment(watch, timeline), progress=False)
    whole = tables(tmp_path)
    (place,) = tmp_path.glob("*-training1-*")
    if content == "too large":
        os.truncate(place / name, 10**12)  # a terabyte of nothing
    else:
        (place / name).write_text(content)
    pc.run(experiment(watch, [*timeline, pc.Train(1)]), progress=False)
    (again,) = [rows for path, rows in tables(tmp_path).items() if "training2" in path]
    assert [row["epoch"] for row in again] == ["2"]
    assert whole.keys() <= tables(tmp_path).keys()


NAMES = ["x" * 300, "é" * 200, "a\nb", "a\0b", "../up", "<b>", "a\u202eb", " "]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:8]))
def test_a_method_of_any_name_has_a_folder(name, tmp_path):
    watched = experiment(Watch(tmp_path / "logs"), [pc.Measure()], tags={"method": name})
    pc.run(watched, progress=False)
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name.endswith(watched.key)
    assert folder.name.isprintable()
    assert (folder / MEASURED).is_file()


def test_a_file_of_tensorboard_that_cannot_grow_is_one_sentence(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    board = TensorBoard(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(BadInput, match=r"^cannot write for TensorBoard into .*: File too large\.$"):
            board.add_numbers({f"loss {k}": 1.0 for k in range(100)}, 1)
        with pytest.raises(BadInput, match=r"^cannot write for TensorBoard into "):
            board.close()
        with pytest.raises(BadInput, match=r"cannot write"):
            pc.run(experiment(Watch(tmp_path / "logs"), [pc.Train(1)]), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Traceback" not in capfd.readouterr().err


def test_minutes_for_many_experiments_and_for_fit(tmp_path, monkeypatch):
    trained = times_trained(monkeypatch)
    listed = [experiment(timeline=[pc.Train(2)], seed=seed) for seed in range(2)]
    for done in (0, 1, 1):
        with pytest.raises(OutOfTime, match=f"{done} of 2 experiments have their records"):
            pc.run_all(listed, progress=False, max_minutes=1e-9)
    assert len(pc.run_all(listed, progress=False, max_minutes=1e9)) == 2
    assert trained == [0, 1, 0, 1]  # nothing twice
    data, model = pc.load_data("digits", limit=400), pc.build_model("lenet300", "digits", width=0.1, seed=0)
    with pytest.raises(BadInput, match="max_minutes needs checkpoint="):
        pc.fit(model, data, epochs=2, max_minutes=1)
    with pytest.raises(PruningError, match="max_minutes must be finite and above 0"):
        pc.run(listed[0], max_minutes=0)
    options = {"epochs": 2, "checkpoint": tmp_path / "fit.safetensors", "progress": False}
    with pytest.raises(OutOfTime, match="after epoch 1"):
        pc.fit(model, data, max_minutes=1e-9, **options)
    again = pc.build_model("lenet300", "digits", width=0.1, seed=0)
    assert len(pc.fit(again, data, **options)) == 2
