"""Workers, schedulers and clients that are killed: the rows are the same, and nothing is trained twice beyond what a killed
process had not saved yet."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pruning_core as pc
from pruning_core.experiments import recipes, run_all
from pruning_core.experiments.runs import beginnings
from pruning_core.version import REPOSITORY

psutil = pytest.importorskip("psutil", reason="comes with dask.distributed, an extra")
pytest.importorskip("distributed", reason="dask.distributed is an extra")
pytestmark = pytest.mark.slow

CELLS = """
import pruning_core as pc
from pruning_core.experiments import recipes

METHODS = ("magnitude", "random", "l1_norm", "l2_norm", "synflow")

def cells():
    return [
        pc.Experiment("lenet5", "digits", recipes.prune_and_fine_tune(method, p, 3, 2), seed=seed, profile="smoke", limit=1000)
        for seed in (0, 1) for method in METHODS for p in (.5, .6, .7, .8, .9, .95)
    ]
"""

CLIENT = """
import sys
from cells import cells
from pruning_core.experiments import run_all
run_all(cells(), workers=sys.argv[1], progress=False).to_json(sys.argv[2], orient="records")
"""

# Loaded by every worker before it begins: each epoch that is trained leaves a line.
COUNTED = """
import os
from pruning_core.training.trainer import Trainer

def counted(self, *arguments, original=Trainer.train_epoch):
    with open(os.environ["EPOCHS_TRAINED"], "a") as file:
        file.write("epoch\\n")
    return original(self, *arguments)

Trainer.train_epoch = counted
"""


class Machines:
    """A scheduler, two workers and a client, each in a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.result, self.epochs = folder, folder / "rows.json", folder / "epochs"
        for name, text in (("cells", CELLS), ("client", CLIENT), ("counted", COUNTED)):
            (folder / f"{name}.py").write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        path = os.pathsep.join([str(folder), str(REPOSITORY)])
        own = {"PYTHONPATH": path, "PRUNING_CACHE": str(folder / "cache"), "EPOCHS_TRAINED": str(self.epochs)}
        self.environment = os.environ | own | {"OMP_NUM_THREADS": "1"}
        self.started: dict[str, subprocess.Popen] = {}

    def start(self, name: str) -> None:
        dask = [sys.executable, "-m", "dask"]
        commands = {
            "scheduler": [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"],
            "workers": [*dask, "worker", self.address, "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0",
                        "--no-dashboard", "--preload", "counted"],
            "client": [sys.executable, "client.py", self.address, str(self.result)],
        }  # fmt: skip
        with open(self.folder / f"{name}.log", "ab") as log:
            self.started[name] = subprocess.Popen(
                commands[name], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def kill(self, what: str) -> None:
        if what == "worker":
            below = psutil.Process(self.started["workers"].pid).children(recursive=True)
            random.choice([process for process in below if "spawn_main" in " ".join(process.cmdline())]).kill()
            return
        for name in ("workers", "scheduler") if what == "scheduler" else (what,):
            process = self.started.pop(name)
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.send_signal(signal.SIGKILL)
            process.wait()
        for name in ("scheduler", "workers") if what == "scheduler" else (what,):
            self.start(name)

    def records(self) -> int:
        return len(list((self.folder / "cache").glob("records/*.json")))

    def stop(self) -> None:
        for process in self.started.values():
            if process.poll() is not None:
                continue
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.kill()
            process.wait()


@pytest.fixture
def machines(tmp_path):
    (tmp_path / "with a space").mkdir()
    machines = Machines(tmp_path / "with a space")
    for name in ("scheduler", "workers", "client"):
        machines.start(name)
    yield machines
    machines.stop()


def cells():
    names: dict = {}
    exec(CELLS, names)
    return names["cells"]()


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come to its end"
        time.sleep(0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_sixty_experiments_survive_five_kills(machines, tmp_path, monkeypatch, seed):
    random.seed(seed)
    kills = ["worker", "worker", "scheduler", "client", random.choice(["worker", "scheduler", "client"])]
    random.shuffle(kills)
    for number, what in enumerate(kills):
        wanted = 10 * number + random.randrange(1, 10)
        until(lambda wanted=wanted: machines.records() >= wanted)
        time.sleep(random.random())
        machines.kill(what)
    until(lambda: machines.started["client"].poll() is not None)
    assert machines.started["client"].returncode == 0, (machines.folder / "client.log").read_text()[-2000:]

    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "sequence"))
    alone = json.loads(run_all(cells(), progress=False).to_json(orient="records"))
    assert without_seconds(json.loads(machines.result.read_text())) == without_seconds(alone)
    # Two beginnings of three epochs and sixty endings of two; a kill takes at most the stages that two workers were at.
    assert len(machines.epochs.read_text().splitlines()) <= 2 * 3 + 60 * 2 + len(kills) * 2 * 3
    left = {path.name for path in (machines.folder / "cache").rglob("*") if path.is_file()}
    assert not [name for name in left if name.startswith(".") or "halfway" in name]


def test_two_clients_that_want_the_same_share_the_work(machines, tmp_path):
    second = tmp_path / "second.json"
    command = [sys.executable, "client.py", machines.address, str(second)]
    with subprocess.Popen(command, cwd=machines.folder, env=machines.environment) as other:
        until(lambda: machines.started["client"].poll() is not None and other.poll() is not None)
    assert json.loads(machines.result.read_text()) == json.loads(second.read_text())
    assert len(machines.epochs.read_text().splitlines()) == 2 * 3 + 60 * 2


def test_two_sweeps_without_a_common_scheduler_train_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EPOCHS_TRAINED", str(tmp_path / "epochs"))
    for name, text in (("cells", CELLS), ("counted", COUNTED)):
        (tmp_path / f"{name}.py").write_text(text)
    code = (
        "import counted; from cells import cells; from pruning_core.experiments import run_all; run_all(cells()[:12])"
    )
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert len((tmp_path / "epochs").read_text().splitlines()) == 3 + 12 * 2


def test_processes_of_this_machine_give_the_rows_of_a_sequence(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "two"))
    some = [pc.Experiment("lenet300", "digits", recipes.dense(1), seed=seed, profile="smoke") for seed in range(4)]
    two = run_all(some, workers=2, progress=False)
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "one"))
    one = run_all(some, progress=False)
    assert without_seconds(two.to_dict("records")) == without_seconds(one.to_dict("records"))
    assert len({beginnings(experiment)[0] for experiment in some}) == 4
