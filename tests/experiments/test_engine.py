"""Many experiments: what is shared comes first and once, what fails is said at the end, workers give the same rows."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pytest

import pruning_core as pc
from pruning_core.commands import main
from pruning_core.errors import BadInput, OutOfTime
from pruning_core.experiments import ExperimentsFailed, engine, recipes, run_all, runs, workers
from pruning_core.experiments.engine import epochs_of, error_file, plan
from pruning_core.experiments.runs import beginnings, checkpoint
from pruning_core.records.files import partial_prefix
from pruning_core.records.locks import exclusive, is_locked
from pruning_core.training.trainer import Trainer

CUTS = [(method, p) for method in ("magnitude", "random") for p in (0.5, 0.8)]


def experiment(timeline, **options):
    return pc.Experiment("lenet300", "digits", timeline, **({"width": 0.2, "limit": 600} | options))


def pruned(seed=0):
    return [experiment(recipes.prune_and_fine_tune(method, p, 2, 1), seed=seed) for method, p in CUTS]


def values(frame):
    return frame.drop(columns=["seconds"]).to_dict("records")


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


@pytest.fixture
def epochs_trained(monkeypatch):
    trained, original = [], Trainer.train_epoch

    def counted(self, *arguments):
        trained.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "train_epoch", counted)
    return trained


@pytest.fixture(scope="module")
def client():
    """A scheduler and one worker as threads of this process."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra")
    with distributed.LocalCluster(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=None
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        yield client


def test_a_plan_names_what_several_begin_with_once_and_first():
    listed = pruned(0) + pruned(1) + [experiment([pc.Measure("untrained")])]
    tasks = plan(listed + listed[:1])  # one that is asked for twice is one task
    assert [task.until is None for task in tasks] == [False] * 2 + [True] * 9
    begun = {task.key: task for task in tasks[:2]}
    for one in listed[:-1]:
        (task,) = [task for task in tasks if task.key == one.key]
        assert task.after == beginnings(one)[0]
        assert begun[task.after].experiment.seed == one.seed
    assert tasks[-1].after is None


def test_a_chain_of_shared_trainings_is_a_chain_of_tasks():
    once = [pc.Train(1), pc.Prune("magnitude", 0.5), pc.Train(1)]
    chain = [experiment([*once, pc.Prune("random", p), pc.Train(1)]) for p in (0.7, 0.8)]
    first, second, *rest = plan([*chain, experiment([pc.Train(1), pc.Measure("dense")])])
    assert (first.after, second.after) == (None, first.key)
    assert [task.after for task in rest] == [second.key, second.key, first.key]


def test_layers_of_a_later_penalty_are_no_shared_beginning():
    plain, gated = experiment([pc.Train(1)]), experiment([pc.Train(1), pc.Train(1, penalty=[("l0", 1e-3)])])
    assert set(beginnings(plain)).isdisjoint(beginnings(gated))
    rows = run_all([plain, gated], progress=False)
    assert rows["epoch"].tolist() == [1, 2]


def test_an_each_that_asks_the_network_ends_what_is_known_before():
    after = [pc.Each("groups", [pc.Prune("l1_norm", 0.5), pc.Train(1)]), pc.Train(1)]
    assert len(beginnings(experiment([pc.Train(2), *after]))) == 1
    named = [pc.Each(["layers.*"], [pc.Prune("magnitude", 0.5), pc.Train(1)])]
    assert len(beginnings(experiment([pc.Train(2), *named]))) == 2


def test_sequence_and_workers_give_equal_rows(client, empty_cache, monkeypatch, epochs_trained):
    here = run_all(pruned(), progress=False)
    in_sequence = len(epochs_trained)
    monkeypatch.setenv("PRUNING_CACHE", str(empty_cache / "other"))
    there = run_all(pruned(), workers=client, progress=False)
    assert values(here) == values(there)
    assert len(epochs_trained) == 2 * in_sequence == 2 * (2 + 4)
    assert values(run_all(pruned(), workers=client, progress=False)) == values(there)
    assert len(epochs_trained) == 2 * in_sequence


def test_the_address_and_the_environment_name_workers_too(client, monkeypatch):
    monkeypatch.setenv("PRUNING_WORKERS", client.scheduler.address)
    with patch.object(engine, "_here", lambda *_: pytest.fail("run in sequence")):
        assert len(run_all(pruned()[:1], progress=False)) == 2
    workers.connect(client.scheduler.address).close()


def test_registered_networks_and_methods_of_ones_own_reach_the_workers(client, monkeypatch):
    @dataclass(frozen=True)
    class Smallest(pc.Method):
        name, citation = "test_smallest", "han2015learning"

        def score(self, view):
            return pc.Scores({name: w.abs() for name, w in view.weights().items()})

    monkeypatch.setitem(pc.MODELS, "test_small", pc.MODELS["lenet300"])
    own = [pc.Experiment("test_small", "digits", [pc.Prune(Smallest(), p)], limit=600) for p in (0.5, 0.6)]
    assert run_all(own, workers=client, progress=False)["sparsity"].round(2).tolist() == [0.5, 0.6]


@dataclass(frozen=True)
class Failing(pc.Method):
    """Raises as often as its list says."""

    name, citation, kind = "test_failing", "han2015learning", RuntimeError
    left = []  # noqa: RUF012

    def score(self, view):
        if Failing.left:
            raise Failing.left.pop()
        return pc.Scores({name: w.abs() for name, w in view.weights().items()})


@pytest.mark.parametrize("where", ["here", "workers"])
def test_what_fails_once_is_tried_again(client, where):
    Failing.left[:] = [RuntimeError("out of luck")]
    failing = experiment([pc.Prune(Failing(), 0.5)])
    rows = run_all([failing], workers=client if where == "workers" else None, progress=False)
    assert rows["sparsity"].round(2).tolist() == [0.5]
    assert not error_file(failing).exists()


@pytest.mark.parametrize("where", ["here", "workers"])
@pytest.mark.parametrize(("error", "tries"), [(RuntimeError("out of luck"), 2), (BadInput("never works."), 1)])
def test_what_fails_keeps_its_error_and_stops_nothing(client, where, error, tries):
    Failing.left[:] = [error] * 4
    failing, *others = experiment([pc.Prune(Failing(), 0.5)]), *pruned()[:2]
    given = client if where == "workers" else None
    with pytest.raises(ExperimentsFailed, match=r"^1 of 3 experiments failed: .*(out of luck|never works)") as caught:
        run_all([failing, *others], workers=given, progress=False)
    assert "\n" not in str(caught.value)
    assert len(Failing.left) == 4 - tries
    assert [failure.key for failure in caught.value.failures] == [failing.key]
    assert all(other.record().exists() for other in others)
    kept = json.loads(error_file(failing).read_text())
    assert kept["error"] in str(caught.value)
    assert "in score" in kept["trace"]
    Failing.left.clear()
    assert len(run_all([failing, *others], workers=given, progress=False)) == 5
    assert not error_file(failing).exists()


def test_what_hangs_on_a_beginning_that_fails_fails_with_it(client):
    broken = [experiment([pc.Train(1, optimizer=pc.Optimizer("sgd", lr=0.1)), pc.Measure(str(k))]) for k in range(2)]
    with (
        patch.object(Trainer, "train_epoch", side_effect=ZeroDivisionError("no steps")),
        pytest.raises(ExperimentsFailed, match=r"2 of 2 experiments failed: ZeroDivisionError: no steps \(2 times\)"),
    ):
        run_all(broken, workers=client, progress=False)


def test_an_interruption_is_no_failure():
    with patch.object(Trainer, "train_epoch", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_all(pruned(), progress=False)


@pytest.mark.parametrize("wrong", [-1, True, 1.5, object()])
def test_workers_that_are_none(wrong):
    with pytest.raises(BadInput, match="workers is a number of processes, a scheduler's address or a Client"):
        run_all(pruned(), workers=wrong, progress=False)


def test_no_scheduler_is_one_sentence(monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is an extra")
    monkeypatch.setattr(workers, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(BadInput, match=r"there is no dask scheduler at 'nowhere:1'\."):
        run_all(pruned(), workers="nowhere:1", progress=False)


def test_without_dask_everything_runs_in_sequence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert len(run_all(pruned()[:2], progress=False)) == 4
    with pytest.raises(BadInput, match=r"workers need dask.distributed: `pip install 'pruning-core\[sweep\]'`"):
        run_all(pruned(), workers=2, progress=False)


def test_checkpoints_in_the_middle_go_where_nobody_shares_them():
    rounds = [experiment(recipes.iterative("magnitude", p, 1, 1, rounds=4)) for p in (0.5, 0.8)]
    run_all(rounds, progress=False)
    kept = {path.stem for path in checkpoint("").parent.glob("*.safetensors")}
    assert kept == {key for one in rounds for key in (beginnings(one)[0], beginnings(one)[-1])}
    with patch.object(Trainer, "train_epoch", lambda *_: pytest.fail("trained again")):
        assert runs.final_state(rounds[0]).epoch == 5


def test_the_bound_on_checkpoints_drops_what_was_not_used_for_longest(monkeypatch):
    run_all([experiment([pc.Train(1)], seed=seed) for seed in range(3)], progress=False)
    sizes = [path.stat().st_size for path in checkpoint("").parent.iterdir()]
    runs.final_state(experiment([pc.Train(1)], seed=0))  # used now
    monkeypatch.setenv("PRUNING_CHECKPOINTS_GB", str(2.5 * max(sizes) / 1e9))
    run_all([experiment([pc.Train(1)], seed=3)], progress=False)
    left = {path.stem for path in checkpoint("").parent.iterdir()}
    assert left == {beginnings(experiment([pc.Train(1)], seed=seed))[0] for seed in (0, 3)}
    monkeypatch.setenv("PRUNING_CHECKPOINTS_GB", "0")
    halves = [checkpoint(name, "-halfway") for name in ("recent", "forgotten", "at-work")]
    for half in halves:
        half.write_bytes(b"half")
    for half in halves[1:]:
        os.utime(half, (time.time() - 8 * 24 * 3600,) * 2)
    written = checkpoint("").parent / f"{partial_prefix()}1-new.safetensors"
    written.touch()
    with exclusive(checkpoint("at-work")):
        run_all([experiment([pc.Train(1)], seed=5)], progress=False)
        assert is_locked(checkpoint("at-work"))
    left = {path.stem for path in checkpoint("").parent.iterdir()}
    assert left == {beginnings(experiment([pc.Train(1)], seed=5))[0], "recent-halfway", "at-work-halfway", written.stem}
    monkeypatch.setenv("PRUNING_CHECKPOINTS_GB", "much")
    with pytest.raises(BadInput, match="PRUNING_CHECKPOINTS_GB is a number of gigabytes"):
        pc.run(experiment([pc.Train(1)], seed=4), progress=False)


def test_a_list_is_noted_for_the_sweep(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNING_PLAN", str(tmp_path / "plan"))
    listed = pruned()[:2]
    run_all(listed, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "plan").read_text().splitlines()]
    assert [line["key"] for line in lines] == [one.key for one in listed]
    assert [line["epochs"] for line in lines] == [3, 3]
    assert epochs_of([pc.Repeat(3, [pc.Train(2), pc.Prune("random", 0.5)]), pc.Train(1)]) == 7


HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(path.with_name(f".lock-{path.name}"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield


@pytest.mark.parametrize("what", ["the record", "the training"])
def test_minutes_end_the_wait_for_another_process(what, empty_cache, capsys):
    one = experiment([pc.Train(1)])
    place = one.record() if what == "the record" else checkpoint(beginnings(one)[0])
    started = time.monotonic()
    with held_by_another_process(place):
        for minutes in (1e-9, 0.01):
            with pytest.raises(
                OutOfTime, match=rf"the time is over while another process makes {place.name}, and the same"
            ):
                pc.run(one, progress=False, max_minutes=minutes)
            with pytest.raises(OutOfTime, match="0 of 1 experiments have their records, and the same call goes on"):
                run_all([one], progress=False, max_minutes=minutes)
    assert time.monotonic() - started < 30
    assert len(run_all([one], progress=False, max_minutes=1e-9)) == 1


def test_minutes_end_the_wait_of_a_command_and_of_workers(empty_cache, capsys):
    one = pc.Experiment(
        "lenet300", "digits", recipes.dense(1), width=0.1, limit=400, profile="smoke", tags={"recipe": "dense"}
    )
    line = "run dense -p epochs 1 --data digits --width 0.1 --limit 400 --profile smoke --max-minutes 0.005"
    with held_by_another_process(one.record()):
        assert main(line.split()) == 75
        assert f"the time is over while another process makes {one.record().name}" in capsys.readouterr().err
        assert main([*line.split(), "--workers", "1"]) == 75
        assert "0 of 1 experiments have their records" in capsys.readouterr().err


def test_who_only_adds_a_tag_to_a_record_waits_no_longer_either(empty_cache):
    one = experiment([pc.Prune("magnitude", 0.5)])
    pc.run(one, progress=False)
    tagged = replace(one, tags={"mine": 1})
    with held_by_another_process(one.record()):
        for call in (pc.run, lambda e, **how: run_all([e], **how)):
            with pytest.raises(OutOfTime, match="the time is over while another process makes"):
                call(tagged, progress=False, max_minutes=1e-9)
    assert pc.run(tagged, progress=False, max_minutes=1e-9)[0]["mine"] == 1


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path):
    place = tmp_path / "new" / "record.json"
    with exclusive(place):
        assert is_locked(place)
    assert not is_locked(place)
    (place.parent / ".lock-record.json").touch()  # as a killed process leaves it
    assert not is_locked(place)
    assert list(place.parent.iterdir()) == []


@pytest.mark.slow
def test_workers_follow_to_another_folder_and_another_cache(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is an extra")
    listed = [experiment([pc.Train(1)], seed=seed) for seed in range(4)]
    try:
        for name, pair in (("one", listed[:2]), ("other", listed[2:])):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            run_all(pair, workers=2, folder=Path("rows"), progress=False)
            assert {path.name for path in (tmp_path / name / "rows").glob("*.json")} == {f"{e.key}.json" for e in pair}
        monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "new"))
        run_all(listed[:2], workers=2, progress=False)
        assert len(list((tmp_path / "new" / "records").glob("*.json"))) == 2
        assert not list((tmp_path / "cache" / "records").glob("*.json"))
    finally:
        workers.end_own_workers()


def test_workers_that_cannot_start_are_one_sentence(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra")

    def fails(**_):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", fails)
    listed = [experiment([pc.Train(1)], seed=seed) for seed in range(2)]
    message = r"^3 processes could not be started \(Nanny failed to start\.\): ask for fewer workers, or for none\.$"
    with pytest.raises(BadInput, match=message):
        run_all(listed, workers=3, progress=False)


def test_workers_that_need_more_files_than_can_be_open_are_refused(monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is an extra")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 60))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    monkeypatch.setattr(workers, "_unheard", lambda make: pytest.fail("processes were started"))
    listed = [experiment([pc.Train(1)], seed=seed) for seed in range(2)]
    with pytest.raises(BadInput, match=r"^2 workers need 64 open files, and the system allows 60: raise the limit"):
        run_all(listed, workers=2, progress=False)
    assert asked == []
    workers._enough_files(1)
    assert asked == [(52, 60)]
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
