"""Notebooks as the book's experiments: their profiles, their parameters, and a runner that repeats only what changed.

A chapter is a folder ``notebooks/N_name`` of stripped .ipynb files with a ``profiles.yml`` beside them, which gives each
notebook the numbers of each profile (profiles.py).
"""

import ast
import contextlib
import hashlib
import html
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pruning_core.book.profiles import checked_knob, read_profiles
from pruning_core.book.stored import UNREADABLE, stored_notebook
from pruning_core.checks import checked
from pruning_core.errors import BadInput, BadType, PruningError, known_name
from pruning_core.progress import STILL
from pruning_core.records.files import file_sha256, running_root, temporary_folder, write_atomically
from pruning_core.records.hashes import content_hash
from pruning_core.records.places import check_folder
from pruning_core.version import CHEAP, PACKAGE, REPOSITORY

_PATIENCE = 600
"""Seconds in which a kernel must start, and an output arrive after its cell: nbclient waits a minute and four seconds, too
little for a machine with ten times as many processes as cores."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class NotebookFailed(PruningError):
    """A cell of a notebook raised; the message names notebook, cell and exception."""


def read_parameters(path: Path) -> dict[str, str]:
    """Names and written defaults of a notebook's parameters cell; BadInput when it has none.

    Python's own parser reads them: papermill's expressions take an equals sign in a text or a comment for another line.
    """
    check_parameters(path)
    cell = next(cell["source"] for cell in source_cells(path) if "parameters" in cell["tags"])
    found = {}
    try:
        for node in ast.parse(cell).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and isinstance(targets[0], ast.Name):
                text = ast.get_source_segment(cell, node.value) or ""
                found[targets[0].id] = ast.unparse(node.value) if "\n" in text else text
    except UNREADABLE:
        found = {}
    if not found:
        raise BadInput(f"the cell of {path} that is tagged 'parameters' must hold one assignment a line.")
    return found


def check_parameters(path: Path) -> None:
    """Raise BadInput for a file that is no notebook, or one in which papermill finds no place for its parameters."""
    if not any("parameters" in cell["tags"] for cell in source_cells(path)):
        raise BadInput(
            f"{path} has no cell tagged 'parameters' with one assignment a line: tag its first cell of code so, in "
            "JupyterLab under Property Inspector."
        )


@contextlib.contextmanager
def kernel_environment(profile: str) -> Iterator[None]:
    """What a kernel started inside inherits: one thread in the short profiles, no progress bars and no live panels."""
    wanted = {"TQDM_DISABLE": "1", STILL: "1", **(dict.fromkeys(_THREADS, "1") if profile in CHEAP else {})}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@checked
def run_notebook(
    path: str | os.PathLike,
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    *,
    output: Path | None = None,
    failed: Path | None = None,
) -> Any:
    """Execute a notebook from top to bottom in a kernel of its own and return it (an nbformat node).

    ``parameters`` replace values of the parameters cell. ``output`` is written only when every cell has run; what a
    failing run leaves goes to ``failed``. The working directory is the notebook's folder. The result carries its stamp
    (:func:`stamp_of`) in its metadata and a line for the reader below its title, but no path of this machine.

    Raises UnknownName for parameters and profiles that the notebook does not have, BadType or BadInput for values that they
    cannot have, all before it starts, and NotebookFailed for a failing cell.

    >>> run_notebook("notebooks/0_foundations/1_sparsity.ipynb", "hasty")
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown profile 'hasty': Allowed: paper, quick, smoke, standard.
    """
    import nbformat

    stored_notebook(path)  # before links are followed: what is wrong is said of the name that was given
    path = Path(path).resolve()
    given = checked_parameters(path, profile, parameters or {})
    for place in filter(None, (output, failed)):
        check_folder("the place of an executed notebook", place.parent, [place.name])
    stamp = stamp_of(path, profile, given)
    defaults = read_parameters(path)
    said = {} if defaults.get("profile", "").strip("'\"") == profile else {"profile": profile}
    started = time.monotonic()
    with kernel_environment(profile):
        notebook = _executed(path, given | said, failed)
    seconds = time.monotonic() - started
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)  # holds absolute paths and times of day
    notebook.metadata["pruning_book"] = {"stamp": stamp, "profile": profile, "seconds": round(seconds, 1)}
    values = {knob: _value(text) for knob, text in defaults.items()} | given
    settings = read_profiles(path.with_name("profiles.yml"), path.stem, profile)
    notebook.cells[0].source += "\n\n" + page_stamp(profile, values, settings, seconds, given)
    if output is not None:
        write_atomically(output, nbformat.writes(notebook) + "\n")
        if failed is not None:
            failed.unlink(missing_ok=True)
    return notebook


def checked_parameters(path: Path, profile: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a notebook can work with them, without those that change nothing: None, the written default, and what
    its profile says anyway. Raises what :func:`run_notebook` raises before it starts."""
    settings = read_profiles(path.with_name("profiles.yml"), path.stem, profile)
    defaults = read_parameters(path) if parameters else {}
    found = {}
    for name, value in parameters.items():
        known_name(f"parameter of {path.name}", name, defaults)
        usual = settings.get(name, _value(defaults[name]))
        if name == "profile":
            if value != profile:
                raise BadInput(f"the parameter profile is {value!r}, and the profile asked for {profile!r}: give one.")
        elif value is not None:
            value = checked_knob(path.with_name("profiles.yml"), path.stem, name, value, usual)
            content_hash({name: value})  # refuses what no notebook could be given, as arrays are, in its own words
            if _holds_tuple(value):
                raise BadType(f"the parameter {name} holds a tuple, which a notebook would get as text: give lists.")
            if value != usual:
                found[name] = value
    return found


def _holds_tuple(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return isinstance(value, tuple) or any(map(_holds_tuple, parts))


_RUNNING: set[Any] = set()
"""The managers of the kernels that this process has started."""


def kill_kernels() -> None:
    """End the kernels of this process at once, and wait until they are gone: a cell that computes hears of nothing else."""
    for manager in tuple(_RUNNING):
        if process := getattr(manager.provisioner, "pid", None):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


def _executed(path: Path, parameters: Mapping[str, Any], failed: Path | None) -> Any:
    """The notebook as papermill leaves it; where a cell fails, NotebookFailed, and what had run in ``failed``."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        """A kernel whose connection file lies with the draft, and goes with it."""

        def __init__(self, **settings: Any):
            super().__init__(connection_file=str(folder / "kernel.json"), **settings)
            managers.add(self)
            _RUNNING.add(self)

    managers: set[Kernel] = set()
    with temporary_folder(running_root()) as folder:
        draft = folder / path.name
        try:
            return papermill.execute_notebook(
                path,
                draft,
                parameters,
                cwd=path.parent,
                progress_bar=False,
                start_timeout=_PATIENCE,
                iopub_timeout=_PATIENCE,
                kernel_name="python3",
                kernel_manager_class=Kernel,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # ipykernel warns of its own default transport
            )
        except Exception as error:
            if failed is not None and draft.is_file():
                write_atomically(failed, draft.read_bytes())
            raise NotebookFailed(_failure(path, error, failed)) from error
        finally:
            _RUNNING.difference_update(managers)


def _value(text: str) -> Any:
    """What a default in the parameters cell stands for; the text itself where it is more than a literal."""
    try:
        return ast.literal_eval(text)
    except UNREADABLE:
        return text


def _failure(path: Path, error: Exception, kept: Path | None) -> str:
    """One line for a failed run: papermill's own message holds the whole coloured traceback."""
    from papermill.exceptions import PapermillExecutionError

    name = f"{path.parent.name}/{path.stem}"
    aside = f" (what had run is kept in {kept})" if kept is not None and kept.is_file() else ""
    if not isinstance(error, PapermillExecutionError):
        return f"{name} could not be run: {type(error).__name__}: {' '.join(str(error).split())[:500]}{aside}"
    # Counted in the source, where the reader looks for it: papermill may have put a cell of parameters before it.
    numbers = (number for number, cell in enumerate(source_cells(path), 1) if cell["source"] == error.source)
    return f"{name}, cell {next(numbers, '?')}: {error.ename}: {error.evalue}{aside}"


def page_stamp(
    profile: str,
    parameters: Mapping[str, Any],
    settings: Mapping[str, Any],
    seconds: float,
    changed: Mapping[str, Any] | None = None,
) -> str:
    """The line below a page's title that says how its numbers and figures were made, with the knobs that were ``changed``."""
    from pruning_core.records.machine import environment

    facts = environment(parameters.get("device") or "cpu")
    first, seeds = parameters.get("seed", 0), parameters.get("seeds") or settings.get("seeds") or 1
    if isinstance(seeds, int):
        seeds = [first + k for k in range(seeds)]
    line = [
        f"profile {profile}",
        *(f"{knob} {value}" for knob, value in (changed or {}).items() if knob not in ("seed", "seeds", "device")),
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        f"{facts['device']}{', one thread' if profile in CHEAP else ''}",
        f"{seconds / 60:.1f} min",
        f"torch {facts['torch']}",
        f"pruning_core {facts['package']}",
    ]
    return f'<p class="page-stamp">Made with {html.escape(" · ".join(line))}</p>'


def source_cells(path: Path) -> list[dict[str, Any]]:
    """What decides a notebook's result: kinds, tags and sources of its cells; outputs and counters do not count."""
    return [
        {"kind": c.cell_type, "tags": c.metadata.get("tags", []), "source": c.source}
        for c in stored_notebook(path).cells
    ]


def tree_hash(*paths: Path) -> str:
    """One hash over names and contents of files and of all files below folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(f"{file.relative_to(path.parent)} {file_sha256(file)}\n".encode())
    return total.hexdigest()


def stamp_of(path: str | os.PathLike, profile: str, parameters: Mapping[str, Any] | None = None) -> str:
    """The hash of everything that a run of the notebook depends on: its source, its settings in the profile, the
    parameters, the package's source, the lock, and the committed results if the notebook reads records or claims."""
    path = Path(path)
    source = source_cells(path)
    text = "".join(cell["source"] for cell in source)
    reads = [REPOSITORY / "data" / "results", REPOSITORY / "book" / "claims.yml"]
    return content_hash(
        {
            "source": source,
            "settings": dict(read_profiles(path.with_name("profiles.yml"), path.stem, profile)),
            "profile": profile,
            "parameters": checked_parameters(path, profile, parameters or {}),
            "package": tree_hash(PACKAGE, REPOSITORY / "requirements.lock"),
            "evidence": tree_hash(*reads) if re.search("records|claims|stored_rows", text) else "",
        }
    )


def stamp_in(executed: Path) -> str | None:
    """The stamp of an executed notebook; None when it is missing, damaged or was never executed by this runner."""
    import nbformat

    try:
        return nbformat.read(executed, as_version=4).metadata.get("pruning_book", {}).get("stamp")
    except Exception:  # whatever is wrong with the file, the answer is to make it again
        return None
