"""The program itself: its commands by name, and how it ends. A command that cannot work says so in one sentence.

click reads the line: papermill and dask bring it anyway, so that it adds no dependency, and its options carry types.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from pruning_core.commands import book, experiments, official, tables
from pruning_core.commands.options import CONTEXT
from pruning_core.errors import BadInput, BadType, PruningError


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


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Within the block SIGTERM, as from a scheduler or a closed terminal, ends what runs as Ctrl-C does: nothing stays."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _short(message: str, most: int = 1000) -> str:
    """A message of click, which repeats all that was typed, with the middle of a long one left out."""
    return message if len(message) <= most else f"{message[: most // 2]} ... {message[-most // 3 :]}"


def main(given: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, with one sentence on stderr 2 if it was refused and 1 if it failed.

    >>> main(["run", "dens"])
    2
    """
    run: Callable[..., Any] = program.main
    try:
        with _ends_in_order():
            run(args=None if given is None else list(given), prog_name="python -m pruning_core", standalone_mode=False)
    except PruningError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadInput | BadType) else 1
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        print(_short(" ".join(error.format_message().split())), file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `python -m pruning_core methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
