"""Kills of trainings, downloads and saves at times drawn from a seed, and two containers on one cache: the same numbers at the
end, nothing trained twice beyond the last checkpoint, nothing left behind."""

import functools
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pruning_core.records import load_tensors, read_rows
from pruning_core.version import REPOSITORY

psutil = pytest.importorskip("psutil", reason="comes with dask.distributed, an extra")
pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS_TO_END = 3.0

# Every epoch that begins leaves a line, whichever process trains it.
COUNTED = """
import os
from pruning_core.experiments import play
from pruning_core.training.trainer import Trainer

play.SECONDS_BETWEEN_SAVES = 0.0  # a checkpoint after every epoch, so that a kill takes one epoch at most

def counted(self, *arguments, original=Trainer.train_epoch):
    with open(os.environ["EPOCHS_TRAINED"], "a") as file:
        file.write("epoch\\n")
    return original(self, *arguments)

Trainer.train_epoch = counted
"""

TRAINING = """
import counted
import pruning_core as pc
from pruning_core.experiments import recipes
timeline = recipes.prune_and_fine_tune("magnitude", 0.8, 20, 10)
pc.run(pc.Experiment("lenet300", "digits", timeline, width=0.2, limit=600, profile="smoke"), progress=False)
"""

SAVES = """
import sys
import torch
from pruning_core.records import save_tensors
for number in range(int(sys.argv[1])):
    save_tensors("saved", {"weight": torch.full((300, 1000), float(number))}, {"number": number})
"""

DOWNLOAD = """
import sys, urllib.request
from pathlib import Path
from pruning_core.data import load_data, sources
import numpy as np

def from_server(name, root, temporary):
    place = temporary / "set.npz"
    with urllib.request.urlopen(sys.argv[1]) as reply, open(place, "wb") as file:
        while piece := reply.read(1 << 12):
            file.write(piece)
    return dict(np.load(place))

sources.from_torchvision = from_server
load_data("cifar100", root="data")
"""


class Run:
    """A script in a process of its own, with a cache of its own, that can be killed and started again."""

    def __init__(self, folder: Path, *line: str):
        self.folder, self.line = folder, line
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "counted.py").write_text(COUNTED)
        path = os.pathsep.join([str(folder), str(REPOSITORY)])
        own = {"PYTHONPATH": path, "PRUNING_CACHE": str(folder / "cache"), "EPOCHS_TRAINED": str(folder / "epochs")}
        self.environment = os.environ | own | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "temporary")}
        (folder / "temporary").mkdir(exist_ok=True)

    def start(self) -> subprocess.Popen:
        # In a shell's background SIGINT is ignored, and would be here.
        return subprocess.Popen(
            [sys.executable, *self.line], cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL,
            stderr=open(self.folder / "errors", "ab"), start_new_session=True,
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    def killed(self, how: signal.Signals, when: float, begun) -> bool:
        """Start, and kill ``when`` seconds after it has begun its work; whether it was still running then."""
        process = self.start()
        while process.poll() is None and not begun():
            time.sleep(0.01)
        time.sleep(when)
        if process.poll() is not None:
            assert process.returncode == 0, (self.folder / "errors").read_text()[-2000:]
            return False
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        process.wait(SECONDS_TO_END)
        _, alive = psutil.wait_procs(family, SECONDS_TO_END)
        assert [child.cmdline() for child in alive] == []
        return True

    def finish(self) -> None:
        assert self.start().wait(600) == 0, (self.folder / "errors").read_text()[-2000:]

    def epochs(self) -> int:
        place = self.folder / "epochs"
        return len(place.read_text().splitlines()) if place.exists() else 0

    def left(self) -> list[str]:
        names = [path.name for path in self.folder.rglob("*")]
        return [name for name in names if name.startswith((".partial", ".lock", "tmp")) or "halfway" in name]


def without_times(folder: Path) -> dict[str, list[dict]]:
    records = {path.name: read_rows(path) for path in (folder / "cache" / "records").glob("*.json")}
    times = {"seconds", "threads"}
    return {
        name: [{k: v for k, v in row.items() if k not in times} for row in rows]
        for name, rows in sorted(records.items())
    }


@pytest.mark.parametrize("how", [signal.SIGKILL])
def test_a_training_survives_seven_kills(how, tmp_path):
    draw = random.Random(0)
    whole, hurt = Run(tmp_path / "whole", "-c", TRAINING), Run(tmp_path / "hurt", "-c", TRAINING)
    whole.finish()
    kills = 0
    for _ in range(7):
        before = hurt.epochs()
        kills += hurt.killed(how, draw.random() * 0.1, lambda before=before: hurt.epochs() > before)
    hurt.finish()
    assert without_times(hurt.folder) == without_times(whole.folder)
    assert whole.epochs() <= hurt.epochs() <= whole.epochs() + kills
    assert hurt.left() == []


@pytest.mark.parametrize("how", SIGNALS)
def test_what_is_saved_is_the_last_or_the_one_before(how, tmp_path):
    draw, run = random.Random(1), Run(tmp_path, "-c", SAVES, "100000")
    place = tmp_path / "saved"
    for _ in range(4):
        place.unlink(missing_ok=True)
        assert run.killed(how, 0.05 + draw.random() * 0.3, place.exists)
        tensors, info = load_tensors(place)
        assert (tensors["weight"] == info["number"]).all()
    from pruning_core.records import remove_leftovers

    remove_leftovers(tmp_path)
    assert run.left() == []


@pytest.fixture
def server(tmp_path):
    """A slow server of an image set that takes a second to come."""
    import numpy as np

    draw = np.random.default_rng(0)
    raw = {f"{part}_images": draw.integers(0, 255, (400, 3, 32, 32), np.uint8) for part in ("train", "test")}
    raw |= {f"{part}_labels": np.repeat(np.arange(100, dtype=np.uint8), 4) for part in ("train", "test")}
    np.savez(tmp_path / "set.npz", **raw)
    content = (tmp_path / "set.npz").read_bytes()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                for start in range(0, len(content), 1 << 16):
                    self.wfile.write(content[start : start + (1 << 16)])
                    time.sleep(0.03)
            except OSError:  # who asked is dead
                pass

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_nothing_of_a_killed_download_is_taken_or_left(server, tmp_path):
    draw, run = random.Random(2), Run(tmp_path / "run", "-c", DOWNLOAD, server)
    data = tmp_path / "run" / "data"
    for how in SIGNALS * 3:
        assert run.killed(how, draw.random(), lambda: list(data.glob(".partial-*/set.npz")))
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
