"""Many experiments as one graph: shared beginnings are trained once, then what hangs on them runs side by side.

Without workers everything runs here, one after the other. With workers the graph goes to dask.distributed: its scheduler
gives tasks to processes, on this machine or on others, and each task is an experiment (or a shared beginning) that leaves
its record (or checkpoint) in the cache folder, which all of them see. So a graph that is lost with its scheduler is only
sent again: what has a record is not computed twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pruning_core.checks import Whole, check, checked, plain, present
from pruning_core.errors import BadInput, OutOfTime, PruningError, shortage, shown
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.rehearsal import rehearse_all
from pruning_core.experiments.runs import beginnings, checkpoint, ends_after, is_finished, run_until, train_until
from pruning_core.experiments.stages import Each, Repeat, Stage, Train
from pruning_core.experiments.variables import check_variables
from pruning_core.progress import progress_bar
from pruning_core.records.files import replaceable, tidy, write_atomically
from pruning_core.records.places import file_bytes, located

if TYPE_CHECKING:
    import distributed
    import pandas

MANY = 1024
"""At most so many processes side by side: what is more was a slip."""


class ExperimentsFailed(PruningError):
    """Some experiments of a list failed, each twice unless the failure was certain; ``failures`` has an entry for each.

    The others have run, and have their records.

    >>> issubclass(ExperimentsFailed, PruningError)
    True
    """

    def __init__(self, failures: list[Failure], of: int):
        self.failures = failures
        kinds = Counter(failure.error for failure in failures)
        lines = [f"{error}{f' ({n} times)' if n > 1 else ''}" for error, n in kinds.most_common(5)]
        more = f"; and {len(kinds) - 5} other errors" if len(kinds) > 5 else ""
        super().__init__(f"{len(failures)} of {of} experiments failed: {'; '.join(lines)}{more}")


OUT_OF_TIME = "out of time"

LARGEST_LIST = 10**8  # bytes of what a sweep is to run
_LINE = {"key": str, "model": str, "data": str, "width": int | float, "epochs": int, "record": str}


class Failure(NamedTuple):
    """What went wrong with the experiment of that key, in one line, and where."""

    key: str
    error: str
    trace: str


@dataclass(frozen=True)
class Task:
    """An experiment to be run (``until`` is None), or its beginning up to the training ``until``; ``after``: the key of the
    task that has to come first."""

    experiment: Experiment
    until: str | None = None
    after: str | None = None

    @property
    def key(self) -> str:
        return self.until or self.experiment.key


@checked
def run_all(
    experiments: Iterable[Experiment],
    *,
    workers: int | str | distributed.Client | None = None,
    progress: bool = True,
    folder: Path | None = None,
    max_minutes: float | None = None,
) -> pandas.DataFrame:
    """All rows of many experiments as one DataFrame, with a progress bar over the experiments.

    ``workers``: None runs them here, one after the other (unless ``$PRUNING_WORKERS`` says otherwise); a number starts
    that many processes on this machine; the address of a dask scheduler or a ``distributed.Client`` sends them to its
    workers, which must see the same ``$PRUNING_CACHE`` and have the same version of this package. Rows are the same.

    Before the first experiment is trained here, all of them are looked through: one that cannot be played on its network
    (a layer that is not there, a sparsity that no choice could reach) raises BadInput, and says which it is.
    Interrupted, it ends the processes that it started; the workers of a scheduler finish what they are at.
    An experiment that fails is tried once more (not where the failure is certain, as for bad input), keeps its error beside
    its record, and does not stop the others. Raises ExperimentsFailed at the end of all if there were any. After
    ``max_minutes`` nothing new is begun, what trains stops at a checkpoint after its epoch, nobody waits for another process,
    and OutOfTime says how far all are: the same call goes on.

    >>> from pruning_core.experiments import recipes
    >>> lenets = [Experiment("lenet300", "digits", recipes.dense(1), seed=s, profile="smoke") for s in (0, 1)]
    >>> run_all(lenets, progress=False)["seed"].tolist()
    [0, 1]
    """
    import pandas as pd

    tidy()
    listed = list(experiments)
    folder = None if folder is None else located("folder", folder)  # workers are in another one
    if noted := os.environ.get("PRUNING_PLAN"):  # how a sweep learns what its notebooks ask for
        note(located("PRUNING_PLAN", noted), listed, folder)
    tasks = plan(experiment for experiment in listed if not is_finished(experiment, folder))
    if tasks:
        check_variables()
    shared = {task.until for task in tasks if task.until}
    given = workers if workers is not None else os.environ.get("PRUNING_WORKERS") or None
    wanted = int(given) if isinstance(given, str) and re.fullmatch("[0-9]{1,1000}", given) else plain(given)
    if isinstance(wanted, bool | float) or (isinstance(wanted, int) and wanted < 0):
        raise BadInput(f"workers is a number of processes, a scheduler's address or a Client, not {shown(wanted)}.")
    if isinstance(wanted, int):
        check("workers", wanted, Whole(at_most=MANY))
    if wanted is None or isinstance(wanted, int):  # a cluster may have devices that are not here
        for device in {task.experiment.device for task in tasks}:
            present(device)
        if len(listed) > 1:
            rehearse_all(listed, {task.key for task in tasks}, progress)
    total, ends = sum(task.until is None for task in tasks), ends_after(max_minutes)
    # To start processes costs seconds: not for one experiment.
    if wanted in (None, 0, 1) or (isinstance(wanted, int) and total < 2):
        outcomes = _here(tasks, shared, folder, ends)
    else:
        from pruning_core.experiments.workers import check_workers, outcomes_of_workers

        check_workers(wanted)
        outcomes = outcomes_of_workers(wanted, tasks, shared, folder, ends)
    failures: list[Failure] = []
    bar = progress_bar(progress, total=len(listed), initial=len(listed) - total, unit="run", desc="experiments")
    with (
        contextlib.closing(outcomes),
        bar,
    ):  # closed at once where this is interrupted, and not when nobody needs it any more
        for task, failure in outcomes:
            if task.until is None:
                bar.update()
                failures += [failure] if failure else []
    if broken := [failure for failure in failures if failure.error != OUT_OF_TIME]:
        raise ExperimentsFailed(broken, len(listed))
    if failures:
        raise OutOfTime(
            f"the {max_minutes:g} minutes are over: {len(listed) - len(failures)} of {len(listed)} experiments have their "
            "records, and the same call goes on from there."
        )
    return pd.DataFrame([row for experiment in listed for row in run_until(experiment, ends, False, folder, None)])


def plan(experiments: Iterable[Experiment]) -> list[Task]:
    """The tasks of some experiments, in an order in which they can be done: first what several begin with."""
    different = {experiment.key: experiment for experiment in experiments}
    chains = {key: beginnings(experiment) for key, experiment in different.items()}
    times = Counter(begun for chain in chains.values() for begun in chain)
    tasks: dict[str, Task] = {}
    for key, experiment in different.items():
        after = None
        for begun in chains[key]:
            if times[begun] == 1:
                break
            tasks.setdefault(begun, Task(experiment, begun, after))
            after = begun
        tasks[key] = Task(experiment, None, after)
    return sorted(tasks.values(), key=lambda task: task.until is None)


def note(path: Path, experiments: Iterable[Experiment], folder: Path | None) -> None:
    """Add experiments to a list of what is to be run: a line of JSON each. Raises BadInput where no file can be."""
    lines = []
    for experiment in experiments:
        about = {name: getattr(experiment, name) for name in ("key", "model", "data", "width")}
        about |= {"epochs": epochs_of(experiment.timeline), "record": str(experiment.record(folder).resolve())}
        lines.append(json.dumps(about) + "\n")
    try:
        replaceable(path)  # one would wait for who reads from a pipe
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(lines)
    except BadInput as error:
        raise BadInput(f"PRUNING_PLAN is a file to be written to: {error}") from error
    except OSError as error:
        raise BadInput(
            f"PRUNING_PLAN is a file to be written to, and {path} cannot be one: {error.strerror}."
        ) from error


def noted(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> line of a list that :func:`note` wrote; of one that a killed process left, or somebody else, what is whole."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for text in file_bytes(path, LARGEST_LIST).decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and all(isinstance(line.get(name), kind) for name, kind in _LINE.items()):
                    found |= {line["key"]: line} if line["record"].endswith(".json") else {}
    return found


def epochs_of(stages: Iterable[Stage]) -> int:
    """How many epochs a timeline trains; an Each counts as one round, because only the network knows its parts."""
    total = 0
    for stage in stages:
        total += stage.epochs if isinstance(stage, Train) else 0
        if isinstance(stage, Repeat | Each):
            total += (stage.n if isinstance(stage, Repeat) else 1) * epochs_of(stage.stages)
    return total


def _here(
    tasks: list[Task], shared: set[str], folder: Path | None, ends: float | None
) -> Generator[tuple[Task, Failure | None]]:
    first = True
    for task in tasks:
        if task.until is None:  # a beginning is trained by the first that needs it
            yield task, attempt(task, shared, folder, ends, first)
            first = False


def attempt(
    task: Task, shared: Iterable[str], folder: Path | None, ends: float | None = None, first: bool = False
) -> Failure | None:
    """Do a task, and once more if it fails for a reason that may pass; what went wrong, if it did, is kept in a file.

    After ``ends`` nothing is begun; the ``first`` task is, so that the smallest number of minutes brings all further.
    """
    if ends is not None and time.time() > ends and not first:
        return Failure(task.key, OUT_OF_TIME, "")
    for again in (True, False):
        try:
            if task.until is not None:
                train_until(task.experiment, task.until, ends)
            else:
                run_until(task.experiment, ends, False, folder, list(shared))
                error_file(task.experiment, folder).unlink(missing_ok=True)
            return None
        except OutOfTime:
            return Failure(task.key, OUT_OF_TIME, "")
        except Exception as error:
            if again and not isinstance(error, PruningError):
                continue
            text = str(error) if isinstance(error, PruningError) else f"{type(error).__name__}: {error}"
            text = shortage(error) or text
            failure = Failure(task.key, text, traceback.format_exc())
            if task.until is None:
                about = {"experiment": repr(task.experiment), **failure._asdict()}
                write_atomically(error_file(task.experiment, folder), json.dumps(about, indent=1))
            return failure
    raise AssertionError("unreachable")


def error_file(experiment: Experiment, folder: Path | None = None) -> Path:
    """Where the last error of an experiment is kept until it succeeds."""
    return experiment.record(folder).with_suffix(".error")


def is_done(task: Task, folder: Path | None) -> bool:
    return checkpoint(task.until).exists() if task.until else is_finished(task.experiment, folder)
