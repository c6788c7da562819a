"""Sweeps: what is done is told from files alone, the page about many machines works as it stands there."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import pruning_core as pc
from pruning_core.__main__ import main
from pruning_core.book import chapters, sweeps
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments import recipes
from pruning_core.experiments.engine import error_file, note
from pruning_core.records.locks import exclusive
from pruning_core.version import REPOSITORY

PAGE = (REPOSITORY / "book" / "many_machines.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


def test_status_tells_what_is_done_running_failed_and_waiting():
    done, running, failed, waiting = (
        pc.Experiment("lenet300", "digits", recipes.dense(2), seed=seed, width=0.21, limit=600) for seed in range(4)
    )
    pc.run(done, progress=False)
    error_file(failed).write_text("{}")
    first, second, *_ = chapters.find_notebooks()
    for source in (first, second):
        plan = chapters.executed_path(source, sweeps.sweep_root("smoke")).with_suffix(".plan")
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.touch()
    note(plan, [done, running, failed, waiting], None)
    with exclusive(running.record()):
        table = sweeps.sweep_status("smoke").set_index("notebook")
    one, other = (table.loc[f"{source.parent.name}/{source.stem}"] for source in (second, first))
    assert (one["state"], one["experiments"]) == ("running", 4)
    assert one[["done", "running", "failed", "waiting"]].tolist() == [1, 1, 1, 1]
    seconds = pc.records.load(width=0.21)["seconds"].iloc[0]
    assert one["core_hours_left"] == pytest.approx(2 * seconds / 3600)
    assert (other["state"], other["experiments"], other["core_hours_left"]) == ("running", 0, 0)
    assert set(table["state"].iloc[2:]) == {"not started"}


def plan_of_the_first() -> Path:
    first, *_ = chapters.find_notebooks()
    plan = chapters.executed_path(first, sweeps.sweep_root("smoke")).with_suffix(".plan")
    plan.parent.mkdir(parents=True)
    return plan


HALF = b'{"key": "0f", "mod'
ODD_LINES = [b"[1]", b"3", b"{}", b"[" * 100_000, b"\xff\xfe", b"\0", b'{"key": [1]}', b"", HALF]


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: repr(line[:9]))
def test_of_a_list_that_a_killed_process_left_what_is_whole_counts(line, capsys):
    plan = plan_of_the_first()
    note(plan, [pc.Experiment("lenet300", "digits", recipes.dense(2), width=0.21)], None)
    record = plan.read_text().replace(".json", "")  # of no record
    plan.write_bytes(plan.read_bytes() + record.replace('{"key": "', '{"key": "x').encode() + line)
    assert main(["sweep-status", "--profile", "smoke"]) == 0
    assert re.search(r"0_foundations/1_sparsity +running +1 +0 +0 +0 +1 ", capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_list_in_its_place_holds_nothing(kind, capsys):
    plan = plan_of_the_first()
    os.mkfifo(plan) if kind == "pipe" else plan.mkdir()
    assert main(["sweep-status", "--profile", "smoke"]) == 0
    assert re.search(r"0_foundations/1_sparsity +running +0 ", capsys.readouterr().out)


def test_the_hours_of_a_network_that_never_ran_are_unknown(capsys):
    first, *_ = chapters.find_notebooks()
    plan = chapters.executed_path(first, sweeps.sweep_root("paper")).with_suffix(".plan")
    plan.parent.mkdir(parents=True)
    note(plan, [pc.Experiment("vgg16_snip", "cifar10", recipes.dense(2), width=0.123)], None)
    assert main(["sweep-status", "--profile", "paper"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"0_foundations/1_sparsity +running +1 +0 +0 +0 +1 +\?", printed)
    assert "0 done, 0 running, 0 failed, 1 waiting of 1 experiments" in printed


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"profile": "standart"}, UnknownName, "did you mean 'standard'"),
        ({"jobs": 0}, BadInput, "jobs must be at least 1"),
        ({"names": ["nowhere"]}, UnknownName, "unknown notebook"),
    ],
)
def test_a_sweep_that_cannot_begin_says_so(options, kind, match):
    with pytest.raises(kind, match=match):
        sweeps.sweep(**options)


def test_costs_add_up_each_experiment_once():
    row = {"model": "lenet5", "data": "mnist5k", "profile": "standard", "device": "AMD EPYC"}
    rows = [row | {"experiment": "a", "seconds": s} for s in (900.0, 1800.0)]  # measured twice in one run
    rows += [row | {"experiment": "b", "seconds": 1800.0}, row | {"experiment": "c", "seconds": None}]
    rows += [row | {"experiment": "d", "seconds": 3600.0, "profile": "quick", "device": "NVIDIA H200"}]
    table = sweeps.costs(pd.DataFrame(rows)).to_dict("records")
    about = {"model": "lenet5", "data": "mnist5k"}
    assert table == [
        {"profile": "quick", **about, "on": "GPU", "experiments": 1, "hours": 1.0},
        {"profile": "standard", **about, "on": "CPU", "experiments": 2, "hours": 1.0},
    ]


def test_the_page_runs_on_one_machine(monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is an extra")
    (code,) = re.findall(r"```python\n(from pruning_core.*?)```", PAGE, re.S)
    names: dict = {}
    for long, short in (("workers=2", "workers=None"), ("epochs=6", "epochs=1"), ('"mnist5k"', '"digits"')):
        assert long in code
        code = code.replace(long, short)
    exec(code, names)
    assert len(names["rows"].groupby(["method", "seed"])) == 9


def test_the_lines_for_slurm_submit_jobs_that_start_workers(tmp_path, monkeypatch):
    """A dry run: an sbatch that keeps what it is given, and says that it was submitted."""
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is an extra")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\ncp "$1" "{tmp_path}/$$.sh"\necho Submitted batch job $$\n')
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "scancel").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (code,) = re.findall(r"```python\n(from dask_jobqueue.*?)```", PAGE, re.S)
    names: dict = {}
    exec(code.replace("jobs=20", "jobs=2"), names)
    try:
        names["cluster"].sync(names["cluster"]._correct_state)
        scripts = [path.read_text() for path in tmp_path.glob("*.sh")]
    finally:
        names["client"].close()
        names["cluster"].close()
    assert len(scripts) == 2
    for script in scripts:
        assert "#SBATCH -p gpu" in script
        assert "#SBATCH --gres=gpu:1" in script
        before, _, command = script.partition("export PRUNING_CACHE=/shared PRUNING_DEVICE=cuda\n")
        assert before
        assert re.search(r"dask_worker .* --nthreads 1 .*--nworkers 4 ", command)
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.slow
def test_a_sweep_of_two_notebooks_is_not_run_twice(tmp_path):
    place = tmp_path / "with a space"
    environment = os.environ | {"PRUNING_CACHE": str(place), "OMP_NUM_THREADS": "1"}
    names = ["0_foundations/2", "4_snip/2"]
    command = [sys.executable, "-m", "pruning_core", "sweep", *names, "--profile", "smoke", "--jobs", "2"]
    first = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert "2 notebooks run at profile smoke" in first.stdout
    again = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert "0 notebooks run at profile smoke" in again.stdout
    plans = list((place / "sweep" / "smoke").rglob("*.plan"))
    asked = [json.loads(line) for plan in plans for line in plan.read_text().splitlines()]
    assert asked
    assert all((place / "records" / f"{line['key']}.json").exists() for line in asked)
