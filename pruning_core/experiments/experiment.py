"""An experiment is a value. Its content hash names its record: run it again, and the record is read. So it is with studies,
the records of what is computed without a training: simulations, costs, times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch

from pruning_core.checks import Constraints, OneOf, Whole, check_fields
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, CorruptFile, known_name
from pruning_core.experiments.fields import Becomes
from pruning_core.experiments.play import play
from pruning_core.experiments.stages import Importances, Load, Measure, Prune, Stage, Train, every_stage
from pruning_core.experiments.state import State, flatten, start
from pruning_core.models.build import MODELS
from pruning_core.models.published import check_published
from pruning_core.progress import progress_bar
from pruning_core.records.files import cache_root, content_hash, remove_leftovers
from pruning_core.records.table import COLUMNS, environment, read_rows, write_rows
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.version import CHEAP, PROFILES, code_of

FURTHER_COLUMNS = {
    "code", "precision", "remark", "fitted_accuracy", "generalisation_gap", "dead_layers", "dead_units", "by_layer",
    "importance", "receded_share", "mid_share", "largest_importance", "histogram", "attack", "epsilon", "attack_success",
    "agreement", "distance", "n", "study",
}  # fmt: skip
"""Columns of rows beyond the standard ones (records.COLUMNS) and the fields of an experiment."""


def _measured_at_the_end(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    timeline = tuple(stages)
    return timeline if timeline and isinstance(timeline[-1], Measure) else (*timeline, Measure())


@dataclass(frozen=True)
class Experiment:
    """A network, its data, and what happens to it. Everything but ``device`` and ``tags`` decides the hash (of ``profile``
    only whether it is a cheap one: the records of smoke and quick are void as soon as the package's code changes).

    ``timeline`` is a list of stages; a ``Measure("final")`` is added where it does not end with one. ``optimizer``,
    ``learning_rate`` and ``batch_size`` are what Train stages fall back to. ``tags`` are columns of the rows: new ones, or
    ``method`` under a name of your own.

    >>> Experiment("lenet300", "digits", [Train(3)]).key == Experiment("lenet300", "digits", [Train(3)]).key
    True
    """

    constraints = Constraints(seed=Whole(at_least=0), profile=OneOf(*PROFILES))

    model: str
    data: str
    timeline: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(_measured_at_the_end)
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
        if clash := ({f.name for f in fields(self)} | set(COLUMNS) | FURTHER_COLUMNS) & set(self.tags) - {"method"}:
            raise BadInput(
                f"the tag {sorted(clash)[0]!r} is a column of the rows already, and a tag must not replace it."
            )

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
        rows = _recorded(path, experiment.key)
        if any(tag not in row for row in rows for tag in tags):
            write_rows(path, [tags | row for row in rows])
        return [row | tags for row in rows]
    for place in (path.parent, _checkpoint("").parent):
        remove_leftovers(place)
    named = ("model", "data", "width", "seed", "limit", "random_labels", "profile")
    about = {name: value for name in named if (value := getattr(experiment, name)) is not None}
    about = {"experiment": experiment.key, **about, "code": code_of(experiment.profile)}
    with _threads(experiment):
        origin = environment(experiment.device)  # of the start: the code may be edited while this runs
        rows = [about | row | origin | tags for row in _played(experiment, progress).rows]
    write_rows(path, rows)
    return rows


def _recorded(path: Path, key: str) -> list[dict[str, Any]]:
    """The rows of a record that lies where those of ``key`` belong; CorruptFile if they are of something else."""
    rows = read_rows(path)
    if not rows or any(row.get("experiment") != key for row in rows):
        raise CorruptFile(
            f"{path} holds rows of something else than {key}: delete this file, and its own are made again."
        )
    return rows


def run_all(experiments: Iterable[Experiment], *, progress: bool = True, folder: Path | None = None):
    """All rows of many experiments as one DataFrame, with a progress bar over the experiments."""
    import pandas as pd

    listed = progress_bar(progress, iterable=list(experiments), unit="run", desc="experiments")
    return pd.DataFrame([row for experiment in listed for row in run(experiment, progress=False, folder=folder)])


def final_state(experiment: Experiment, *, progress: bool = False) -> State:
    """The state at the end of an experiment, played again from its nearest checkpoint: the network itself, its masks."""
    with _threads(experiment):
        return _played(experiment, progress)


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


def _played(experiment: Experiment, progress: bool) -> State:
    state = start(experiment)
    steps = list(flatten(experiment.timeline, state.model, lambda: state.traced()[0]))
    keys = [content_hash(experiment._content())]  # after every step, of everything that happened up to it
    for step in steps:
        keys.append(content_hash([keys[-1], step, _own_methods([step.stage])]))
    kept = [n for n, step in enumerate(steps, 1) if isinstance(step.stage, Train) and _checkpoint(keys[n]).exists()]
    done = max(kept, default=0)
    if done:
        state.load(_checkpoint(keys[done]))
    for position, step in enumerate(steps[done:], done):
        key = keys[position + 1]
        halfway = _checkpoint(key, "-halfway")
        play(state, step, int(content_hash([experiment.seed, position]), 16) % 2**31, halfway, progress)
        if isinstance(step.stage, Train) and step.stage.epochs:
            state.save(_checkpoint(key))
            halfway.unlink(missing_ok=True)
    return state


def _checkpoint(key: str, suffix: str = "") -> Path:
    return cache_root() / "checkpoints" / f"{key}{suffix}.safetensors"


def study(settings: Mapping[str, Any], compute: Callable[[], Iterable[Mapping[str, Any]]], *, profile: str = "quick"):
    """The rows that ``compute()`` gives, as a DataFrame: read from their record when there is one, else recorded.

    ``settings`` name the study and hold all that decides its rows: equal settings, equal record. Each row is joined by the
    profile, the versions and the machine, and by ``seconds`` of the whole study unless it has its own. As with experiments,
    records of smoke and quick are void when the package's code changes.

    Raises BadInput when ``compute`` gives no row.
    """
    import pandas as pd

    known_name("profile", profile, PROFILES)
    code = code_of(profile)
    key = content_hash({"study": dict(settings), "code": code})
    path = cache_root() / "records" / f"{key}.json"
    if path.exists():
        return pd.DataFrame(_recorded(path, key))
    origin, started = environment(), time.perf_counter()
    rows = [dict(row) for row in compute()]
    if not rows:
        raise BadInput(f"the study {dict(settings)} has no rows.")
    about = {"experiment": key, "profile": profile, "code": code, "seconds": time.perf_counter() - started}
    about |= {"study": str(settings.get("name", "studies"))}
    write_rows(path, [about | row | origin for row in rows])
    return pd.DataFrame(read_rows(path))
