"""The program itself: its commands by name, and how it ends. A command that cannot work says so in one sentence.

click reads the line: papermill and dask bring it anyway, so that it adds no dependency, and its options carry types.
"""

import atexit
import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import click

from pruning_core.commands import book, experiments, official, tables
from pruning_core.commands.options import CONTEXT
from pruning_core.errors import BadInput, BadType, OutOfTime, PruningError, shortage
from pruning_core.records.files import remove_own, tidy
from pruning_core.records.locks import kill, sweep
from pruning_core.starting import INTERRUPTED


class _Groups(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Groups, context_settings=CONTEXT, epilog="Example: python -m pruning_core official --list")
def program() -> None:
    """Lists what there is, runs experiments and the papers' own settings, and makes the book's pages.

    `COMMAND --help` says what a command takes and shows an example.
    """


for command in (
    tables.methods, tables.models, tables.data, experiments.run_command, official.official_command,
    book.notebooks, book.sweep, book.sweep_status, book.page, book.collect, book.scoreboard, book.costs,
):  # fmt: skip
    program.add_command(command)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SECONDS_TO_END = 2.0
"""What a command that is stopped has to put things in order; after that its processes are killed."""


def _heard() -> list[int]:
    """The signals that are not ignored, as SIGINT is for what a shell starts in its background."""
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _only_noted(number: int, frame: Any) -> None:
    """A handler that leaves a signal to ``_end_at_the_latest``, which has read its number."""


@contextlib.contextmanager
def _ends_in_order() -> Iterator[list[int]]:
    """Within the block SIGTERM, as from a scheduler, and SIGHUP, as from a closed terminal, end what runs as Ctrl-C does:
    nothing stays. Yields a list that will hold the number of the signal; those that come after it hurry nobody."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if not stopped:
            stopped.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, stop) for number in _heard()}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_the_latest(reading: int) -> None:
    """Wait for a signal, and a moment more: Python hears of it between two of its steps, which may be minutes apart in a
    library's."""
    while (number := os.read(reading, 1)[0]) not in _SIGNALS:
        pass
    time.sleep(SECONDS_TO_END)
    kill(multiprocessing.active_children(), 0.2)
    with contextlib.suppress(OSError):
        sweep()
        remove_own()  # the thread that would have done it comes to it no more
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(128 + number)


def as_process() -> NoReturn:
    """The command of this process's own line; once stopped, it has ended within three seconds."""
    # Semaphores of processes that are killed are removed for them; who stopped the command need not read of it.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_latest, args=(reading,), daemon=True).start()
    for number in _heard():  # around the command too: one that has done its work has still to put things in order
        signal.signal(number, _only_noted)
    status = main()
    if status <= 128:
        sys.exit(status)
    # An interpreter that ends in order takes all of torch apart before, which takes a second or more.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def _short(message: str, most: int = 2000) -> str:
    """A message that repeats all that was typed, with the middle of a long one left out."""
    return message if len(message) <= most else f"{message[: most // 2]} ... {message[-most // 3 :]}"


def main(given: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, with one sentence on stderr 2 if it was refused, 1 if it failed, 75 where the
    minutes that it was given are over, and 128 and the number of the signal that stopped it.

    >>> main(["run", "dens"])
    2
    """
    run: Callable[..., Any] = program.main
    stopped: list[int] = []
    output, errors = sys.stdout, sys.stderr
    try:
        with _ends_in_order() as stopped:
            tidy()
            run(args=None if given is None else list(given), prog_name="python -m pruning_core", standalone_mode=False)
            sys.stdout.flush()  # whoever read it may have gone, which is to be heard of here
    except OutOfTime as error:
        print(error, file=sys.stderr)
        return 75  # EX_TEMPFAIL of sysexits.h: try again
    except PruningError as error:
        # A name of a file need not be text; what the terminal cannot show is escaped.
        print(
            "\n".join(map(_short, str(error).split("\n"))).encode("utf-8", "backslashreplace").decode(), file=sys.stderr
        )
        return 2 if isinstance(error, BadInput | BadType) else 1
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        print(_short(" ".join(error.format_message().split()), 1000), file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    except (KeyboardInterrupt, click.Abort):
        print(INTERRUPTED, file=sys.stderr)
        return 128 + (stopped or [signal.SIGINT])[0]
    except (BrokenPipeError, SystemExit) as error:  # `python -m pruning_core methods | head`
        if sys.stdout is output and not isinstance(error, BrokenPipeError):
            raise
        sys.stdout, sys.stderr = output, errors  # click has put others in their place, and left with a status of 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError, RuntimeError) as error:
        if sentence := shortage(error):
            print(f"{sentence}.", file=sys.stderr)
            return 1
        if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
            raise
        print("the output cannot be written: no space is left on its device.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor can what is left at the end
        return 1
    return 0
