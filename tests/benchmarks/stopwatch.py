"""What the benchmarks share: a row compares ours with a peer, in turns, in processor time or in memory; nothing is asserted."""

import gc
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHORTEST = 0.02  # seconds of processor time that one reading takes at least; what is shorter is called several times
APART = 1.05
Call = Callable[[], Any]
Made = tuple[Call, Call] | tuple[Call, Call, Callable[[Any, Any], str]]


@dataclass(frozen=True)
class Row:
    """``make()`` prepares and returns the two calls, ours and the peer's, and perhaps a remark made of their results.

    The calls are timed where ``unit`` is "s"; else they return the number of that unit. ``at_most`` is what is claimed of
    the ratio ours / peer; None claims nothing. ``slow`` rows run with ``--slow`` only.
    """

    name: str
    peer: str
    make: Callable[[], Made]
    at_most: float | None = None
    turns: int = 5
    slow: bool = False
    unit: str = "s"


ROWS: dict[str, Row] = {}


def row(name: str, peer: str, **settings: Any) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Makes a row of a function that returns the two calls."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        ROWS[name] = Row(name, peer, make, **settings)
        return make

    return register


def measured(row: Row, turns: int | None = None) -> dict[str, Any]:
    """Medians of ours and of the peer, median and quartiles of their ratio, over rounds in which who begins alternates. Where
    calls are timed, a first round warms up and does not count."""
    ours, peer, *remark = row.make()
    results, readings = [], [ours, peer]
    if row.unit == "s":
        results, readings = map(list, zip(*map(_warmed, (ours, peer)), strict=True))
    pairs = []
    for turn in range(turns or row.turns):
        gc.collect()
        first = turn % 2
        values = {first: readings[first]()}
        values[1 - first] = readings[1 - first]()
        pairs.append((values[0], values[1]))
    ratios = [mine / other for mine, other in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    found = {"ours": statistics.median(p[0] for p in pairs), "peer": statistics.median(p[1] for p in pairs)}
    found = {name: _rounded(value) for name, value in found.items()}
    found |= {"unit": row.unit, "ratio": _rounded(middle), "quartiles": [_rounded(low), _rounded(high)]}
    return found | ({"remark": remark[0](*results)} if remark else {})


def _warmed(call: Call) -> tuple[Any, Callable[[], float]]:
    """The result of a first call, and what gives a reading: seconds a call, over as many calls as a reading needs."""

    def spent(times: int) -> float:
        gc.disable()
        start = time.process_time()
        for _ in range(times):
            call()
        seconds = time.process_time() - start
        gc.enable()
        return seconds / times

    start = time.process_time()
    result = call()
    first = time.process_time() - start  # imports and compilation included, so a short one is read again
    times = 1 if first > 100 * SHORTEST else math.ceil(SHORTEST / max(spent(1), SHORTEST / 1000))
    return result, lambda: spent(times)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def word(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> str:
    """How a ratio stands to the stored one: "same" unless their quartiles lie apart, by more than two runs of one code do.

    >>> word({"quartiles": [0.4, 0.5]}, {"quartiles": [0.6, 0.7]})
    'better'
    """
    if old is None:
        return "new"
    (low, high), (before_low, before_high) = new["quartiles"], old["quartiles"]
    return "better" if high * APART < before_low else "worse" if low > before_high * APART else "same"


def in_process(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """A Python program in a process of its own, with the modules of this folder, on one thread."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    # A fixed threshold: what is freed goes back to the system at once, so that the peak is what was held together.
    settings = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | settings)


def seconds_of_process(program: str) -> float:
    """Processor seconds that a Python program takes in a process of its own, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    in_process(program)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def megabytes(maker: str, *arguments: int) -> float:
    """By how many MB the peak memory of a fresh process rises while the call that ``maker``, "module:function" of whole
    numbers, has prepared runs."""
    program = (
        "import sys, importlib, stopwatch\n"
        "module, name = sys.argv[1].split(':')\n"
        "call = getattr(importlib.import_module(module), name)(*map(int, sys.argv[2:]))\n"
        "before = stopwatch.peak(start_anew=True); call(); print(stopwatch.peak() - before)"
    )
    return float(in_process(program, maker, *arguments).stdout)


def peak(start_anew: bool = False) -> float:
    """The most memory that this process has held so far, in MB; ``start_anew`` forgets it, where the system can."""
    try:
        if start_anew:  # imports take more for a moment
            Path("/proc/self/clear_refs").write_text("5")
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return float(line.split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def drawn(
    batches: int, size: int, shape: tuple[int, ...], classes: int = 10
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random images with random labels, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn((size, *shape), generator=generator), torch.randint(classes, (size,), generator=generator))
        for _ in range(batches)
    ]
