"""Random kills: ``python -m tests.experiments.kills --count 50 --seed 0`` stops trainings, workers, notebooks, sweeps,
downloads and saves at times drawn from a seed, starts each again to its end, and compares it with an undisturbed one.

What may not happen: another number, an epoch trained again that a checkpoint had, a file or a process left behind.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from safetensors.numpy import load_file

from pruning_core.records import read_rows
from pruning_core.version import REPOSITORY

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS_TO_END = 60
"""Long, because a loaded machine is slow; what a stop takes is printed, not asserted."""
SECONDS_TO_FINISH = 3600

# Every epoch that begins leaves a line, whichever process trains it.
COUNTED = """
import os
from pruning_core.experiments import play
from pruning_core.training.trainer import Trainer

play.SECONDS_BETWEEN_SAVES = 0.0  # a checkpoint after every epoch, so that a kill takes one epoch at most

def counted(self, *arguments, original=Trainer.train_epoch):
    with open(os.environ["PROGRESS"], "a") as file:
        file.write("epoch\\n")
    return original(self, *arguments)

Trainer.train_epoch = counted
"""

COMMAND = """
import counted
from pathlib import Path
from pruning_core.book import chapters, sweeps
from pruning_core.commands.program import as_process

def own(names=(), find=chapters.find_notebooks):
    return find(names, Path("notebooks"))

chapters.find_notebooks = sweeps.find_notebooks = own
as_process.__globals__["SECONDS_TO_END"] = 50.0  # a loaded machine may not get through in time, and would end it by force
as_process()
"""

CELL = """
import counted
import pruning_core as pc
from pruning_core.experiments import recipes
rows = pc.run_all([
    pc.Experiment("lenet300", "digits", recipes.prune_and_fine_tune(method, 0.8, 8, 4), seed={seed}, width=0.2, limit=600,
                  profile="smoke")
    for method in ("magnitude", "random")
], progress=False)
print(rows[["label", "method", "accuracy", "loss", "sparsity"]].to_csv())
"""

SAVES = """
import os
import torch
from pathlib import Path
from pruning_core.records import load_tensors, save_tensors
done = load_tensors("saved")[1]["number"] if Path("saved").exists() else 0
for number in range(done + 1, 41):
    save_tensors("saved", {"weight": torch.full((300, 1000), float(number))}, {"number": number})
    with open(os.environ["PROGRESS"], "a") as file:
        file.write("saved\\n")
"""

DOWNLOAD = """
import os, urllib.request
import numpy as np
from pruning_core.commands.program import as_process
from pruning_core.data import sources

def from_server(name, root, temporary):
    place = temporary / "set.npz"
    with urllib.request.urlopen(os.environ["ADDRESS"]) as reply, open(place, "wb") as file:
        while piece := reply.read(1 << 16):
            file.write(piece)
            with open(os.environ["PROGRESS"], "a") as progress:
                progress.write("piece\\n")
    return dict(np.load(place))

sources.from_torchvision = from_server
as_process.__globals__["SECONDS_TO_END"] = 50.0
as_process()
"""

SETTINGS = "--model lenet300 --data digits --width 0.2 --limit 600 --profile smoke"
TIMELINE = "run prune_and_fine_tune -p method magnitude -p sparsity 0.8 -p epochs 16 -p fine_tune 8"


@dataclass(frozen=True)
class Kind:
    """Something to be killed: a script and its line; how many processes train at once; and whether it takes signals as
    commands do, which leave nothing even before they are started again."""

    script: str
    line: str = ""
    trains: int = 0
    command: bool = True


KINDS = {
    "training": Kind(COMMAND, f"{TIMELINE} {SETTINGS}", trains=1),
    "workers": Kind(COMMAND, f"{TIMELINE} {SETTINGS} --seeds 3 --workers 2", trains=2),
    "notebooks": Kind(COMMAND, "notebooks --profile smoke --jobs 2 --into executed", trains=2),
    "sweep": Kind(COMMAND, "sweep --profile smoke --jobs 2", trains=2),
    "download": Kind(DOWNLOAD, "run dense -p epochs 1 --model lenet300 --data cifar100 --width 0.05"),
    "save": Kind(SAVES, command=False),
}
# A kill of a sweep takes ten times as long as one of a training: many processes start.
ORDER = ("training", "save", "notebooks", "training", "download", "sweep", "training", "save", "download", "workers")


class Run:
    """A script in a process of its own, with a cache of its own, that can be killed and started again."""

    def __init__(self, folder: Path, *line: str, **environment: str):
        self.folder, self.line, self.progress_file = folder, line, folder / "progress"
        self.status, self.seconds = 0, 0.0
        for name in ("temporary", "jupyter"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "counted.py").write_text(COUNTED)
        own = {
            "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)]),
            "PRUNING_CACHE": str(folder / "cache"),
            "PROGRESS": str(self.progress_file),
            "TMPDIR": str(folder / "temporary"),
            "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": "counted",
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        }
        self.environment = os.environ | own | environment
        self.environment.pop("PRUNING_DATA", None)

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen]:
        with open(self.folder / "errors", "ab") as errors:
            # In a shell's background SIGINT is ignored, and would be here.
            process = subprocess.Popen(
                [sys.executable, *self.line], cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL,
                stderr=errors, start_new_session=True,
                preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()  # where a test failed, or was itself stopped
            process.wait()

    def killed(self, how: signal.Signals, when: float, begun: Callable[[], bool], *, group: bool = False) -> bool:
        """Start, and kill ``when`` seconds after it has begun its work; whether it was still running then."""
        with self.started() as process:
            while process.poll() is None and not begun():
                time.sleep(0.01)
            time.sleep(when)
            if process.poll() is not None:
                assert process.returncode == 0, self.errors()
                return False
            family = psutil.Process(process.pid).children(recursive=True)
            stopped = time.monotonic()
            os.killpg(process.pid, how) if group else process.send_signal(how)
            self.status = process.wait(SECONDS_TO_END)
        _, alive = psutil.wait_procs(family, SECONDS_TO_END)
        self.seconds = time.monotonic() - stopped
        assert [child.cmdline() for child in alive] == []
        return self.status != 0

    def finish(self) -> None:
        with self.started() as process:
            assert process.wait(SECONDS_TO_FINISH) == 0, self.errors()

    def errors(self) -> str:
        return (self.folder / "errors").read_text()[-2000:]

    def progress(self) -> int:
        return len(self.progress_file.read_text().splitlines()) if self.progress_file.exists() else 0

    def left(self) -> list[str]:
        """What only a run needs, and is there still."""
        places = [self.folder / "temporary", self.folder / "jupyter", self.folder / "cache" / "running"]
        found = [path for place in places for path in place.glob("*")]
        found += [*self.folder.rglob(".partial*"), *self.folder.rglob(".lock*")]
        return [str(path.relative_to(self.folder)) for path in found]

    def values(self) -> dict[str, Any]:
        """All that it has computed and kept, without the times."""
        found: dict[str, Any] = without_times(self.folder)
        for path in sorted(self.folder.glob("executed/*/*.ipynb")) + sorted(
            self.folder.glob("cache/sweep/*/*/*.ipynb")
        ):
            cells = nbformat.read(path, as_version=4).cells
            found[path.name] = [output.get("text") for cell in cells for output in cell.get("outputs", [])]
        for path in [self.folder / "saved", *self.folder.glob("cache/data/*")]:
            if path.is_file():  # the order of its tensors is not always the same
                found[path.name] = {key: value.tobytes() for key, value in sorted(load_file(path).items())}
        return found


def without_times(folder: Path) -> dict[str, list[dict]]:
    records = {path.name: read_rows(path) for path in (folder / "cache" / "records").glob("*.json")}
    times = {"seconds", "threads"}
    return {
        name: [{k: v for k, v in row.items() if k not in times} for row in rows]
        for name, rows in sorted(records.items())
    }


def differences(mine: Any, whole: Any, place: str = "") -> list[str]:
    """Where two sets of values are not the same: files, rows and columns, by name."""
    if isinstance(mine, dict) and isinstance(whole, dict):
        names = sorted({*mine, *whole})
        return [line for name in names for line in differences(mine.get(name), whole.get(name), f"{place}/{name}")]
    if isinstance(mine, list) and isinstance(whole, list) and len(mine) == len(whole):
        pairs = enumerate(zip(mine, whole, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{place}/{number}")]
    return [] if mine == whole else [f"{place}: {str(mine)[:80]} against {str(whole)[:80]}"]


def write_book(folder: Path) -> None:
    """Two notebooks that train two networks each, and prune them."""
    chapter = folder / "notebooks" / "9_test"
    chapter.mkdir(parents=True)
    names = ("1_first", "2_second")
    for seed, name in enumerate(names):
        parameters = new_code_cell('profile = "quick"\nseed = 0', metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# A page"), parameters, new_code_cell(CELL.replace("{seed}", str(seed)))]
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), chapter / f"{name}.ipynb")
    (chapter / "profiles.yml").write_text(yaml.safe_dump({"quick": {name: {} for name in names}}))


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """The address of an image set that takes a second to come."""
    draw = np.random.default_rng(0)
    raw = {f"{part}_images": draw.integers(0, 255, (2000, 3, 32, 32), np.uint8) for part in ("train", "test")}
    raw |= {f"{part}_labels": np.repeat(np.arange(100, dtype=np.uint8), 20) for part in ("train", "test")}
    with tempfile.TemporaryFile() as file:
        np.savez(file, **raw)
        file.seek(0)
        content = file.read()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked is dead
                for start in range(0, len(content), 1 << 18):
                    self.wfile.write(content[start : start + (1 << 18)])
                    time.sleep(0.03)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def made(kind: Kind, folder: Path, address: str) -> Run:
    folder.mkdir(parents=True)
    write_book(folder)
    return Run(folder, "-c", kind.script, *kind.line.split(), ADDRESS=address)


def _reached(run: Run, wanted: int) -> bool:
    return run.progress() >= wanted


def kills(count: int, seed: int, folder: Path, kinds: tuple[str, ...] = ORDER) -> Iterator[dict[str, Any]]:
    """Kill ``count`` times, a chain of one to three upon each run before it is let to its end; yields what was done, and how
    long each took to end."""
    draw, done, number = random.Random(seed), 0, 0
    whole: dict[str, Run] = {}
    with slow_server() as address:
        while done < count:
            name = kinds[number % len(kinds)]
            kind, number = KINDS[name], number + 1
            if name not in whole:
                whole[name] = made(kind, folder / f"whole {name}", address)
                whole[name].finish()
                assert whole[name].left() == [], whole[name].left()
            run, chain = made(kind, folder / f"{number} {name}", address), []
            for _ in range(min(draw.randint(1, 3), count - done)):
                how, group = draw.choice(SIGNALS), draw.random() < 0.5
                # Once in five times at its start, otherwise anywhere in what is left of its work.
                early, share, moment = draw.random() < 0.2, draw.random(), draw.random()
                wanted = run.progress() + round(share * max(whole[name].progress() - run.progress(), 0))
                begun, before, had = (
                    functools.partial(_reached, run, 0 if early else wanted),
                    set(run.left()),
                    run.progress(),
                )
                hit = run.killed(how, moment * (3 if early else 0.2), begun, group=group)
                after = f" after {run.seconds:.1f} s" if hit else " (too late)"
                chain.append(f"{how.name}{' to all' if group else ''}{after}")
                done += hit
                if kind.command and how != signal.SIGKILL and run.progress():
                    # Stopped before it got on, perhaps while it imported, it need not have swept what a kill before it left; it
                    # adds nothing.
                    left = set(run.left()) - (before if run.progress() == had else set())
                    assert not left, f"{name} left {left} after {chain}"
            run.finish()
            other = differences(run.values(), whole[name].values())
            assert not other, f"{name} has other values after {chain}: {other}"
            assert run.values(), f"{name} left nothing that could be compared"
            again = run.progress() - whole[name].progress()
            assert not kind.trains or 0 <= again <= kind.trains * len(chain), f"{name} trained {again} epochs twice"
            assert run.left() == [], f"{name} left {run.left()} at its end, after {chain}"
            assert not [*run.folder.rglob("*halfway*")]
            yield {"kind": name, "kills": chain, "epochs trained again": again if kind.trains else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=ORDER, help="what is killed")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        for chain in kills(given.count, given.seed, Path(folder), tuple(given.kinds)):
            print(json.dumps(chain), flush=True)
    print(f"{given.count} kills: equal values, nothing trained twice beyond the last checkpoint, nothing left")


if __name__ == "__main__":
    main()
