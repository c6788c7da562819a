"""What of an experiment is written down while it trains: a table of its epochs, TensorBoard, what observers see.

Watching changes no number and no key. Each training has a folder of its own, so that experiments that begin alike share
the log of their beginning as they share its checkpoint; each experiment has one for what it measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pruning_core.checks import A, Checked, Constraints, Maybe, Place, Several
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import NUMBER_OF_EPOCHS
from pruning_core.experiments.fields import Becomes
from pruning_core.experiments.log_files import (
    CURVES,
    EPOCHS,
    EVENTS,
    HOW,
    MEASURED,
    check_log,
    folder_name,
    read_curves,
    read_epochs,
    read_json,
    table,
)
from pruning_core.experiments.network_stages import some_batches
from pruning_core.experiments.observers import Elasticities, SignFlips, watched_weights
from pruning_core.records.files import write_atomically
from pruning_core.records.places import check_folder, located
from pruning_core.training.tensorboard import TensorBoard, summary_writer
from pruning_core.training.trainer import Observer, Trainer

if TYPE_CHECKING:
    from pruning_core.experiments.experiment import Experiment
    from pruning_core.experiments.state import State

WAYS = ("histograms", "pictures", "sign_flips", "elasticities", "tensorboard")
SAMPLES = 640  # of the split for scoring, on which elasticities are computed


def _folder(given: str | PathLike) -> str:
    return str(check_folder("watch", located("folder", given)))


@dataclass(frozen=True)
class Watch(Checked):
    """What is watched while an experiment trains, and the ``folder`` that it is written to: ``Experiment(watch=...)``.

    A folder a training holds epochs.csv (a row an epoch: losses, accuracies, also on the validation split, learning rate,
    what observers add) and files for TensorBoard, unless ``tensorboard`` is False: the columns, or with ``tags`` the
    numbers of an official code under its names (``papers.snipit.OfficialTags``, ``papers.sipp_pfp.SippTags``).
    ``histograms``: every so many epochs one of each layer's living weights, and those of the ``tags``. ``pictures``: every so
    many epochs those that the ``tags`` have, of OfficialTags the network, its weights, saliency, elasticities and confusions
    on the validation split. ``sign_flips``: the fraction of living weights whose sign changed in the epoch, and since the
    experiment began. ``elasticities``: every so many epochs those of the living weights, as quantiles in elasticities.json.
    ``observers``: functions (trainer, row) of your own, called after each epoch, which may add numbers to the row; where a run
    goes on they start anew. A folder an experiment holds measured.csv.

    A training that was not watched is trained again, with the same result; its checkpoint and its record stay. Raises
    BadInput where TensorBoard is asked for and missing.

    >>> watch = Watch("logs", sign_flips=True, tensorboard=False)
    >>> watch.sign_flips, watch.histograms
    (True, None)
    """

    constraints = Constraints(
        folder=Place(),
        tags=Maybe(A(Callable, "a class such as OfficialTags")),
        histograms=Maybe(NUMBER_OF_EPOCHS),
        pictures=Maybe(NUMBER_OF_EPOCHS),
        elasticities=Maybe(NUMBER_OF_EPOCHS),
        observers=Several(A(Callable, "a function (trainer, row)")),
    )

    folder: Becomes[str | PathLike, str] = Becomes(_folder)
    tags: Callable[..., Any] | None = None
    histograms: int | None = None
    sign_flips: bool = False
    elasticities: int | None = None
    observers: tuple[Observer, ...] = ()
    tensorboard: bool = True
    pictures: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.tensorboard:
            summary_writer()
        elif self.histograms or self.pictures or self.tags:
            raise BadInput("histograms, pictures and tags are for TensorBoard, which tensorboard=False leaves out.")
        if self.pictures and not hasattr(self.tags, "pictures"):
            raise BadInput("pictures are those of an official code: give tags that have some, such as OfficialTags.")

    def how(self) -> dict[str, Any]:
        """What decides the content of a log, as JSON."""
        own = [getattr(observer, "__qualname__", type(observer).__qualname__) for observer in self.observers]
        asked = {name: getattr(self, name) for name in WAYS}
        tags: Any = self.tags
        return asked | {"tags": getattr(tags, "__qualname__", None), "observers": own}

    def is_kept_in(self, place: Path) -> bool:
        """Whether the log in a folder holds all that is asked for."""
        kept = read_json(place / HOW)
        return isinstance(kept, dict) and all(
            not value or kept.get(name) == value for name, value in self.how().items()
        )

    def keep_in(self, place: Path) -> None:
        """Write down what the log in a folder holds."""
        write_atomically(place / HOW, json.dumps(self.how()))


def is_watched(experiment: Experiment) -> bool:
    """Whether the log of an experiment that is to be watched is there, to its end; True where none is asked for."""
    return experiment.watch is None or experiment.watch.is_kept_in(measured_file(experiment).parent)


def measured_file(experiment: Experiment) -> Path:
    """Where a watched experiment writes what it measured, when it has ended."""
    assert experiment.watch is not None
    name = f"{named(experiment)}-{experiment.tags.get('method') or experiment.tags.get('recipe') or 'run'}"
    return Path(experiment.watch.folder) / folder_name(name, experiment.key) / MEASURED


def named(experiment: Experiment) -> str:
    """The beginning of the names of an experiment's folders."""
    return f"{experiment.model}-{experiment.data}-s{experiment.seed}".replace("/", "_")


class Log:
    """The log of one run of an experiment."""

    def __init__(self, watch: Watch, state: State):
        self.watch, self.experiment = watch, state.experiment
        self.folder = Path(watch.folder)
        self.training = (0, "")  # number and key of the one to come
        self._tags: Any = watch.tags and watch.tags(state.model, state.example, len(state.data.train))
        self._before: list[dict[str, Any]] = []  # epochs of the trainings that came earlier
        self._rows: list[dict[str, Any]] = []
        self._board: TensorBoard | None = None
        self._flips: SignFlips | None = None
        self._elasticities: Elasticities | None = None

    def check(self, trainings: Iterable[tuple[int, str]]) -> None:
        """Raise BadInput where the log of one of the trainings, or of what is measured, cannot be written."""
        for place in (*(self.place(*training) for training in trainings), measured_file(self.experiment).parent):
            check_log(place)

    def place(self, number: int, key: str) -> Path:
        """The folder of the training ``key``, the experiment's number ``number``, from 1."""
        return self.folder / f"{named(self.experiment)}-training{number}-{key}"

    def holds(self, number: int, key: str, epochs: int) -> bool:
        """Whether the first ``epochs`` epochs of a training have been watched in this way."""
        place = self.place(number, key)
        return self.watch.is_kept_in(place) and len(read_epochs(place)) >= epochs

    def pass_by(self, number: int, key: str) -> None:
        """Take in a training that was watched before."""
        self._before += read_epochs(self.place(number, key))

    def begin(self, epochs: int, state: State) -> None:
        """Begin the training ``training``, or go on after ``epochs`` epochs of it, which the log holds."""
        self._place = self.place(*self.training)
        again = self.holds(*self.training, epochs) and epochs > 0
        if not again and self._place.is_dir():
            for old in (*self._place.glob(EVENTS), self._place / EPOCHS, self._place / CURVES):
                old.unlink(missing_ok=True)
        self._rows = read_epochs(self._place)[:epochs] if again else []
        self.watch.keep_in(self._place)
        if self.watch.tensorboard:
            self._board = TensorBoard(self._place, purge_step=state.epoch + 1 if again else None)
            if hasattr(self._tags, "texts") and not again:
                for tag, text in self._tags.texts(state.model, settings_text(self.experiment)).items():
                    self._board.add_text(tag, text, state.epoch)
        if self.watch.elasticities:
            split = state.data.score if len(state.data.score) else state.data.train
            order = torch.Generator().manual_seed(self.experiment.seed)
            batches = some_batches(split, min(SAMPLES, len(split)), 128, order)
            self._elasticities = Elasticities(batches, self.watch.elasticities)
            self._elasticities.curves = read_curves(self._place, state.epoch) if again else []
        if hasattr(self._tags, "go_on"):
            self._tags.go_on([*self._before, *self._rows])

    def before_epoch(self, state: State) -> None:
        if self.watch.sign_flips:
            self._flips = SignFlips(state.model, state.snapshots["init"])

    def after_epoch(self, state: State, trainer: Trainer) -> None:
        """Write down an epoch that has just ended; ``state.epoch`` counts it."""
        row = {**trainer.history[-1], "epoch": state.epoch}
        plain = set(row)
        watching = (self._flips, self._elasticities, *self.watch.observers)
        for observer in watching:
            if observer is not None:
                observer(trainer, row)
        official = self._tags(trainer) if self._tags is not None else {}
        self._rows.append(row | official)
        if self._board is not None:
            added = {name: value for name, value in row.items() if not official or name not in plain}
            self._board.add_numbers(added | official, state.epoch)
            self._draw_histograms(state.epoch, trainer)
            if self.watch.pictures and state.epoch % self.watch.pictures == 0:
                self._draw_pictures(state, trainer)
        write_atomically(self._place / EPOCHS, table(self._rows))
        if self._elasticities is not None and self._elasticities.curves:
            write_atomically(self._place / CURVES, json.dumps(self._elasticities.curves))

    def _draw_histograms(self, epoch: int, trainer: Trainer) -> None:
        assert self._board is not None
        if self.watch.histograms and epoch % self.watch.histograms == 0:
            for name, weight in watched_weights(trainer.model).items():
                alive = trainer.masks.get(name)
                living = weight if alive is None else weight[alive.to(weight.device)]
                self._board.add_histogram(f"weight/{name}", living, epoch)
            if hasattr(self._tags, "histograms"):
                for tag, values in self._tags.histograms(trainer.model).items():
                    self._board.add_histogram(tag, values, epoch)
        curves = self._elasticities.curves if self._elasticities is not None else []
        if curves and curves[-1]["epoch"] == epoch:
            values = torch.tensor(curves[-1]["quantiles"])
            self._board.add_histogram("track/weight_saliency", values[values > 0].log10(), epoch)

    def _draw_pictures(self, state: State, trainer: Trainer) -> None:
        assert self._board is not None
        split = state.data.validation if len(state.data.validation) else state.data.train
        order = torch.Generator().manual_seed(self.experiment.seed)
        batches = some_batches(split, min(SAMPLES, len(split)), 128, order)
        drawn = self._tags.pictures(trainer.model, batches, state.data.classes, trainer.loss)
        for tag, picture in drawn.items():
            self._board.add_picture(tag, picture, state.epoch)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        """A training ends, whether it has come to its end or not."""
        try:
            if self._board is not None:
                self._board.close()
        except BadInput:
            if error[0] is None:  # else what ended the training is what is to be heard of
                raise
        self._before, self._rows, self._board = [*self._before, *self._rows], [], None

    def finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write down what the experiment has measured: the end of its log."""
        path = measured_file(self.experiment)
        rows = list(rows)
        if self.watch.tensorboard:
            board = TensorBoard(path.parent)
            for row in rows:
                if "accuracy" not in row:  # of an attack
                    continue
                if hasattr(self._tags, "measured"):
                    for tag, (value, step) in self._tags.measured(row).items():
                        board.add_numbers({tag: value}, step)
                    if hasattr(self._tags, "budgets"):
                        for tag, (values, step) in self._tags.budgets(row).items():
                            board.add_histogram(tag, values, step)
                    continue
                columns = ("accuracy", "loss", "sparsity", "channels_removed", "macs_removed")
                board.add_numbers({f"measured/{name}": row[name] for name in columns}, row["epoch"])
            board.close()
        write_atomically(path, table(rows))
        self.watch.keep_in(path.parent)


def settings_text(experiment: Experiment) -> str:
    """What an experiment is, a line a field."""
    shown = [field.name for field in fields(experiment) if field.name not in ("watch", "timeline")]
    lines = [f"{name}: {getattr(experiment, name)}" for name in shown]
    return "\n".join([*lines, "timeline:", *(f"- {stage}" for stage in experiment.timeline)])
