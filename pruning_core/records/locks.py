"""Locks of the operating system: one process at a time makes a file, the others wait and read it. A lock ends with its
process, however that ends; an empty file is all that a kill leaves of it, until somebody sweeps."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from filelock import FileLock, Timeout

from pruning_core.records.files import cache_root, remove_leftovers, running_root, write_atomically

_PREFIX = ".lock-"


def _lock(path: str | os.PathLike) -> FileLock:
    path = Path(path)
    return FileLock(path.with_name(f"{_PREFIX}{path.name}"))


@contextlib.contextmanager
def exclusive(path: str | os.PathLike) -> Iterator[None]:
    """Inside, no other process that locks ``path`` is inside, on any machine that shares the folder; others wait.

    The lock is a hidden file beside ``path``, and gone when nobody holds it. Raises BadInput when the folder cannot be
    written.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "record.json"
    >>> with exclusive(place):
    ...     is_locked(place)
    True
    >>> is_locked(place), list(place.parent.iterdir())
    (False, [])
    """
    lock = _lock(path)
    if not os.access(Path(path).parent, os.W_OK):
        write_atomically(lock.lock_file, b"")  # makes the folder, or says why it cannot
    with lock:
        try:
            yield
        finally:
            # While it is held: whoever waits sees that its file is another one now, and tries again.
            Path(lock.lock_file).unlink(missing_ok=True)


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


def sweep(*folders: Path) -> None:
    """Delete what killed processes left in the folders, halves of files and locks that nobody holds; without ``folders`` in
    those of the cache."""
    for folder in folders or (cache_root() / "records", cache_root() / "checkpoints", running_root()):
        remove_leftovers(folder)
        for left in folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # of another user
                is_locked(left.with_name(left.name.removeprefix(_PREFIX)))


def kill(processes: Iterable[BaseProcess], seconds: float = 1.0) -> None:
    """Kill processes that this one started and wait for their end, for ``seconds`` each: until then what they leave is theirs,
    and ``sweep`` does not touch it."""
    processes = list(processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.join(seconds)
