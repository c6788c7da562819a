"""All notebooks of the book: found, checked, and run two side by side; a finished and unchanged one is not run again."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from pruning_core.book.notebooks import (
    NotebookFailed,
    check_parameters,
    checked_parameters,
    kill_kernels,
    run_notebook,
    stamp_in,
    stamp_of,
)
from pruning_core.book.stored import stored_notebook
from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.variables import check_variables
from pruning_core.progress import progress_bar
from pruning_core.records.files import write_atomically
from pruning_core.records.locks import kill, sweep
from pruning_core.records.places import check_folder
from pruning_core.version import PROFILES, REPOSITORY

SOURCES = REPOSITORY / "notebooks"
EXECUTED = REPOSITORY / "book" / "notebooks"
FAILED = REPOSITORY / "book" / "_failed"

SECONDS_BETWEEN_LOOKS = 0.1
"""How often a worker looks whether it should end."""


@checked
def find_notebooks(names: Iterable[str] = (), sources: Path = SOURCES) -> list[Path]:
    """The book's notebooks in reading order, or those named: ``0_foundations/1_sparsity``, its path, or the beginning
    of its name as long as only one begins so. Raises UnknownName for a name that fits none, BadInput for several.

    >>> [path.stem for path in find_notebooks(["0_foundations/1"])]
    ['1_sparsity']
    """
    every = {f"{file.parent.name}/{file.stem}": file for file in sorted(Path(sources).glob("[0-9]*/[0-9]*.ipynb"))}
    chosen = []
    for given in names:
        name = "/".join(Path(given).with_suffix("").parts[-2:]) if given.endswith(".ipynb") else given.strip("/")
        fitting = [name] if name in every else [full for full in every if full.startswith(name)]
        if len(fitting) > 1:
            raise BadInput(f"several notebooks begin with {given!r}: {', '.join(fitting)}.")
        chosen.append(every[fitting[0] if fitting else known_name("notebook", name, every)])
    return list(dict.fromkeys(chosen)) or list(every.values())  # each once, however often it is named


def unstripped(path: Path) -> list[str]:
    """What a stored notebook should not hold (outputs, counters, traces of a run); empty for a clean one."""
    notebook = stored_notebook(path)
    wrong = [f"metadata {key!r}" for key in ("papermill", "widgets", "pruning_book") if key in notebook.metadata]
    for number, cell in enumerate(notebook.cells, 1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            wrong.append(f"output in cell {number}")
        if "papermill" in cell.metadata:
            wrong.append(f"metadata 'papermill' in cell {number}")
    return wrong


def executed_path(source: Path, executed: Path = EXECUTED) -> Path:
    """Where the executed copy of a notebook belongs."""
    return executed / source.parent.name / source.name


def _aside(source: Path, failed: Path) -> Path:
    """Where what a failing run leaves of a notebook is kept."""
    return (failed / source.parent.name / source.stem).with_suffix(".failed.ipynb")


def is_current(source: Path, profile: str, parameters: Mapping[str, Any], executed: Path = EXECUTED) -> bool:
    """Whether the executed copy is what a run would make: source, settings, package and lock are unchanged."""
    return stamp_in(executed_path(source, executed)) == stamp_of(source, profile, parameters)


def _leave_with(parent: int, stopped: Any) -> None:
    """Worker set-up: end with the kernel when the parent is gone, so that a killed `make book` leaves nothing running behind,
    or when ``stopped`` is set."""

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent sees to it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        while os.getppid() == parent and not stopped.wait(SECONDS_BETWEEN_LOOKS):
            pass
        kill_kernels()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(
    source: Path, profile: str, parameters: Mapping[str, Any], output: Path, failed: Path, plan: Path | None
) -> float:
    """In a worker process: run one notebook, return the seconds it took."""
    started = time.monotonic()
    if plan is not None:
        write_atomically(plan, "")
        os.environ["PRUNING_PLAN"] = str(plan)
    run_notebook(source, profile, parameters, output=output, failed=failed)
    return time.monotonic() - started


@checked
def run_notebooks(
    notebooks: Iterable[Path],
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    *,
    jobs: int = 2,
    executed: Path = EXECUTED,
    failed: Path = FAILED,
    always: bool = False,
    plans: Path | None = None,
) -> list[Path]:
    """Run those notebooks that changed since they last ran, ``jobs`` at a time; return the ones that were run.
    ``plans``: a folder for lists of the experiments that they ask for.

    Each finished notebook is in place at once (written under another name, then renamed), so an interrupted call is
    simply repeated. A failing notebook does not stop the others; at the end NotebookFailed lists all failures.

    >>> run_notebooks([])
    []
    >>> run_notebooks([], jobs=0)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: jobs must be at least 1, not 0.
    """
    jobs = check("jobs", jobs, Whole(at_least=1))
    parameters, notebooks = dict(parameters or {}), list(map(Path, notebooks))
    known_name("profile", profile, PROFILES)
    for notebook in notebooks:  # all of them, before the first runs for hours
        check_parameters(notebook)
        checked_parameters(notebook, profile, parameters)
    due = [n for n in notebooks if always or not is_current(n, profile, parameters, executed)]
    if not due:
        return []
    check_variables()
    for source in due:
        for place in (executed_path(source, executed), _aside(source, failed)):
            check_folder("the place of an executed notebook", place.parent, [place.name])
    # Fresh processes: torch's threads do not survive a fork.
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    stopped = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(due)), context, _leave_with, (os.getpid(), stopped))
    running: dict[Future[float], Path] = {}
    try:
        # What is blocked here waits, and stays blocked in the processes that start, until they can take it (_leave_with).
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for source in due:
            aside = _aside(source, failed)
            target = executed_path(source, executed)
            plan = None if plans is None else executed_path(source, plans).with_suffix(".plan")
            running[pool.submit(_run, source, profile, parameters, target, aside, plan)] = source
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return _finished(running, f"notebooks ({profile})")
    except (KeyboardInterrupt, SystemExit):
        stopped.set()  # a notebook may have hours to go
        workers = set(multiprocessing.active_children()) - others
        given_up = time.monotonic() + 10 * SECONDS_BETWEEN_LOOKS
        for worker in workers:
            worker.join(max(given_up - time.monotonic(), 0))
        kill(workers)
        sweep()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: Mapping[Future[float], Path], title: str) -> list[Path]:
    """Wait for all of them, saying how each ended; the ones that succeeded, or NotebookFailed with all failures."""
    problems: list[str] = []
    finished: list[Path] = []
    with progress_bar(sys.stderr.isatty(), total=len(running), desc=title, unit="notebook") as bar:
        for future in as_completed(running):
            source = running[future]
            name = f"{source.parent.name}/{source.stem}"
            try:
                bar.write(f"{name}: {future.result():.1f} s")
                finished.append(source)
            except (NotebookFailed, BrokenProcessPool) as error:
                lost = f"{name} was not finished: a process that ran notebooks was killed (is there too little memory?)"
                problems.append(lost if isinstance(error, BrokenProcessPool) else str(error))
                bar.write(f"{name}: FAILED")
            bar.update()
    if problems:
        raise NotebookFailed("\n".join(problems))
    return finished


def remove_strays(sources: Path = SOURCES, executed: Path = EXECUTED) -> None:
    """Delete executed copies whose notebook is gone or was renamed: the book would show a page without a source."""
    for copy in sorted(executed.glob("*/*.ipynb")):
        if not (sources / copy.parent.name / copy.name).is_file():
            copy.unlink()


def fill_gaps(sources: Path = SOURCES, executed: Path = EXECUTED) -> list[Path]:
    """Place not yet executed notebooks, and those whose executed copy is damaged, without outputs, so that one page can be
    built before all have run.

    They carry no stamp, hence count as not run. Returns what was placed. Raises BadInput, before it places any, for a
    source that is no notebook.
    """
    missing = [n for n in find_notebooks(sources=sources) if not _is_notebook(executed_path(n, executed))]
    contents = [(source, stored_notebook(source) and source.read_bytes()) for source in missing]
    for source, content in contents:
        write_atomically(executed_path(source, executed), content)
    return missing


def _is_notebook(path: Path) -> bool:
    try:
        stored_notebook(path)
    except BadInput:
        return False
    return True
