"""An end to work that may never come back: a forward pass of somebody else."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class OutOfTime(BaseException):
    """Not an Exception, because networks may catch those."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in this thread after ``seconds``; Python can be interrupted between any two instructions.

    Again and again, should somebody catch everything, until this context is left.
    """
    thread, left = ctypes.c_ulong(threading.get_ident()), threading.Event()
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc

    late = False

    def watch() -> None:
        nonlocal late
        if not left.wait(min(seconds, threading.TIMEOUT_MAX)):
            late = True
            interrupt(thread, ctypes.py_object(OutOfTime))
            while not left.wait(0.2):
                interrupt(thread, ctypes.py_object(OutOfTime))

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()  # a short time may be over before this comes back
        yield
    finally:
        with suppress(OutOfTime):
            left.set()
            watcher.join()
        left.set()
        watcher.join()
        if late:
            # What was raised but not yet seen arrives here. (Clearing it by a null exception would leave CPython 3.11
            # looking for one at every instruction from then on.)
            with suppress(OutOfTime):
                for _ in range(1000):
                    pass
