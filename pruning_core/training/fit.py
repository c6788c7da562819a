"""``fit``: the training loop that everybody uses; a killed run goes on where it was and ends with the same numbers.

Losses are means per sample, accuracies percent, times seconds.
"""

import os
import time
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pruning_core.checks import A, Whole, check, checked
from pruning_core.errors import BadInput, CorruptFile, OutOfTime, PruningError
from pruning_core.progress import progress_bar
from pruning_core.records.checkpoints import load_tensors, refuse_foreign, save_tensors
from pruning_core.training.first_look import as_split
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer
from pruning_core.training.trainer_state import FORMAT


class History(list):
    """The rows of a training, one dict an epoch, with the trained ``model`` and its ``best_epoch`` (from 1; None without)."""

    def __init__(self, trainer: Trainer, best_epoch: int | None):
        super().__init__(trainer.history)
        self.model = trainer.model
        self.best_epoch = best_epoch


@checked(optimizer=None)
def fit(
    model: nn.Module,
    data: Any,
    *,
    epochs: int,
    optimizer: Optimizer | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    keep: Literal["last", "best_validation"] = "last",
    validation: Any = None,
    progress: bool = True,
    max_minutes: float | None = None,
    **options: Any,
) -> History:
    """Train ``model``, in place, for ``epochs`` epochs; returns one row an epoch, and the network as ``.model``.

    ``data`` is a data set, of which the train and the validation split are used (never the test split), or a split to train
    on, with ``validation`` beside it; each may be a DataLoader or another iterable of batches
    (:class:`~pruning_core.data.Feed`). ``keep="best_validation"`` ends with the weights of the best validation epoch.
    ``options`` are those of :class:`Trainer`. With ``checkpoint`` (a path) the state is written there every
    ``checkpoint_every`` epochs: called again after a crash, the run goes on from it and ends with the same numbers bit for
    bit (on the CPU); called again after its end, it is read back. A run with other settings, data or initial weights than
    the checkpoint's is refused. ``max_minutes`` needs a checkpoint: the first epoch that ends later is the last, and OutOfTime
    is raised; the same call goes on. Raises what Trainer raises, CorruptFile for a damaged checkpoint and BadInput where none
    can be written, both before training.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> history = fit(network, digits, epochs=2, progress=False)
    >>> len(history), history[0]["train_loss"] > history[1]["train_loss"]
    (2, True)
    """
    checkpoint_every = check("checkpoint_every", checkpoint_every, Whole(at_least=1))
    if max_minutes is not None and checkpoint is None:
        raise BadInput("max_minutes needs checkpoint=, a path from which the training goes on later.")
    started = time.monotonic()
    trainer = Trainer(model, optimizer, epochs=epochs, keep=keep, **options)
    train, validation = _splits(data, validation)
    train, validation = as_split(train, model), None if validation is None else as_split(validation, model)
    if keep == "best_validation" and validation is None:
        raise BadInput("keep='best_validation' needs a validation split.")
    trainer.check(train)
    run = trainer.description(train) if checkpoint is not None else {}
    if checkpoint is not None:
        _resume_or_start(trainer, Path(checkpoint), run)
    with progress_bar(progress, total=epochs, initial=trainer.epoch, unit="epoch", desc="training") as bar:
        while trainer.epoch < epochs:
            trainer.train_epoch(train, validation)
            over = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            if checkpoint is not None and (trainer.epoch % checkpoint_every == 0 or trainer.epoch == epochs or over):
                _save(trainer, checkpoint, run)
            shown = {key: trainer.history[-1].get(key) for key in ("train_loss", "validation_accuracy")}
            bar.set_postfix({key: f"{value:.4g}" for key, value in shown.items() if value is not None}, refresh=False)
            bar.update()
            if over and trainer.epoch < epochs:
                raise OutOfTime(f"the time is over after epoch {trainer.epoch}, and the same call goes on from there.")
    return History(trainer, trainer.restore_best() if keep == "best_validation" else None)


def _splits(data: Any, validation: Any) -> tuple[Any, Any]:
    if not hasattr(data, "train"):
        return data, validation
    if validation is None and len(data.validation):
        validation = data.validation
    return data.train, validation


def _resume_or_start(trainer: Trainer, path: Path, run: dict[str, Any]) -> None:
    if not os.path.exists(path):
        _save(trainer, path, run)  # a place that cannot be written is found now, not after the first epoch
        return
    try:
        tensors, info = load_tensors(path)
    except BadInput as error:
        raise CorruptFile(f"{error} Delete it to train from the start.") from error
    if info.get("kind") != FORMAT:
        raise BadInput(f"{path} is not a checkpoint of a training.")
    try:
        described = check("the run of a saved training", info.get("run", {}), A(dict, "a mapping"))
    except PruningError as error:
        raise _damaged(path, error) from error
    refuse_foreign(path, described, run)
    try:
        trainer.load_state_dict((tensors, info))
    except PruningError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: PruningError) -> CorruptFile:
    return CorruptFile(f"{path} is a damaged checkpoint: {str(error).rstrip('.')}. Delete it to train from the start.")


def _save(trainer: Trainer, path: str | Path, run: dict[str, Any]) -> None:
    tensors, info = trainer.state_dict()
    save_tensors(path, tensors, info | {"run": run})
