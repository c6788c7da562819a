"""One experiment at a time: its rows are read from its record, or it is played from its nearest checkpoint and recorded.

Every training and every record is made under a lock: of two processes that want the same, one computes and the other waits
and reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from pruning_core.checks import checked
from pruning_core.errors import BadInput, CorruptFile, shown
from pruning_core.experiments.experiment import Experiment, own_methods
from pruning_core.experiments.play import play
from pruning_core.experiments.stages import Each, Stage, Train, every_stage
from pruning_core.experiments.state import State, Step, flatten, start
from pruning_core.methods.base import Method
from pruning_core.records.files import SECONDS_OF_A_WEEK, cache_root, content_hash
from pruning_core.records.locks import exclusive, is_locked, sweep
from pruning_core.records.table import environment, read_rows, write_rows
from pruning_core.version import CHEAP, code_of


@checked
def run(
    experiment: Experiment, *, progress: bool = True, folder: Path | None = None, shared: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of an experiment, one a Measure: read from its record, or played and then recorded.

    Tags join the rows of the record; one that the record has already stays there, and this call's own is returned.
    A run that was killed goes on from its last checkpoint; one that begins like another goes on from where they part; one
    that another process is at is waited for. ``shared``: the trainings (their keys) that other experiments begin with too;
    when given, checkpoints of others between the first and the last training are dropped once the rows are recorded.
    """
    path = experiment.record(folder)
    tags = dict(experiment.tags)
    if not path.exists():
        with exclusive(path):
            if not path.exists():
                return _record(experiment, path, progress, shared)
    rows = recorded(path, experiment.key)
    if any(tag not in row for row in rows for tag in tags):
        with exclusive(path):
            write_rows(path, [tags | row for row in recorded(path, experiment.key)])
    return [row | tags for row in rows]


def _record(experiment: Experiment, path: Path, progress: bool, shared: Collection[str] | None) -> list[dict[str, Any]]:
    sweep(path.parent, checkpoint("").parent)
    named = ("model", "data", "width", "seed", "limit", "random_labels", "profile")
    about = {name: value for name in named if (value := getattr(experiment, name)) is not None}
    about = {"experiment": experiment.key, **about, "code": code_of(experiment.profile)}
    with _threads(experiment):
        origin = environment(experiment.device)  # of the start: the code may be edited while this runs
        state, trained = _played(experiment, progress)
        rows = [about | row | origin | dict(experiment.tags) for row in state.rows]
    write_rows(path, rows)
    if shared is not None:
        for key in set(trained[1:-1]) - set(shared):
            checkpoint(key).unlink(missing_ok=True)
    return rows


def recorded(path: Path, key: str) -> list[dict[str, Any]]:
    """The rows of a record that lies where those of ``key`` belong; CorruptFile if they are of something else."""
    rows = read_rows(path)
    if not rows or any(row.get("experiment") != key for row in rows):
        raise CorruptFile(
            f"{path} holds rows of something else than {key}: delete this file, and its own are made again."
        )
    return rows


@checked
def final_state(experiment: Experiment, *, progress: bool = False) -> State:
    """The state at the end of an experiment, played again from its nearest checkpoint: the network itself, its masks."""
    with _threads(experiment):
        return _played(experiment, progress)[0]


def train_until(experiment: Experiment, key: str) -> None:
    """Plays an experiment up to the training ``key`` (one of :func:`beginnings`), and leaves its checkpoint."""
    if not checkpoint(key).exists():
        with _threads(experiment):
            _played(experiment, False, key)


def beginnings(experiment: Experiment) -> list[str]:
    """The keys of the trainings that an experiment starts with, as far as they are known before its network is built: up to
    the first Each that asks the network for its parts. Experiments that share one play the same up to its end."""

    def known(stage: Stage) -> bool:
        return not any(isinstance(inner, Each) and isinstance(inner.parts, str) for inner in every_stage([stage]))

    steps = list(flatten(takewhile(known, experiment.timeline), None, list))
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
    key, keys = content_hash([experiment._content(), *dict.fromkeys(layers)]), []
    for step in steps:
        key = content_hash([key, step, own_methods([step.stage])])
        keys.append(key)
    return keys


def _played(experiment: Experiment, progress: bool, until: str | None = None) -> tuple[State, list[str]]:
    """The state at the end (or after the training ``until``), and the keys of the trainings."""
    state = start(experiment)
    steps = list(flatten(experiment.timeline, state.model, lambda: state.traced()[0]))
    keys = _keys(experiment, steps)
    if until is not None:
        steps = steps[: keys.index(until) + 1]
    done = next((n for n in range(len(steps), 0, -1) if _trains(steps[n - 1]) and _loaded(state, keys[n - 1])), 0)
    for position, step in enumerate(steps[done:], done):
        seed = int(content_hash([experiment.seed, position]), 16) % 2**31
        if not _trains(step):
            play(state, step, seed, progress=progress)
            continue
        key = keys[position]
        with exclusive(checkpoint(key)):
            if not _loaded(state, key):  # otherwise another process has trained it in the meantime
                halfway = checkpoint(key, "-halfway")
                play(state, step, seed, halfway, progress)
                state.save(checkpoint(key))
                halfway.unlink(missing_ok=True)
                _keep_within_bound(checkpoint(key))
    return state, [key for key, step in zip(keys, steps, strict=False) if _trains(step)]


def _loaded(state: State, key: str) -> bool:
    """Whether there is a checkpoint, which ``state`` has then taken over."""
    path = checkpoint(key)
    try:
        os.utime(path)  # used now: the bound drops what was not used for longest
        state.load(path)
    except FileNotFoundError:
        return False
    return True


def _keep_within_bound(newest: Path) -> None:
    """Drop the checkpoints that were not used for longest, until those left take at most ``$PRUNING_CHECKPOINTS_GB``."""
    text = os.environ.get("PRUNING_CHECKPOINTS_GB", "10")
    try:
        left = float(text) * 1e9
    except ValueError:
        left = -1.0
    if not left >= 0:
        raise BadInput(f"PRUNING_CHECKPOINTS_GB is a number of gigabytes of at least 0, not {shown(text)}.")
    held = []
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
