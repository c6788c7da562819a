"""All notebooks of the book: found, checked, and run two side by side; a finished and unchanged one is not run again."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pruning_core.book.notebooks import (
    NotebookFailed,
    checked_parameters,
    run_notebook,
    running_root,
    stamp_in,
    stamp_of,
)
from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.records.files import remove_leftovers, write_atomically
from pruning_core.version import REPOSITORY

SOURCES = REPOSITORY / "notebooks"
EXECUTED = REPOSITORY / "book" / "notebooks"
FAILED = REPOSITORY / "book" / "_failed"


@checked
def find_notebooks(names: Iterable[str] = (), sources: Path = SOURCES) -> list[Path]:
    """The book's notebooks in reading order, or those named: ``0_foundations/1_sparsity``, its path, or the beginning
    of its name as long as only one begins so. Raises UnknownName for a name that fits none, BadInput for several."""
    every = {f"{file.parent.name}/{file.stem}": file for file in sorted(Path(sources).glob("[0-9]*/[0-9]*.ipynb"))}
    chosen = []
    for given in names:
        name = "/".join(Path(given).with_suffix("").parts[-2:]) if given.endswith(".ipynb") else given.strip("/")
        fitting = [name] if name in every else [full for full in every if full.startswith(name)]
        if len(fitting) > 1:
            raise BadInput(f"several notebooks begin with {given!r}: {', '.join(fitting)}.")
        chosen.append(every[fitting[0] if fitting else known_name("notebook", name, every)])
    return chosen or list(every.values())


def unstripped(path: Path) -> list[str]:
    """What a stored notebook should not hold (outputs, counters, traces of a run); empty for a clean one."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
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


def is_current(source: Path, profile: str, parameters: Mapping[str, Any], executed: Path = EXECUTED) -> bool:
    """Whether the executed copy is what a run would make: source, settings, package and lock are unchanged."""
    return stamp_in(executed_path(source, executed)) == stamp_of(source, profile, parameters)


def _leave_with(parent: int) -> None:
    """Worker set-up: end when the parent is gone, so that a killed `make book` leaves nothing running behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
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
    """
    jobs = check("jobs", jobs, Whole(at_least=1))
    parameters = dict(parameters or {})
    notebooks = [Path(notebook) for notebook in notebooks]
    for notebook in notebooks if parameters else ():  # before the first of them starts
        checked_parameters(notebook, profile, parameters)
    due = [n for n in notebooks if always or not is_current(n, profile, parameters, executed)]
    if not due:
        return []
    # Fresh processes: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(min(jobs, len(due)), multiprocessing.get_context("spawn"), _leave_with, (os.getpid(),))
    running: dict[Future[float], Path] = {}
    try:
        for source in due:
            aside = (failed / source.parent.name / source.stem).with_suffix(".failed.ipynb")
            target = executed_path(source, executed)
            plan = None if plans is None else executed_path(source, plans).with_suffix(".plan")
            running[pool.submit(_run, source, profile, parameters, target, aside, plan)] = source
        return _finished(running, f"notebooks ({profile})")
    except (KeyboardInterrupt, SystemExit):
        for (
            worker
        ) in multiprocessing.active_children():  # a notebook may have hours to go; its kernel ends with its worker
            worker.kill()
            worker.join()
        remove_leftovers(running_root())
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: Mapping[Future[float], Path], title: str) -> list[Path]:
    """Wait for all of them, saying how each ended; the ones that succeeded, or NotebookFailed with all failures."""
    problems: list[str] = []
    finished: list[Path] = []
    with tqdm(total=len(running), desc=title, unit="notebook", disable=None) as bar:
        for future in as_completed(running):
            source = running[future]
            name = f"{source.parent.name}/{source.stem}"
            try:
                bar.write(f"{name}: {future.result():.1f} s")
                finished.append(source)
            except NotebookFailed as error:
                problems.append(str(error))
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
    """Place not yet executed notebooks without outputs, so that one page can be built before all have run.

    They carry no stamp, hence count as not run. Returns what was placed.
    """
    missing = [n for n in find_notebooks(sources=sources) if not executed_path(n, executed).is_file()]
    for source in missing:
        write_atomically(executed_path(source, executed), source.read_bytes())
    return missing
