"""Locks of the operating system: one process at a time makes a file, the others wait and read it. A lock ends with its
process, however that ends; an empty file is all that a kill leaves of it, until somebody sweeps."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from filelock import FileLock, Timeout

from pruning_core.errors import BadInput, OutOfTime
from pruning_core.records.files import cache_root, remove_leftovers, running_root, write_atomically

_PREFIX = ".lock-"
SECONDS_IN_SILENCE = 2.0
"""So long a process waits for another one without a word."""


def _lock(path: str | os.PathLike) -> FileLock:
    path = Path(path)
    return FileLock(path.with_name(f"{_PREFIX}{path.name}"))


def _no_lock(lock: FileLock, error: OSError) -> str:
    return f"{lock.lock_file} is in the place of a lock and cannot be one ({error.strerror}): delete it."


def _wait_for(lock: FileLock, ends: float | None) -> None:
    """Take the lock, until ``ends`` at the latest; who has to wait for it for a while reads what for."""
    made = Path(lock.lock_file).name.removeprefix(_PREFIX)
    try:
        try:
            lock.acquire(timeout=min(SECONDS_IN_SILENCE, _left(ends)))
        except Timeout:
            if _left(ends) and sys.stderr is sys.__stderr__:  # no page of the book has to tell of its neighbours
                print(f"waiting for another process, which makes {made}", file=sys.stderr, flush=True)
            lock.acquire(timeout=-1 if ends is None else _left(ends))
    except Timeout:
        raise OutOfTime(
            f"the time is over while another process makes {made}, and the same call goes on from there."
        ) from None
    except OSError as error:
        raise BadInput(_no_lock(lock, error)) from error


def _left(ends: float | None) -> float:
    """The seconds until then."""
    return math.inf if ends is None else max(ends - time.time(), 0.0)


@contextlib.contextmanager
def exclusive(path: str | os.PathLike, ends: float | None = None) -> Iterator[None]:
    """Inside, no other process that locks ``path`` is inside, on any machine that shares the folder; others wait.

    The lock is a hidden file beside ``path``, and gone when nobody holds it. ``ends``: when to wait no longer, as of
    time.time(); a lock that is free is taken even then. Raises OutOfTime, and BadInput when the folder cannot be written.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "record.json"
    >>> with exclusive(place):
    ...     is_locked(place)
    True
    >>> is_locked(place), list(place.parent.iterdir())
    (False, [])
    """
    lock = _lock(path)
    if not os.path.isdir(Path(path).parent) or not os.access(Path(path).parent, os.W_OK):
        write_atomically(lock.lock_file, b"")  # makes the folder, or says why it cannot
    _wait_for(lock, ends)
    try:
        yield
    finally:
        # While it is held: whoever waits sees that its file is another one now, and tries again.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def is_locked(path: str | os.PathLike) -> bool:
    """Whether a process holds the lock of ``path`` now."""
    lock = _lock(path)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            Path(lock.lock_file).unlink(missing_ok=True)  # left by a killed process
            return False
    except Timeout:
        return True
    except OSError as error:
        raise BadInput(_no_lock(lock, error)) from error


def sweep(*folders: Path) -> None:
    """Delete what killed processes left in the folders, halves of files and locks that nobody holds; without ``folders`` in
    those of the cache."""
    for folder in folders or (cache_root() / "records", cache_root() / "checkpoints", running_root()):
        remove_leftovers(folder)
        for left in folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError, BadInput):  # of another user, or no file
                is_locked(left.with_name(left.name.removeprefix(_PREFIX)))


def kill(processes: Iterable[BaseProcess], seconds: float = 1.0) -> None:
    """Kill processes that this one started and wait for their end, for ``seconds`` each: until then what they leave is theirs,
    and ``sweep`` does not touch it."""
    processes = list(processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.join(seconds)
