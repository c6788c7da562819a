"""An experiment is a value. Its content hash names its record: run it again, and the record is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pruning_core.checks import (
    SEED,
    A,
    Constraints,
    Device,
    Maybe,
    OneOf,
    Real,
    Text,
    Whole,
    check,
    check_fields,
    checked,
)
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS
from pruning_core.errors import BadInput, known_name, shown
from pruning_core.experiments.fields import Becomes
from pruning_core.experiments.network_file import NetworkFile, network_file
from pruning_core.experiments.order import check_order
from pruning_core.experiments.own_code import loss_identity, own_kinds, own_parts
from pruning_core.experiments.stages import Load, Measure, Prune, Stage, Train, stages_of
from pruning_core.experiments.timelines import every_stage
from pruning_core.experiments.watching import Watch
from pruning_core.masks.schedules import SNIP_IT_ROUNDS
from pruning_core.models.build import NORMS, known_model
from pruning_core.models.published import check_published
from pruning_core.models.zoo.initialisers import STARTS
from pruning_core.records.files import cache_root
from pruning_core.records.hashes import HASHED_UNLESS_DEFAULT, content_hash, is_hashed
from pruning_core.records.rows import UNTAGGED
from pruning_core.records.table import COLUMNS, storable
from pruning_core.training.evaluation import PRECISIONS, computes_bfloat16
from pruning_core.training.losses import Loss, given_loss
from pruning_core.training.optimizers import LearningRate, Optimizer, Schedule
from pruning_core.version import PROFILES, code_of

FURTHER_COLUMNS = {
    "accuracy5", "code", "remark", "fitted_accuracy", "fitted_loss", "generalisation_gap", "dead_layers", "dead_units",
    "by_layer", "importance", "receded_share", "mid_share", "largest_importance", "histogram", "attack", "epsilon",
    "attack_success", "agreement", "distance", "n", "study", "criterion", "network_file", UNTAGGED,
}  # fmt: skip
"""Columns of rows beyond the standard ones (records.COLUMNS) and the fields of an experiment."""


def _measured_at_the_end(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    timeline = stages_of(stages)
    return timeline if timeline and isinstance(timeline[-1], Measure) else (*timeline, Measure())


@dataclass(frozen=True)
class Experiment:
    """A network, its data, and what happens to it. Everything but ``device``, ``tags`` and ``watch`` decides the hash (of
    ``profile`` only whether it is a cheap one: the records of smoke and quick are void as soon as the package's code changes).

    ``start`` as of build_model. ``timeline`` is a list of stages; a ``Measure("final")`` is added where it does not end with
    one. ``optimizer``, ``learning_rate`` and ``batch_size`` are what Train stages fall back to. ``precision`` and
    ``channels_last`` are the Trainer's, for every Train stage ("bfloat16" of one stage holds for that stage): "auto" becomes
    bfloat16 with channels_last where ``device`` computes in it, else float32, which suits convolutional networks. ``loss`` is
    a name of LOSSES ("cross_entropy", "mse", "hinge") or a function (outputs, labels) -> mean over the batch: what trainings
    minimise, methods differentiate and rows report. ``network`` is the path of a file of ``save_network`` or
    ``PruneResult.save`` in place of fresh weights: of ``model``, or of what pruning has left of it; what it lacks counts as
    removed. ``tags`` are columns of the rows: new ones, or ``method`` under a name of your own. ``watch`` says what is written
    down while it trains.

    >>> Experiment("lenet300", "digits", [Train(3)]).key == Experiment("lenet300", "digits", [Train(3)]).key
    True
    """

    constraints = Constraints(
        model=Text(),
        data=Text(),
        seed=SEED,
        width=Real(above=0),
        norm=OneOf(*NORMS),
        start=Maybe(OneOf(*STARTS, kind="start")),
        optimizer=A(Optimizer),
        learning_rate=A(Schedule, "a schedule such as LearningRate('cosine')"),
        batch_size=Whole(at_least=1),
        normalise=Maybe(Text()),
        augment=Maybe(Text()),
        limit=Maybe(Whole(at_least=1)),
        random_labels=Maybe(SEED),
        profile=OneOf(*PROFILES),
        precision=OneOf(*PRECISIONS, "auto"),
        device=Device(),
        tags=A(Mapping),
        watch=Maybe(A(Watch)),
    )

    model: str
    data: str
    timeline: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(_measured_at_the_end)
    seed: int = 0
    width: float = 1.0
    norm: str = "batch"
    start: str | None = field(default=None, metadata=HASHED_UNLESS_DEFAULT)
    optimizer: Optimizer = field(default_factory=Optimizer)
    learning_rate: Schedule = field(default_factory=LearningRate)
    batch_size: int = 128
    normalise: str | None = None
    augment: str | None = None
    limit: int | None = None
    random_labels: int | None = None
    profile: str = "quick"
    loss: Becomes[str | Loss | None, str | Loss | None] = Becomes(given_loss, default=None)
    network: Becomes[str | PathLike | NetworkFile | None, NetworkFile | None] = Becomes(network_file, default=None)
    precision: Literal["float32", "bfloat16", "auto"] = field(default="float32", metadata=HASHED_UNLESS_DEFAULT)
    channels_last: bool = field(default=False, metadata=HASHED_UNLESS_DEFAULT)
    device: str = "cpu"
    tags: Mapping[str, Any] = field(default_factory=dict)
    watch: Watch | None = field(default=None, compare=False)

    def __post_init__(self):
        check_fields(self)
        known_model(self.model, self.width, self.norm)
        if self.model.startswith("torchvision/") and self.start is not None:
            raise BadInput(f"{self.model} starts as torchvision starts it: start={self.start!r} is for the book's own.")
        known_name("data set", self.data, DATASETS)
        for kind, name, known in (
            ("normalisation", self.normalise, NORMALISATIONS),
            ("augmentation", self.augment, AUGMENTATIONS),
        ):
            if name is not None:
                known_name(kind, name, known)
        tags = {check("each tag", tag, Text()): storable(value, tag) for tag, value in self.tags.items()}
        object.__setattr__(self, "tags", tags)  # as rows store them; whoever gave them may change theirs
        for tag in tags:
            if not (tag.isascii() and tag.isidentifier()):
                raise BadInput(f"a tag is the name of a column: letters, digits and _, not {shown(tag)}.")
        if self.precision == "auto":  # before any hash, which names what is really done
            fast = computes_bfloat16(self.device)
            object.__setattr__(self, "precision", "bfloat16" if fast else "float32")
            object.__setattr__(self, "channels_last", self.channels_last or fast)
        for stage in self.timeline:  # those inside of a Repeat or an Every follow its rounds
            if isinstance(stage, Prune) and stage.rounds == 1 and stage.schedule in ("snip_it", "tick_tock"):
                raise BadInput(
                    f"schedule={stage.schedule!r} with one round is a single cut; give rounds= (snip_it has "
                    f"{SNIP_IT_ROUNDS}), or put the Prune into an Every or a Repeat."
                )
        for stage in every_stage(self.timeline):
            if isinstance(stage, Load):
                check_published(self.model, stage.weights)
                if self.network is not None:
                    raise BadInput("a network begins with the weights of a file or with published ones, not with both.")
            if isinstance(stage, Train) and stage.label_smoothing and self.loss is not None:
                raise BadInput("label_smoothing is a part of cross-entropy; leave it out where a loss is given.")
        check_order(self.timeline)
        columns = {f.name for f in fields(self)} | set(COLUMNS) | FURTHER_COLUMNS
        if clash := sorted(tag for tag in self.tags if tag != "method" and tag.lower() in columns):
            raise BadInput(f"the tag {clash[0]!r} is a column of the rows already, and a tag must not replace it.")

    def _content(self) -> dict[str, Any]:
        left_out = ("profile", "device", "tags", "timeline", "loss", "network")
        settings = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out and is_hashed(f, self)
        }
        # Cheap runs follow every edit of the code; a sweep of days must survive an edit, but not a new version.
        own = own_parts(self.model, self.data) | own_kinds((self.optimizer, self.learning_rate))
        later: dict[str, Any] = {"own": own, "network": self.network}
        later["loss"] = self.loss and loss_identity(self.loss)
        return settings | {"code": code_of(self.profile)} | {name: value for name, value in later.items() if value}

    @property
    def key(self) -> str:
        """Content hash of the whole experiment: 16 hexadecimal characters."""
        return content_hash([self._content(), list(self.timeline), own_kinds(self.timeline)])

    @checked
    def record(self, folder: Path | None = None) -> Path:
        """Where its rows are, or will be."""
        return Path(folder or cache_root() / "records") / f"{self.key}.json"
