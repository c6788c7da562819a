"""Timelines and experiments: what the stages do, records, shared beginnings, interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pruning_core as pc
from pruning_core.errors import BadInput, CorruptFile, PruningError, UnknownName
from pruning_core.experiments import recipes, runs
from pruning_core.experiments.network_stages import recalibrate
from pruning_core.experiments.runs import final_state
from pruning_core.experiments.stages import Importances
from pruning_core.experiments.state import flatten
from pruning_core.masks.tracing import find_groups
from pruning_core.records import machine
from pruning_core.training.trainer import Trainer

SETTINGS = {
    "optimizer": pc.Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
    "learning_rate": pc.LearningRate("cosine"),
    "limit": 600,
}


def experiment(timeline, model="lenet300", data="digits", **options) -> pc.Experiment:
    return pc.Experiment(model, data, timeline, **(SETTINGS | {"width": 0.2} | options))


def run(timeline, **options):
    return pc.run(experiment(timeline, **options), progress=False)


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


def test_pruned_weights_stay_gone_through_fine_tuning():
    before, after = run(recipes.prune_and_fine_tune("magnitude", 0.8, 2, 2))
    assert before["sparsity"] == after["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert (before["label"], after["label"]) == ("pruned", "fine-tuned")
    assert (before["epoch"], after["epoch"]) == (2, 4)
    assert after["accuracy"] > before["accuracy"]
    assert after["training_macs"] == pytest.approx(2 * before["training_macs"])
    assert {"python", "torch", "device", "revision", "seed", "profile"} <= set(after)


def test_rows_name_the_revision_of_the_start(monkeypatch):
    revision = ["at the start"]
    monkeypatch.setattr(machine, "_revision", lambda: revision[0])

    class Edited(pc.Method):
        name, citation = "edited", "han2015learning"

        def score(self, view):
            revision[0] = "edited meanwhile"
            return pc.Scores({name: weight.abs() for name, weight in view.weights().items()})

    rows = run([pc.Measure("dense"), pc.Prune(Edited(), 0.5), pc.Measure("cut")])
    assert [row["revision"] for row in rows] == ["at the start"] * 2
    assert revision == ["edited meanwhile"]


def test_iterative_pruning_ends_at_its_target():
    (row,) = run(recipes.iterative("magnitude", 0.9, 1, 1, rounds=3))
    assert row["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert row["epoch"] == 4


def test_shrinking_leaves_a_smaller_network_of_the_same_accuracy():
    masked = run(recipes.prune_and_fine_tune("l1_norm", 0.5, 2, 0))
    small = run(recipes.prune_and_shrink("l1_norm", 0.5, 2, 0))
    assert small[0]["accuracy"] == masked[0]["accuracy"]
    assert small[0]["macs"] == masked[0]["macs"]
    assert small[0]["channels_removed"] == pytest.approx(0.5, abs=0.02)
    state = final_state(experiment(recipes.prune_and_shrink("l1_norm", 0.5, 2, 0)))
    assert sum(p.numel() for p in state.model.parameters()) == small[0]["parameters"]


def test_pruning_further_after_a_removal_counts_what_is_gone():
    cut = [pc.Prune("l1_norm", 0.25), pc.Shrink(), pc.Prune("l1_norm", 0.5), pc.Shrink(), pc.Measure("twice")]
    (row,) = run([pc.Train(1), *cut])
    (once,) = run([pc.Train(1), pc.Prune("l1_norm", 0.5), pc.Measure("twice")])
    assert row["channels_removed"] == pytest.approx(once["channels_removed"], abs=0.02)


def test_pruning_and_shrinking_in_the_middle_of_training():
    during = pc.Every(1, [pc.Prune("l2_norm", 0.6, schedule="linear"), pc.Shrink()], after=1)
    (row,) = run([pc.Train(4, during=during)])
    assert row["channels_removed"] == pytest.approx(0.6, abs=0.03)
    assert row["epoch"] == 4


def test_events_fire_after_the_epochs_that_the_docstring_names():
    assert pc.Every(4, [pc.Measure("x")], after=4).epochs(20) == [8, 12, 16, 20]
    assert pc.Every(2, [pc.Measure("x")], times=2).epochs(9) == [2, 4]
    assert pc.Every(4, [pc.Measure("x")], after=-1).epochs(9) == [3, 7]
    with pytest.raises(BadInput, match="the epoch of the first event, must be at least 1, not 0"):
        pc.Every(4, [pc.Measure("x")], after=-4)
    with pytest.raises(BadInput, match="never takes place"):
        pc.Train(3, during=pc.Every(4, [pc.Measure("x")]))


def test_rewinding_brings_back_the_first_weights_of_the_survivors():
    timeline = [pc.Train(1), pc.Prune("magnitude", 0.5), pc.Rewind("init"), pc.Measure("rewound")]
    state = final_state(experiment(timeline))
    for name, mask in state.masks.items():
        weights, first = state.model.state_dict()[name], state.snapshots["init"][name]
        assert torch.equal(weights, first * mask)
    for name, tensor in state.model.state_dict().items():
        if name not in state.masks:
            assert torch.equal(tensor, state.snapshots["init"][name])


def test_a_lottery_ticket_is_trained_as_often_as_it_says():
    (row,) = run(recipes.lottery_ticket(0.8, 2, rounds=2, early=1))
    assert row["epoch"] == 1 + 3 * 1
    assert row["sparsity"] == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(BadInput, match="nothing was saved as 'never'"):
        run([pc.Rewind("never")])


def test_l0_gates_shut_more_under_a_stronger_penalty():
    adam = {"optimizer": pc.Optimizer("adam", lr=0.05)}
    adam |= {"limit": None, "width": 0.4}
    removed = [run(recipes.l0(strength, 30, 1), **adam)[0]["channels_removed"] for strength in (1e-6, 1e-3)]
    assert removed[0] < removed[1]


def test_each_part_is_pruned_within_its_own_scope():
    timeline = [pc.Each("groups", [pc.Prune("l1_norm", 0.5)]), pc.Measure("all")]
    (row,) = run(timeline)
    assert row["channels_removed"] == pytest.approx(0.5, abs=0.02)
    model = pc.build_model("lenet300", "digits", width=0.2)
    steps = list(flatten(timeline, model, lambda: find_groups(model, torch.randn(1, 1, 8, 8))))
    assert len(steps) == 3
    assert steps[0].part != steps[1].part


def test_batch_norm_statistics_are_measured_anew():
    digits = pc.load_data("digits")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64, momentum=0.1)).eval()
    recalibrate(model, digits.train, samples=len(digits.train))
    pooled = digits.train.inputs.flatten(1)
    assert torch.allclose(model[1].running_mean, pooled.mean(0), atol=0.02)
    assert model[1].momentum == 0.1
    assert not model[1].training


def test_a_record_is_read_the_second_time(monkeypatch):
    timeline = recipes.dense(1)
    first = run(timeline)
    monkeypatch.setattr(runs, "_played", lambda *_: pytest.fail("played again"))
    assert run(timeline) == first


def test_tags_and_device_do_not_make_another_experiment_but_all_else_does():
    base = experiment(recipes.dense(1))
    assert replace(base, tags={"figure": 1}).key == base.key == replace(base, device="cuda").key
    others = [
        replace(base, seed=1),
        replace(base, width=0.3),
        replace(base, batch_size=64),
        experiment(recipes.dense(2)),
    ]
    assert len({base.key, *(other.key for other in others)}) == 5
    tagged = pc.run(replace(base, tags={"figure": 1}), progress=False)
    assert tagged[0]["figure"] == 1
    for tag in ("seed", "accuracy", "threads", "attack_success", "remark"):
        with pytest.raises(BadInput, match=f"the tag '{tag}' is a column of the rows already"):
            replace(base, tags={tag: 99.9})
    assert pc.run(replace(base, tags={"method": "mine"}), progress=False)[0]["method"] == "mine"


def test_a_run_reads_no_tags_of_another(tmp_path):
    bare = experiment([pc.Prune("snip", 0.5)], seed=3)
    mine = replace(bare, tags={"method": "mine", "figure": 1})
    asked = [
        mine,
        bare,
        replace(bare, tags={"method": "yours"}),
        replace(bare, tags={"figure": 2, "table": 3}),
        mine,
        bare,
    ]
    found = [pc.run(e, progress=False, folder=tmp_path)[0] for e in asked]
    told = [{name: row.get(name) for name in ("method", "figure", "table")} for row in found]
    assert told == [
        {"method": "mine", "figure": 1, "table": None},
        {"method": "snip", "figure": None, "table": None},
        {"method": "yours", "figure": None, "table": None},
        {"method": "snip", "figure": 2, "table": 3},
        {"method": "mine", "figure": 1, "table": None},
        {"method": "snip", "figure": None, "table": None},
    ]
    assert found[0] == found[4] and found[1] == found[5] and list(found[0]) == list(found[4])
    assert all(set(row) - set(e.tags) == set(found[1]) - set(e.tags) for e, row in zip(asked, found, strict=True))
    (kept,) = pc.records.load(tmp_path).to_dict("records")  # for those who collect
    assert (kept["method"], kept["figure"], kept["table"]) == ("mine", 1, 3) and "untagged" not in kept


def _holds_itself():
    held: list = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    "tags",
    [
        *({name: 1} for name in ("Accuracy", "SEED", "ac\u0441uracy", "experiment\u200b", "seconds ")),
        *({name: 1} for name in ("\n", "a\0b", "1st", "a|b", "a-b")),
        *({"note": value} for value in (10**5000, [-(10**5000)], "\ud800", {"a": "\udfff"}, _holds_itself())),
    ],
    ids=lambda tags: ascii(tags)[:20] if "note" not in tags else type(tags["note"]).__name__,
)
def test_a_tag_that_looks_like_a_column_or_cannot_be_written_is_refused_when_it_is_given(tags):
    with pytest.raises(BadInput) as refused:
        experiment([pc.Train(1)], tags=tags)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("device", ["cuda", "meta", "mps", "xla", "lazy"])
def test_a_device_that_is_not_there_is_one_sentence_before_anything_starts(device, monkeypatch):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("it is there")
    monkeypatch.setattr(runs, "_played", lambda *_, **__: pytest.fail("it started"))
    planned = [experiment([pc.Train(1)], seed=11), experiment([pc.Train(1)], seed=12, device=device)]
    for start in (lambda: pc.run(planned[1], progress=False), lambda: pc.run_all(planned, progress=False)):
        with pytest.raises(
            BadInput, match=f"device='{device}' was asked for, but torch (sees no GPU|cannot use it here)"
        ):
            start()


@pytest.mark.parametrize(
    "workers", [10**11, -1, 1.5, True, "²", "99999999999", "localhost", "1.2.3.4", "nowhere:", "nowhere:123456"]
)
def test_a_number_of_workers_is_bounded_wherever_it_is_said(workers, monkeypatch):
    monkeypatch.setattr("pruning_core.experiments.workers._client_of", lambda w: pytest.fail(f"{w} was called upon"))
    planned = [experiment([pc.Train(1)], seed=s) for s in (11, 12)]
    with pytest.raises(BadInput, match=r"workers (is a number of processes|must be at most 1024)"):
        pc.run_all(planned, workers=workers, progress=False)
    monkeypatch.setenv("PRUNING_WORKERS", str(workers))
    with pytest.raises(BadInput, match=r"workers (is a number of processes|must be at most 1024)"):
        pc.run_all(planned, progress=False)


def test_every_column_that_a_stage_writes_is_closed_to_tags():
    attack = pc.Attack("fgsm", (0.1,), samples=8)
    timeline = [
        pc.Train(1),
        pc.Prune("ucs", 0.3),
        Importances("seen"),
        pc.Prune("slimming", pc.Budget(below=-1.0, of="channels")),
    ]
    rows = pc.run(experiment([*timeline, attack], "vgg8", random_labels=1), progress=False)
    for column in {name for row in rows for name in row} - {"method"}:
        with pytest.raises(BadInput, match="column of the rows already"):
            experiment([pc.Train(1)], tags={column: 0})


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_rows_name_the_threads_and_the_precision_of_the_training(device, monkeypatch):
    used = []
    monkeypatch.setattr(Trainer, "train_epoch", _watched(Trainer.train_epoch, used))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        (row,) = run([pc.Train(1, precision="bfloat16")], device=device)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (used, row["threads"], row["precision"]) == ([1], 1, "bfloat16")


def _watched(train_epoch, used):
    def watched(*arguments):
        used.append(torch.get_num_threads())
        return train_epoch(*arguments)

    return watched


def test_a_record_of_something_else_in_the_right_place_is_refused():
    one, other = experiment([pc.Train(1)]), experiment([pc.Train(1)], seed=1)
    pc.run(one, progress=False)
    one.record().rename(other.record())
    with pytest.raises(CorruptFile, match=f"{other.record().name} holds rows of something else .* delete this file"):
        pc.run(other, progress=False)
    other.record().unlink()
    assert pc.run(other, progress=False)[0]["experiment"] == other.key


def test_a_checkpoint_of_something_else_in_the_right_place_is_refused():
    one, other = (experiment([pc.Train(epochs), pc.Measure("x")]) for epochs in (1, 2))
    pc.run(one, progress=False)
    (mine,), (theirs,) = map(runs.beginnings, (one, other))
    runs.checkpoint(mine).rename(runs.checkpoint(theirs))
    with pytest.raises(CorruptFile, match=f"{theirs}.safetensors is not the checkpoint that belongs there: delete it"):
        pc.run(other, progress=False)
    runs.checkpoint(theirs).unlink()
    assert pc.run(other, progress=False)[0]["epoch"] == 2


def test_an_edited_method_of_ones_own_is_another_experiment():
    from dataclasses import dataclass

    def own(factor):
        @dataclass(frozen=True)
        class Own(pc.Method):
            name = "test_own"
            citation = "han2015learning"

            if factor:

                def score(self, view):
                    return pc.Scores({n: w.abs() for n, w in view.weights().items()})
            else:

                def score(self, view):
                    return pc.Scores({n: -w.abs() for n, w in view.weights().items()})

        return Own()

    keys = {experiment([pc.Prune(own(factor), 0.5)]).key for factor in (True, False, True)}
    assert len(keys) == 2


def test_the_same_dense_network_is_trained_once(monkeypatch):
    trained = []
    original = runs.play
    monkeypatch.setattr(
        runs,
        "play",
        lambda state, step, *rest, **options: (trained.append(step.stage), original(state, step, *rest, **options)),
    )
    for method in ("magnitude", "random", "l1_norm"):
        run(recipes.prune_and_fine_tune(method, 0.5, 2, 1))
    assert sum(isinstance(stage, pc.Train) and stage.epochs == 2 for stage in trained) == 1
    assert sum(isinstance(stage, pc.Train) and stage.epochs == 1 for stage in trained) == 3


def test_sharing_a_beginning_changes_no_number(empty_cache, monkeypatch, tmp_path):
    timeline = recipes.prune_and_fine_tune("magnitude", 0.5, 2, 1)
    run(recipes.prune_and_fine_tune("random", 0.5, 2, 1))
    shared = run(timeline)
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "another"))
    alone = run(timeline)
    volatile = {"seconds"}
    strip = [[{k: v for k, v in row.items() if k not in volatile} for row in rows] for rows in (shared, alone)]
    assert strip[0] == strip[1]


SCRIPT = """
import json, os, sys
import torch
torch.set_num_threads(1)
import pruning_core as pc
from pruning_core.experiments import play, recipes
play.SECONDS_BETWEEN_SAVES = 0
experiment = pc.Experiment("lenet300", "digits", recipes.prune_and_fine_tune("magnitude", .8, 40, 5), width=.2, limit=600)
rows = pc.run(experiment, progress=False)
print(json.dumps([{k: r[k] for k in ("accuracy", "loss", "sparsity", "validation_loss")} for r in rows]))
"""


def _start(cache: Path) -> subprocess.Popen:
    environment = os.environ | {"PRUNING_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    root = Path(pc.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=root, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow  # the trainings of tests/experiments/test_interruptions.py are killed in the fast tier
def test_killed_without_warning_and_run_again_gives_the_same_numbers(tmp_path, monkeypatch):
    killed = _start(tmp_path / "killed")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("checkpoints/*-halfway*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("records/*.json"))
    found = json.loads(_start(tmp_path / "killed").communicate(timeout=120)[0])
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "whole"))
    timeline = recipes.prune_and_fine_tune("magnitude", 0.8, 40, 5)
    rows = pc.run(pc.Experiment("lenet300", "digits", timeline, width=0.2, limit=600), progress=False)
    assert found == [{key: row[key] for key in found[0]} for row in rows]
    assert not list((tmp_path / "killed").rglob(".partial*"))


@pytest.mark.slow
def test_two_processes_may_run_the_same_experiment(tmp_path):
    processes = [_start(tmp_path / "cache") for _ in range(2)]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert found[0] == found[1]
    assert len(list((tmp_path / "cache").glob("records/*.json"))) == 1


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: experiment([], model="lenet30"), UnknownName, "did you mean 'lenet300'"),
        (lambda: experiment([], data="digit"), UnknownName, "did you mean 'digits'"),
        (lambda: experiment([], profile="quik"), UnknownName, "did you mean 'quick'"),
        (lambda: pc.Prune("magnitud", 0.5), UnknownName, "did you mean 'magnitude'"),
        (lambda: pc.Prune("magnitude", 1.5), BadInput, "sparsity"),
        (lambda: pc.Prune("magnitude", 0.5, schedule="cubik"), UnknownName, "did you mean 'cubic'"),
        (lambda: pc.Train(-1), BadInput, "epochs must be at least 0"),
        (lambda: pc.Repeat(0, [pc.Train(1)]), BadInput, "n must be at least 1"),
        (lambda: pc.Repeat(2, ["train"]), PruningError, "each of stages must be a stage, not 'train'"),
        (lambda: pc.Rewind(what="biases"), UnknownName, "Allowed: all, weights"),
        (lambda: recipes.recipe("dens"), UnknownName, "did you mean 'dense'"),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, kind, match):
    with pytest.raises(kind, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "torchvision/nix"}, "^unknown model 'torchvision/nix'"),
        ({"model": "torchvision/ResNet18"}, "did you mean 'torchvision/resnet18'"),
        ({"width": 0.5}, "is built as torchvision defines it: width must be 1"),
        ({"norm": "none"}, "is built as torchvision defines it"),
    ],
)
def test_a_network_that_torchvision_does_not_have_is_refused_when_the_experiment_is_made(options, message):
    with pytest.raises(BadInput, match=message):
        pc.Experiment(**({"model": "torchvision/resnet18", "data": "digits", "timeline": []} | options))
