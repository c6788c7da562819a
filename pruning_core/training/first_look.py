"""One look at the first batch, before any work: whether network, loss and labels go together; otherwise one sentence."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.data.feeds import Feed
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType
from pruning_core.models.calls import like_model, samples, shown, tried
from pruning_core.models.modes import observing
from pruning_core.models.ready import check_values
from pruning_core.training.losses import (
    REMEDY,
    CrossEntropy,
    Loss,
    has_classes,
    ignored_by,
    no_classes,
    read_by,
    strict_loss_value,
)


class Look(NamedTuple):
    """``classes``: the labels are classes, so there is an accuracy; ``samples``: how many the first batch holds."""

    classes: bool
    samples: int


def as_split(data: Any, model: nn.Module) -> Any:
    """A split as it is, and whatever else holds batches as a ``Feed``. Raises BadType for what holds none."""
    return data if hasattr(data, "batches") else Feed(data, model)


def look(model: nn.Module, loss: Loss, *splits: Split | Feed) -> Look:
    """Raise BadInput or BadType, before any work, unless ``model`` takes the inputs and ``loss`` its outputs and the labels.

    The inputs are tried on those of the first split, of which the others have the shape.
    """
    check_values(model)
    known = [split for split in splits if isinstance(getattr(split, "labels", None), Tensor)]
    for split in known:
        if len(split.labels) == 0:  # type: ignore[union-attr]
            raise BadInput("the split is empty: there is no sample to work with.")
    with observing(model):  # a loader may draw random numbers
        found = [_looked_at(model, loss, split) for split in splits[: 1 if len(known) == len(splits) else None]]
    outputs = found[0][1]
    for split in known:
        _check_loss(loss, outputs, split.labels, whole=True)  # type: ignore[union-attr]
    return found[0][0]


def _looked_at(model: nn.Module, loss: Loss, split: Split | Feed) -> tuple[Look, Any]:
    if isinstance(split, Feed):
        inputs, labels = split.first()
        if labels is None:
            raise BadInput("the batches hold inputs without labels; they must be pairs (inputs, labels).")
    else:
        inputs, labels = next(iter(split.batches(min(2, len(split)))))
    size = samples(inputs)
    if isinstance(labels, Tensor) and (labels.dim() == 0 or len(labels) != size):
        single = "; these are single samples, which a DataLoader puts into batches" if labels.dim() == 0 else ""
        raise BadInput(
            f"a batch holds {size} inputs, but labels of shape {tuple(labels.shape)}: one a sample is needed{single}."
        )
    inputs, labels = like_model(model, inputs, labels)
    outputs = read_by(loss, tried(model, inputs))
    _check_loss(loss, outputs, labels)
    return Look(has_classes(outputs, labels), size), outputs


def _check_loss(loss: Loss, outputs: Any, labels: Any, whole: bool = False) -> None:
    """``whole``: the labels are those of a split, of which the outputs belong to the first ones."""
    if isinstance(loss, CrossEntropy | nn.CrossEntropyLoss | nn.NLLLoss) or loss is nn.functional.cross_entropy:
        check_labels(outputs, labels, ignored_by(loss))
    if not whole:
        strict_loss_value(loss, outputs, labels)


def check_labels(outputs: Any, labels: Any, ignored: int | None = None) -> None:
    """Raise BadType for labels of another type than torch's cross-entropy takes, BadInput for what is no classification."""
    if isinstance(labels, Tensor) and labels.dtype != torch.long and not labels.is_floating_point():
        raise BadType(f"cross-entropy takes classes as labels of int64, not {shown(labels)}: give labels.long().")
    if problem := no_classes(outputs, labels, ignored):
        raise BadInput(f"{problem}; {REMEDY}.")
