"""The clock of the benchmarks."""

import statistics
import time
from collections.abc import Callable


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median wall-clock seconds of ``call`` over ``repeats`` runs, after one run that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
