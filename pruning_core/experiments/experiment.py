"""An experiment is a value. Its content hash names its record: run it again, and the record is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch

from pruning_core.checks import Constraints, OneOf, Whole, check_fields
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.fields import Becomes
from pruning_core.experiments.play import play
from pruning_core.experiments.stages import Importances, Load, Measure, Prune, Stage, Train, every_stage
from pruning_core.experiments.state import State, start
from pruning_core.experiments.steps import Step, flatten
from pruning_core.models.build import MODELS
from pruning_core.models.published import check_published
from pruning_core.progress import progress_bar
from pruning_core.records.files import cache_root, remove_leftovers
from pruning_core.records.files import content_hash
from pruning_core.records.table import environment
from pruning_core.records.table import read_rows, write_rows
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.version import CHEAP, PROFILES, code_of


@dataclass(frozen=True)
class Experiment:
    """A network, its data, and what happens to it. Everything but ``device`` and ``tags`` decides the hash (of ``profile``
    only whether it is a cheap one: the records of smoke and quick are void as soon as the package's code changes).

    ``timeline`` is a list of stages; a ``Measure("final")`` is added where it does not end with one. ``optimizer``,
    ``learning_rate`` and ``batch_size`` are what Train stages fall back to. ``tags`` are columns of the rows.

    >>> Experiment("lenet300", "digits", [Train(3)]).key == Experiment("lenet300", "digits", [Train(3)]).key
    True
    """

    constraints = Constraints(seed=Whole(at_least=0), profile=OneOf(*PROFILES))

    model: str
    data: str
    timeline: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(lambda given: _measured_at_the_end(given))
    seed: int = 0
    width: float = 1.0
    norm: str = "batch"
    optimizer: Optimizer = field(default_factory=Optimizer)
    learning_rate: LearningRate = field(default_factory=LearningRate)
    batch_size: int = 128
    normalise: str | None = None
    augment: str | None = None
    limit: int | None = None
    random_labels: int | None = None
    profile: str = "quick"
    device: str = "cpu"
    tags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not self.model.startswith("torchvision/"):
            known_name("model", self.model, MODELS)
        known_name("data set", self.data, DATASETS)
        check_fields(self)
        for stage in every_stage(self.timeline):
            if isinstance(stage, Load):
                check_published(self.model, stage.weights)
        clash = {f.name for f in fields(self)} & set(self.tags)
        if clash:
            raise BadInput(f"the tag {sorted(clash)[0]!r} is a column of every row already.")

    def _content(self) -> dict[str, Any]:
        left_out = ("profile", "device", "tags", "timeline")
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        # Cheap runs follow every edit of the code; a sweep of days must survive an edit, but not a new version.
        return settings | {"code": code_of(self.profile)}

    @property
    def key(self) -> str:
        """Content hash of the whole experiment: 16 hexadecimal characters."""
        return content_hash([self._content(), list(self.timeline), _own_methods(self.timeline)])

    def record(self, folder: Path | None = None) -> Path:
        """Where its rows are, or will be."""
        return (folder or cache_root() / "records") / f"{self.key}.json"


def _own_methods(stages: Iterable[Stage]) -> dict[str, str]:
    """Compiled code of the methods that are not this package's: edit one in a notebook, and its old records are void."""
    found: dict[str, str] = {}
    for stage in every_stage(stages):
        methods = [method for method, _ in stage.penalty or ()] if isinstance(stage, Train) else []
        methods += [stage.method] if isinstance(stage, Prune | Importances) else []
        for kind in map(type, methods):
            if not kind.__module__.startswith("pruning_core."):
                functions = [f.__code__ for f in vars(kind).values() if isinstance(f, FunctionType)]
                found[kind.__qualname__] = content_hash([_code_text(code) for code in functions])
    return found


def _code_text(code: CodeType) -> str:
    constants = [
        _code_text(c) if isinstance(c, CodeType) else repr(sorted(c, key=repr) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def run(experiment: Experiment, *, progress: bool = True, folder: Path | None = None) -> list[dict[str, Any]]:
    """The rows of an experiment, one a Measure: read from its record, or played and then recorded.

    Tags join the rows of the record; one that the record has already stays there, and this call's own is returned.
    A run that was killed goes on from its last checkpoint; one that begins like another goes on from where they part.
    """
    path = experiment.record(folder)
    tags = dict(experiment.tags)
    if path.exists():
        rows = read_rows(path)
        if any(tag not in row for row in rows for tag in tags):
            write_rows(path, [tags | row for row in rows])
        return [row | tags for row in rows]
    for place in (path.parent, _checkpoint("").parent):
        remove_leftovers(place)
    with _threads(experiment):
        state = _played(experiment, progress)
    about = {
        "experiment": experiment.key,
        "model": experiment.model,
        "data": experiment.data,
        "width": experiment.width,
        "seed": experiment.seed,
        **{name: value for name in ("limit", "random_labels") if (value := getattr(experiment, name)) is not None},
        "profile": experiment.profile,
        "code": experiment._content()["code"],
    }
    rows = [about | row | environment(experiment.device) | tags for row in state.rows]
    write_rows(path, rows)
    return rows


def run_all(experiments: Iterable[Experiment], *, progress: bool = True, folder: Path | None = None):
    """All rows of many experiments as one DataFrame, with a progress bar over the experiments."""
    import pandas as pd

    listed = list(experiments)
    rows = []
    for experiment in progress_bar(progress, iterable=listed, unit="run", desc="experiments"):
        rows += run(experiment, progress=False, folder=folder)
    return pd.DataFrame(rows)


def final_state(experiment: Experiment, *, progress: bool = False) -> State:
    """The state at the end of an experiment, played again from its nearest checkpoint: the network itself, its masks."""
    with _threads(experiment):
        return _played(experiment, progress)


def _played(experiment: Experiment, progress: bool) -> State:
    state = start(experiment)
    steps = list(flatten(experiment.timeline, state.model, lambda: state.traced()[0]))
    keys = list(_prefix_keys(experiment, steps))
    done = 0
    for position in range(len(steps), 0, -1):
        kept = _checkpoint(keys[position - 1])
        if isinstance(steps[position - 1].stage, Train) and kept.exists():
            state.load(kept)
            done = position
            break
    for position in range(done, len(steps)):
        step, key = steps[position], keys[position]
        halfway = _checkpoint(key, "-halfway")
        play(state, step, int(content_hash([experiment.seed, position]), 16) % 2**31, halfway, progress)
        if isinstance(step.stage, Train) and step.stage.epochs:
            state.save(_checkpoint(key))
            halfway.unlink(missing_ok=True)
    return state


def _measured_at_the_end(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    timeline = tuple(stages)
    return timeline if timeline and isinstance(timeline[-1], Measure) else (*timeline, Measure())


def _prefix_keys(experiment: Experiment, steps: list[Step]) -> Iterator[str]:
    """A hash for every step, of everything that happened up to it."""
    key = content_hash(experiment._content())
    for step in steps:
        key = content_hash([key, step, _own_methods([step.stage])])
        yield key


def _checkpoint(key: str, suffix: str = "") -> Path:
    return cache_root() / "checkpoints" / f"{key}{suffix}.safetensors"


@contextmanager
def _threads(experiment: Experiment):
    """One thread in smoke and quick: the same bits on every machine with the same versions, and two runs side by side."""
    before = torch.get_num_threads()
    if experiment.profile in CHEAP and experiment.device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
