"""A command that is stopped while its imports run, for the first seconds, ends as one that is stopped later: with a sentence
and its status, and without a traceback of whatever was being imported."""

import os
import signal
import sys
from types import TracebackType
from typing import Any

from pruning_core.errors import shortage

INTERRUPTED = "interrupted; the same command goes on from here"


NO_FOLDER = "the current folder was deleted: change to another one first"


def _end(number: int, frame: Any) -> None:
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(128 + number)  # nothing has begun that would have to be put in order


def _short(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What is printed of an error that ends the process: of too little memory, also for what is imported, one sentence."""
    if sentence := shortage(error):
        print(f"{sentence}.", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"] and "pruning_core" in sys.orig_argv:  # Python is just looking for the package's __main__
    sys.excepthook = _short
    for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(_number) is _usual:  # in the background of a shell it is ignored, and stays so
            signal.signal(_number, _end)
    for _stream in (
        "stdin",
        "stdout",
        "stderr",
    ):  # closed by who started this; the first file opened would take its place
        if getattr(sys, _stream) is None:
            _nothing = os.open(os.devnull, os.O_RDONLY if _stream == "stdin" else os.O_WRONLY)
            setattr(sys, _stream, os.fdopen(_nothing, "r" if _stream == "stdin" else "w", encoding="utf-8"))
    try:
        os.getcwd()
    except OSError:  # without one the libraries that torch loads end the process in words of their own
        print(NO_FOLDER, file=sys.stderr, flush=True)
        os._exit(2)
