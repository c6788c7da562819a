"""One experiment at a time: its rows are read from its record, or it is played from its nearest checkpoint and recorded.

Every training and every record is made under a lock: of two processes that want the same, one computes and the other waits
and reads.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pruning_core.checks import checked, present
from pruning_core.errors import OutOfTime
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.order import check_amounts
from pruning_core.experiments.own_code import loss_name, own_kinds
from pruning_core.experiments.play import play
from pruning_core.experiments.rehearsal import rehearse
from pruning_core.experiments.stages import Each, Stage, Train
from pruning_core.experiments.state import State, Step, epochs_in, flatten, start
from pruning_core.experiments.timelines import every_stage
from pruning_core.experiments.variables import bound_of_checkpoints, check_variables
from pruning_core.experiments.watching import Log, is_watched
from pruning_core.methods.base import Method
from pruning_core.records.files import SECONDS_OF_A_WEEK, cache_root, replaceable
from pruning_core.records.hashes import content_hash
from pruning_core.records.locks import exclusive, is_locked, sweep
from pruning_core.records.machine import environment
from pruning_core.records.rows import tagged, untagged
from pruning_core.records.table import recorded, write_rows
from pruning_core.version import CHEAP, LONG, code_of

NAMED = ("model", "data", "width", "seed", "limit", "random_labels", "profile")
"""The fields of an experiment that its rows have as columns, where they are not None."""


@checked
def run(
    experiment: Experiment,
    *,
    progress: bool = True,
    folder: Path | None = None,
    shared: Collection[str] | None = None,
    max_minutes: float | None = None,
) -> list[dict[str, Any]]:
    """The rows of an experiment, one a Measure: read from its record, or played and then recorded.

    Tags join the rows of the record, for :func:`pruning_core.records.collect`; one that the record has already stays there.
    What is returned has the tags of this call, and none of another.
    A run that was killed goes on from its last checkpoint; one that begins like another goes on from where they part; one
    that another process is at is waited for. ``shared``: the trainings (their keys) that other experiments begin with too;
    when given, checkpoints of others between the first and the last training are dropped once the rows are recorded.
    ``max_minutes``: stop after the first epoch that ends later, with a checkpoint, and raise OutOfTime, as while another
    process is waited for; the same call goes on.

    >>> import pruning_core as pc
    >>> import tempfile
    >>> experiment = pc.Experiment("lenet300", "digits", [pc.Prune("magnitude", 0.5), pc.Measure()], width=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (row,) = run(experiment, progress=False, folder=Path(folder))
    >>> row["sparsity"], row["label"]
    (0.5, 'final')
    """
    return run_until(experiment, ends_after(max_minutes), progress, folder, shared)


def ends_after(minutes: float | None) -> float | None:
    """When so many minutes from now will be over, as of time.time()."""
    return None if minutes is None else time.time() + 60 * minutes


def run_until(
    experiment: Experiment, ends: float | None, progress: bool, folder: Path | None, shared: Collection[str] | None
) -> list[dict[str, Any]]:
    """:func:`run`, with a moment to stop at in place of minutes."""
    path = experiment.record(folder)
    tags = dict(experiment.tags)
    if not is_finished(experiment, folder):
        check_variables()
        present(experiment.device)
        with exclusive(path, ends):
            if not path.exists():
                replaceable(path)  # a link that leads nowhere: found now, and not after the work
                return _record(experiment, path, progress, shared, ends)
            if not is_finished(experiment, folder):  # recorded, but not watched
                with _threads(experiment):
                    _played(experiment, progress, ends=ends)
    about = _about(experiment)
    rows = recorded(path, path.stem, about)
    if any(tag not in row for row in rows for tag in tags):
        with exclusive(path, ends):
            held = recorded(path, path.stem, about)
            new = [{tag: value for tag, value in tags.items() if tag not in row} for row in held]
            write_rows(path, [tagged(row, joining) for row, joining in zip(held, new, strict=True)])
    return [untagged(row) | tags for row in rows]


def is_finished(experiment: Experiment, folder: Path | None = None) -> bool:
    """Whether an experiment has its record, and its log if it is to be watched."""
    return os.path.exists(experiment.record(folder)) and is_watched(experiment)


def _record(
    experiment: Experiment, path: Path, progress: bool, shared: Collection[str] | None, ends: float | None
) -> list[dict[str, Any]]:
    sweep(path.parent, checkpoint("").parent)
    about = {name: value for name in NAMED if (value := getattr(experiment, name)) is not None}
    about |= {"criterion": loss_name(experiment.loss)} if experiment.loss else {}
    about |= {"network_file": experiment.network.sha256} if experiment.network else {}
    about = {"experiment": path.stem, **about, "code": code_of(experiment.profile)}  # a loss may have changed since
    with _threads(experiment):
        origin = environment(experiment.device)  # of the start: the code may be edited while this runs
        state, trained = _played(experiment, progress, ends=ends)
        rows = [about | row | origin for row in state.rows]
    write_rows(path, [tagged(row, dict(experiment.tags)) for row in rows])
    if shared is not None:
        for key in set(trained[1:-1]) - set(shared):
            checkpoint(key).unlink(missing_ok=True)
    return [row | dict(experiment.tags) for row in rows]


def _about(experiment: Experiment) -> dict[str, Collection[Any]]:
    """What every row of an experiment says of it: column -> what its entry may be. Profiles of one kind share keys."""
    about: dict[str, Collection[Any]] = {name: (getattr(experiment, name),) for name in NAMED}
    return about | {"profile": CHEAP if experiment.profile in CHEAP else LONG}


@checked
def final_state(experiment: Experiment, *, progress: bool = False) -> State:
    """The state at the end of an experiment, played again from its nearest checkpoint: the network itself, its masks.

    >>> import pruning_core as pc
    >>> experiment = pc.Experiment("lenet300", "digits", [pc.Prune("magnitude", 0.5)], width=0.1)
    >>> state = final_state(experiment)
    >>> round(float(state.masks["fc1.weight"].float().mean()), 1)
    0.5
    """
    check_variables()
    with _threads(experiment):
        return _played(replace(experiment, watch=None), progress)[0]


def train_until(experiment: Experiment, key: str, ends: float | None = None) -> None:
    """Plays an experiment up to the training ``key`` (one of :func:`beginnings`), and leaves its checkpoint."""
    if experiment.watch is not None or not checkpoint(key).exists():
        with _threads(experiment):
            _played(experiment, False, key, ends)


def beginnings(experiment: Experiment) -> list[str]:
    """The keys of the trainings that an experiment starts with, as far as they are known before its network is built: up to
    the first Each that asks the network for its parts. Experiments that share one play the same up to its end."""

    def known(stage: Stage) -> bool:
        return not any(isinstance(inner, Each) and isinstance(inner.parts, str) for inner in every_stage([stage]))

    steps = list(flatten(itertools.takewhile(known, experiment.timeline), None, list))
    return [key for key, step in zip(_keys(experiment, steps), steps, strict=True) if _trains(step)]


def checkpoint(key: str, suffix: str = "") -> Path:
    """Where the state after a training is kept, or (``-halfway``) that within it."""
    return cache_root() / "checkpoints" / f"{key}{suffix}.safetensors"


@contextmanager
def _threads(experiment: Experiment) -> Iterator[None]:
    """One thread for a cheap run on the CPU: the same bits on every machine with the same versions, and two side by side."""
    before = torch.get_num_threads()
    if experiment.profile in CHEAP and torch.device(experiment.device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trains(step: Step) -> bool:
    return isinstance(step.stage, Train) and step.stage.epochs > 0


def _keys(experiment: Experiment, steps: Iterable[Step]) -> list[str]:
    """After every step, a key of everything that happened up to it."""
    trainings = [stage for stage in every_stage(experiment.timeline) if isinstance(stage, Train)]
    # A later penalty may put layers of its own into the network before the first step (L0's gates).
    layers = [m for training in trainings for m, _ in training.penalty or () if type(m).prepare is not Method.prepare]
    own = own_kinds(tuple(layers))
    key, keys = content_hash([experiment._content(), *dict.fromkeys(layers), *([own] if own else ())]), []
    for step in steps:
        key = content_hash([key, step, own_kinds(step.stage)])
        keys.append(key)
    return keys


def _played(
    experiment: Experiment, progress: bool, until: str | None = None, ends: float | None = None
) -> tuple[State, list[str]]:
    """The state at the end (or after the training ``until``), and the keys of the trainings."""
    check_amounts(experiment.timeline)
    state = start(experiment)
    state.ends = ends
    steps = list(flatten(experiment.timeline, state.model, lambda: state.traced()[0]))
    rehearse(state, steps)
    log = state.log = None if experiment.watch is None else Log(experiment.watch, state)
    keys = _keys(experiment, steps)
    if until is not None:
        steps = steps[: keys.index(until) + 1]
    numbers = list(itertools.accumulate(int(_trains(step)) for step in steps))  # of trainings, from 1
    if log is not None:  # before hours of training
        log.check((number, key) for step, number, key in zip(steps, numbers, keys, strict=False) if _trains(step))
    done = 0
    for n in range(len(steps), 0, -1):
        if _trains(steps[n - 1]) and _loaded(state, steps[n - 1], numbers[n - 1], keys[n - 1]):
            done = n
            break
    for position, step in enumerate(steps):
        key, number = keys[position], numbers[position]
        if position < done:
            if log is not None and _trains(step):
                log.pass_by(number, key)
            continue
        seed = int(content_hash([experiment.seed, position]), 16) % 2**31
        if not _trains(step):
            play(state, step, seed, progress=progress)
            continue
        with exclusive(checkpoint(key), ends):
            for place in (checkpoint(key), checkpoint(key, "-halfway")):
                if not place.exists():
                    replaceable(place)  # a link that leads nowhere: found now, and not after the epochs
            if _loaded(state, step, number, key):  # another process has trained it in the meantime
                if log is not None:
                    log.pass_by(number, key)
                continue
            halfway = checkpoint(key, "-halfway")
            if log is not None:
                log.training = (number, key)
                if halfway.exists() and not log.holds(number, key, epochs_in(halfway)):
                    halfway.unlink()
            play(state, step, seed, halfway, progress)
            state.save(checkpoint(key))
            halfway.unlink(missing_ok=True)
            _keep_within_bound(checkpoint(key))
        if ends is not None and time.time() > ends and any(map(_trains, steps[position + 1 :])):
            raise OutOfTime(f"the time is over after epoch {state.epoch}, and the same call goes on from there.")
    if log is not None and until is None:
        log.finish(state.rows)
    return state, [key for key, step in zip(keys, steps, strict=False) if _trains(step)]


def _loaded(state: State, step: Step, number: int, key: str) -> bool:
    """Whether there is a checkpoint of a training (and its log, if that is wanted), which ``state`` has then taken over."""
    assert isinstance(step.stage, Train)
    if state.log is not None and not state.log.holds(number, key, step.stage.epochs):
        return False
    path = checkpoint(key)
    try:
        os.utime(path)  # used now: the bound drops what was not used for longest
        state.load(path)
    except (FileNotFoundError, NotADirectoryError):  # who wants to write there says what is wrong
        return False
    return True


def _keep_within_bound(newest: Path) -> None:
    """Drop the checkpoints that were not used for longest, until those left take at most ``$PRUNING_CHECKPOINTS_GB``."""
    left, held = bound_of_checkpoints(), []
    for path in newest.parent.glob("[!.]*.safetensors"):  # a hidden one is a lock, or being written
        try:
            held.append((path == newest, path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:  # dropped by another process
            continue
    for is_newest, used, size, path in sorted(held, reverse=True):
        left -= size
        if left < 0 and not is_newest and not _waits(path, used):
            path.unlink(missing_ok=True)


def _waits(path: Path, used: float) -> bool:
    """Whether a file is half of a training that somebody is at, or was a week ago and may go on with."""
    whole = path.with_name(path.name.replace("-halfway", ""))
    return whole != path and (time.time() - used < SECONDS_OF_A_WEEK or is_locked(whole))
