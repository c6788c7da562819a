"""The clock of the benchmarks."""

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median wall-clock seconds of ``call`` over ``repeats`` runs, after one run that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def processor_seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of processor time of each call over ``repeats`` rounds, in which they take turns; a first round does
    not count."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for found, call in zip(times, calls, strict=True):
            start = time.process_time()
            call()
            if turn:
                found.append(time.process_time() - start)
    return [statistics.median(found) for found in times]
