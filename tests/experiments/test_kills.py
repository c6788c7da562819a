"""Kills of trainings, workers, notebooks, sweeps, downloads and saves at times drawn from a seed, commands that are stopped,
and two containers on one cache: the same numbers at the end, nothing trained twice beyond the last checkpoint, nothing left."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytest.importorskip("psutil", reason="comes with dask.distributed, an extra")
pytest.importorskip("distributed", reason="dask.distributed is an extra")

from pruning_core.records import load_tensors, remove_leftovers
from tests.experiments.kills import COMMAND, KINDS, SIGNALS, Kind, Run, kills, made, slow_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    with slow_server() as address:
        yield address


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_loses_nothing_and_leaves_nothing(kind, tmp_path):
    """The script that is there to be run for longer: ``python -m tests.experiments.kills --count 50``."""
    (chain,) = kills(1, seed=sorted(KINDS).index(kind), folder=tmp_path, kinds=(kind,))
    assert chain["kind"] == kind


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].command])
def test_a_stopped_command_leaves_nothing_and_says_so_in_one_sentence(kind, how, address, tmp_path):
    """Ctrl-C in a terminal goes to all processes, SIGTERM from a scheduler to one."""
    run = made(KINDS[kind], tmp_path / "run", address)
    assert run.killed(how, 0.2, lambda: run.progress() > 0, group=how == signal.SIGINT)
    assert run.status == 128 + how
    assert "Traceback" not in run.errors()
    assert run.errors().endswith("\ninterrupted; the same command goes on from here\n")
    assert run.left() == []


@pytest.mark.parametrize("kind", ["training", "workers", "notebooks", "sweep"])
def test_a_command_that_cannot_end_in_time_leaves_as_little_and_says_the_same(kind, address, tmp_path):
    """As on a machine that is so loaded that its patience ends first: nothing of what would put things in order runs."""
    impatient = KINDS[kind].script.replace(" = 50.0", " = 0.0")
    run = made(replace(KINDS[kind], script=impatient), tmp_path / "run", address)
    assert run.killed(signal.SIGTERM, 0.2, lambda: run.progress() > 0)
    assert run.status == 128 + signal.SIGTERM
    assert run.errors().endswith("interrupted; the same command goes on from here\n")
    run.finish()
    assert run.left() == []


ENDS_SLOWLY = """
import atexit, os, time

def ending():
    with open(os.environ["PROGRESS"], "w") as file:
        file.write("ending")
    time.sleep(0.5)

atexit.register(ending)  # before what puts things in order, which was registered earlier
as_process()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_when_its_work_is_done_puts_things_in_order_all_the_same(how, address, tmp_path):
    kind = replace(KINDS["workers"], script=KINDS["workers"].script.replace("\nas_process()\n", ENDS_SLOWLY))
    assert kind.script != KINDS["workers"].script
    run = made(kind, tmp_path / "run", address)
    ends = lambda: run.progress_file.exists() and run.progress_file.read_text() == "ending"  # noqa: E731
    assert not run.killed(how, 0.1, ends), run.status
    assert run.left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 1.5])
def test_workers_that_are_stopped_while_they_start_leave_nothing(seconds, how, address, tmp_path):
    run = made(KINDS["workers"], tmp_path / "run", address)
    starts = lambda: any((run.folder / "cache" / "running").glob("*"))  # noqa: E731
    assert run.killed(how, seconds, starts, group=how == signal.SIGINT)
    assert run.status == 128 + how
    assert run.left() == []
    assert "Traceback" not in run.errors()


STOPPABLE = {
    **{name: kind for name, kind in KINDS.items() if kind.command},
    "official": Kind(COMMAND, "official mnist/lenet300_100 --epochs 20 --limit 2000 --data digits --seeds 2"),
}


@pytest.mark.parametrize("group", [False, True], ids=["to the parent", "to all"])
@pytest.mark.parametrize("name", STOPPABLE)
def test_a_command_ends_three_seconds_after_ctrl_c(name, group, address, tmp_path):
    """With its own patience, and with all that it has started; on a machine with more to do than it has cores, in that
    proportion later."""
    kind = replace(
        STOPPABLE[name], script="\n".join(line for line in STOPPABLE[name].script.splitlines() if " = 50.0" not in line)
    )
    assert kind.script != STOPPABLE[name].script
    run = made(kind, tmp_path / "run", address)
    assert run.killed(signal.SIGINT, 0.2, lambda: run.progress() > 0, group=group)
    assert run.status == 128 + signal.SIGINT
    assert run.seconds <= 3 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_a_training_survives_seven_kills(address, tmp_path):
    draw = random.Random(0)
    whole, hurt = (made(KINDS["training"], tmp_path / name, address) for name in ("whole", "hurt"))
    whole.finish()
    done = 0
    for _ in range(7):
        before = hurt.progress()
        done += hurt.killed(signal.SIGKILL, draw.random() * 0.1, lambda before=before: hurt.progress() > before)
    hurt.finish()
    assert hurt.values() == whole.values()
    assert whole.progress() <= hurt.progress() <= whole.progress() + done
    assert hurt.left() == []


@pytest.mark.parametrize("how", SIGNALS)
def test_what_is_saved_is_the_last_or_the_one_before(how, address, tmp_path):
    draw, run = random.Random(1), made(KINDS["save"], tmp_path / "run", address)
    place = run.folder / "saved"
    for _ in range(4):
        place.unlink(missing_ok=True)
        before = run.progress()
        run.killed(how, draw.random() * 0.3, lambda before=before: run.progress() > before)
        tensors, info = load_tensors(place)
        assert (tensors["weight"] == info["number"]).all()
    remove_leftovers(run.folder)
    assert run.left() == []


def test_nothing_of_a_killed_download_is_taken_or_left(address, tmp_path):
    draw, run = random.Random(2), made(KINDS["download"], tmp_path / "run", address)
    data = run.folder / "cache" / "data"
    for how in SIGNALS:
        before = run.progress()
        assert run.killed(how, draw.random() * 0.5, lambda before=before: run.progress() > before)
        assert not (data / "cifar100.safetensors").exists()
    run.finish()
    assert [path.name for path in data.iterdir()] == ["cifar100.safetensors"]


NAMESPACED = ["unshare", "--pid", "--fork", "--mount-proc"]
SWEEPS = """
import sys, time
from pathlib import Path
from pruning_core.records import remove_leftovers, write_atomically

def slowly(place):
    place.write_text("half")
    Path("begun").touch()
    while not Path("swept").exists():
        time.sleep(0.01)

write_atomically("record.json", slowly) if sys.argv[1] == "write" else (remove_leftovers("."), Path("swept").touch())
"""


def _can_unshare() -> bool:
    try:
        return subprocess.run([*NAMESPACED, "true"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not _can_unshare(), reason="needs the right to make namespaces of processes, as root has")
def test_two_containers_on_one_cache_take_nothing_from_each_other(tmp_path):
    """Two namespaces count their processes anew: number 1 of one is not number 1 of the other, and lives."""
    run = Run(tmp_path, "-c", SWEEPS)
    start = functools.partial(subprocess.Popen, cwd=tmp_path, env=run.environment)
    writer = start([*NAMESPACED, sys.executable, "-c", SWEEPS, "write"])
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    assert start([*NAMESPACED, sys.executable, "-c", SWEEPS, "sweep"]).wait(60) == 0
    assert writer.wait(60) == 0
    assert (tmp_path / "record.json").read_text() == "half"
