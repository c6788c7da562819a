"""Tasks on the workers of dask.distributed: processes of this machine, a cluster's, or those of a scheduler elsewhere."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch

from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, said, shown
from pruning_core.experiments.engine import Failure, Task, attempt, is_done
from pruning_core.experiments.variables import check_address, device_of_workers
from pruning_core.models.build import MODELS
from pruning_core.records.files import running_root, temporary_folder
from pruning_core.records.locks import kill, sweep

SECONDS_TO_CONNECT, SECONDS_WITHOUT_SCHEDULER = 10.0, 120.0
INHERITED = ("PRUNING_CACHE", "PRUNING_DATA", "PRUNING_DEVICE", "PRUNING_CHECKPOINTS_GB")
"""What processes that are started here have from the shell's variables, for good."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise BadInput(
            "workers need dask.distributed: `pip install 'pruning-core[sweep]'`; without workers everything runs in sequence."
        ) from error
    return distributed


@contextlib.contextmanager
def local_cluster(processes: int, dashboard: str | None = None) -> Iterator[Any]:
    """A ``LocalCluster`` whose workers do one task at a time, each on one thread, with all the memory that there is; they are
    killed at the end of the block, however it comes: to close them in order would wait for the trainings that they are at.

    ``dashboard``: where its page is served, such as ":8787". A task whose worker dies is given to another one, ten times.
    """
    distributed = _distributed()
    import dask

    _enough_files(processes)
    settings = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREADS, "1"),
        "distributed.scheduler.allowed-failures": 10,
        "distributed.worker.profile.enabled": False,
    }
    others, cluster = set(multiprocessing.active_children()), None
    with temporary_folder(running_root()) as scratch:

        def make() -> Any:
            with dask.config.set(settings | {"temporary-directory": str(scratch)}):
                return distributed.LocalCluster(
                    n_workers=processes, threads_per_worker=1, memory_limit=None, dashboard_address=dashboard,
                    silence_logs=50, local_directory=str(scratch),
                )  # fmt: skip

        try:
            try:
                cluster = _unheard(make, lambda: _kill_workers(others))
            except (RuntimeError, OSError) as error:  # too little memory, too many processes
                raise BadInput(
                    f"{processes} processes could not be started ({said(error)}): ask for fewer workers, or for none."
                ) from error
            yield cluster
        finally:
            for nanny in () if cluster is None else cluster.workers.values():
                nanny.auto_restart = False
            _kill_workers(others)
            if cluster is not None:
                cluster.close()
            sweep()


def _kill_workers(others: set[Any]) -> None:
    """Kill the workers that this process has started, but for ``others``."""
    kill(child for child in set(multiprocessing.active_children()) - others if child.name.startswith("Dask Worker"))


def _enough_files(processes: int) -> None:
    """Let this process open as many files as its connections to so many workers take, since without one a connection is
    waited for in vain; BadInput where the system does not allow it."""
    try:
        import resource
    except ImportError:  # no Unix
        return
    needed, (soft, hard) = 40 + 12 * processes, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BadInput(
            f"{processes} workers need {needed} open files, and the system allows {hard}: raise the limit (ulimit -n), or ask "
            "for fewer workers."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _unheard(make: Callable[[], Any], undo: Callable[[], None]) -> Any:
    """What ``make`` returns, called where Ctrl-C is not heard, nor in the processes that it starts: a terminal sends it to all
    of them, and who has started them sees to their end. Who is stopped while it runs calls ``undo`` until it has ended: nobody
    would be responsible any more for what it makes then."""

    def call() -> Any:
        resource_tracker.ensure_running()  # it lets Ctrl-C through again to the thread that needs it first
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return make()

    pool = ThreadPoolExecutor(1)
    making = pool.submit(call)
    try:
        return making.result()
    except KeyboardInterrupt:
        given_up = time.monotonic() + SECONDS_TO_CONNECT
        while not making.done() and time.monotonic() < given_up:
            undo()
            time.sleep(0.05)
        if making.done() and making.exception() is None:
            making.result().close()
        raise
    finally:
        pool.shutdown(wait=False)


_OPEN: dict[int | str, tuple[Any, contextlib.ExitStack, tuple[str | None, ...]]] = {}
"""One client a number or an address, so that the workers of a notebook start once; what ends it and all it started; what that
has inherited."""


def _client_of(workers: int | str) -> Any:
    """Raises OSError without a scheduler at the address."""
    inherited = tuple(map(os.environ.get, INHERITED))
    if isinstance(workers, int) and workers in _OPEN and _OPEN[workers][2] != inherited:
        end_own_workers()  # they would leave their records in the cache of before
    if workers not in _OPEN:
        distributed, stack = _distributed(), contextlib.ExitStack()
        with stack:
            there = workers if isinstance(workers, str) else stack.enter_context(local_cluster(workers))
            client = distributed.Client(there, timeout=SECONDS_TO_CONNECT)
            stack.callback(client.close, timeout=1)
            _OPEN[workers] = client, stack.pop_all(), inherited
    return _OPEN[workers][0]


def end_own_workers() -> None:
    """End the processes that were started for a number of workers, whatever they are at; those of a scheduler are others'."""
    for number in [workers for workers in _OPEN if isinstance(workers, int)]:
        _, stack, _ = _OPEN.pop(number)
        # What is lost need not say good-bye, nor who is left talk of it.
        with contextlib.suppress(Exception), _distributed().utils.silence_logging_cmgr(logging.CRITICAL):
            stack.close()


atexit.register(end_own_workers)


def check_workers(workers: Any) -> None:
    """Raise BadInput for what is neither a number of processes, nor the address of a scheduler, nor a client of one."""
    if isinstance(workers, _distributed().Client):
        return
    if not isinstance(workers, int | str):
        raise BadInput(f"workers is a number of processes, a scheduler's address or a Client, not {shown(workers)}.")
    if isinstance(workers, str):
        check_address(workers)


def connect(workers: Any) -> Any:
    """The client of a number of processes, of a scheduler's address, or the one that is given."""
    check_workers(workers)
    if isinstance(workers, _distributed().Client):
        return workers
    try:
        client = _client_of(workers)
    except BadInput:  # a ValueError too, of processes of this machine
        raise
    except (OSError, ValueError) as error:
        raise BadInput(f"there is no dask scheduler at {workers!r}.") from error
    return client if client.status == "running" else _again(client)


def _again(client: Any) -> Any:
    """A client of the scheduler that takes the place of the one that ``client`` has lost: waits two minutes for it."""
    address, given_up = client.scheduler.address, time.monotonic() + SECONDS_WITHOUT_SCHEDULER
    with contextlib.suppress(Exception):  # what is lost need not say good-bye
        client.close(timeout=1)
    _OPEN.pop(address, None)
    while True:
        try:
            return _client_of(address)
        except OSError as error:
            if time.monotonic() > given_up:
                raise BadInput(f"the scheduler at {address} was lost, and did not come back.") from error
            time.sleep(1.0)


def outcomes_of_workers(
    workers: Any, tasks: list[Task], shared: set[str], folder: Path | None, ends: float | None = None
) -> Generator[tuple[Task, Failure | None]]:
    """Each task and what went wrong with it, as they end. Tasks that are lost with a scheduler are sent again."""
    distributed = _distributed()
    client, left = connect(workers), {task.key: task for task in tasks}
    while left:
        futures = _submitted(client, list(left.values()), shared, folder, ends)
        try:
            for future in distributed.as_completed(list(futures)):
                key = futures[future]
                try:
                    failure = future.result()
                except distributed.KilledWorker:
                    failure = Failure(key, "its worker died again and again (is there too little memory?)", "")
                yield left.pop(key), failure
        except (distributed.CancelledError, distributed.comm.CommClosedError, OSError):
            client = _again(client)
            for key in [key for key, task in left.items() if is_done(task, folder)]:
                yield left.pop(key), None
        except (KeyboardInterrupt, GeneratorExit):
            end_own_workers()
            raise
        finally:
            for future in futures:  # even where a traceback holds on to them: a later call asks anew
                future.release()
            with contextlib.suppress(Exception):  # a lost client has nothing left to forget
                client.sync(asyncio.sleep, 0)


def _submitted(
    client: Any, tasks: list[Task], shared: set[str], folder: Path | None, ends: float | None
) -> dict[Any, str]:
    """The futures of tasks, in their order, and the keys of the tasks. Two sweeps that want the same share one future."""
    sent: dict[str, Any] = {}
    place = None if folder is None else str(folder)
    for task in tasks:
        # Networks and data sets that were registered in this process only are sent along.
        known = (MODELS.get(task.experiment.model), DATASETS[task.experiment.data])
        before = sent.get(task.after) if task.after else None
        sent[task.key] = client.submit(
            work, task, sorted(shared), place, known, before, ends, key=f"{task.key}-{place}", pure=False
        )
    return {future: key for key, future in sent.items()}


def work(
    task: Task,
    shared: list[str],
    folder: str | None,
    known: tuple[Any, Any],
    before: Failure | None,
    ends: float | None = None,
) -> Failure | None:
    """What a worker does: the task's failure, or None. ``before``: how the task went that this one comes after."""
    if before is not None:
        return before._replace(key=task.key)
    _keep_freed_memory()
    experiment = task.experiment
    # A worker outlives many sweeps, and a name of one's own may stand for something else by now.
    if known[0] is not None:
        MODELS[experiment.model] = known[0]
    DATASETS[experiment.data] = known[1]
    if device := _own_device(experiment.device):
        task = replace(task, experiment=replace(experiment, device=device))
    return attempt(task, shared, None if folder is None else Path(folder), ends)


@functools.cache
def _keep_freed_memory() -> None:
    """Undo for this process what dask sets for its workers (MALLOC_TRIM_THRESHOLD_): glibc then maps every larger tensor
    anew and gives it back at once, and small trainings take twice as long."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD


def _own_device(asked: Any) -> str | None:
    """The device of this worker: ``$PRUNING_DEVICE``; else, of several GPUs, the one that the worker's number falls on."""
    if named := device_of_workers():
        return named
    if str(asked) != "cuda" or torch.cuda.device_count() < 2:
        return None
    name = str(_distributed().get_worker().name)
    return f"cuda:{int(name) % torch.cuda.device_count()}" if name.isdigit() else None
