"""Losses of a statistic, checked as they are used: cross-entropy where labels are classes, any other where it is given."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_core.errors import BadInput, BadType
from pruning_core.models.calls import logits, raised, shown
from pruning_core.training.losses import loss_value

REMEDY = (
    "the loss is cross-entropy unless another is given, as loss=torch.nn.MSELoss() or loss=torch.nn.BCEWithLogitsLoss()"
)


class Given:
    """A loss of the user's: what it raises becomes one sentence, and what it returns must be one number."""

    def __init__(self, loss: Callable[[Any, Any], Tensor]):
        self.loss = loss

    def __call__(self, outputs: Any, labels: Any) -> Tensor:
        try:
            value = loss_value(self.loss, outputs, labels)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"loss= does not take {shown(outputs)} and {shown(labels)} as labels: {reason}") from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise BadInput(f"loss= must return one number, the mean over the samples, not {shown(value)}.")
        return value.reshape(())


class OfClasses(Given):
    """``loss`` of logits (N, classes, ...) and labels (N, ...): whole numbers below the number of classes, or the one that
    the loss ignores; or probabilities of the logits' shape. Labels that are anything else get a BadInput naming ``loss=``.

    >>> OfClasses()(torch.zeros(2, 4), torch.tensor([0, 3], dtype=torch.int32))
    tensor(1.3863)
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy):
        super().__init__(loss)
        self.ignored = getattr(loss, "ignore_index", -100)

    def __call__(self, outputs: Any, labels: Any) -> Tensor:
        outputs = raised(logits(outputs))
        if problem := _problem(outputs, labels, self.ignored):
            raise BadInput(f"{problem}; {REMEDY}.")
        return super().__call__(outputs, labels.to(outputs.dtype) if labels.is_floating_point() else labels.long())


def statistic(loss: Callable[[Any, Any], Tensor] | None) -> Callable[[Any, Any], Tensor]:
    """The loss as methods call it; None is cross-entropy. Raises BadType for what cannot be called."""
    if loss is None:
        return OfClasses()
    if not callable(loss):
        raise BadType(f"loss must be a function of (outputs, labels), not {shown(loss)}.")
    return OfClasses(loss) if isinstance(loss, nn.CrossEntropyLoss) or loss is functional.cross_entropy else Given(loss)


def _problem(outputs: Any, labels: Any, ignored: int) -> str | None:
    """Why these outputs and labels are no classification; None if they are."""
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor):
        return f"classes need a tensor of logits and one of labels, not {shown(outputs)} and {shown(labels)}"
    if outputs.dim() < 2 or outputs.shape[1] == 1:
        return f"outputs of shape {tuple(outputs.shape)} have no two columns to choose a class from"
    if labels.is_floating_point():
        if labels.shape != outputs.shape:
            return f"labels of {labels.dtype} are no classes"
        if bool((labels < 0).any()) or not torch.allclose(labels.sum(1), labels.new_ones(()), atol=1e-2):
            return "labels of the outputs' shape are no probabilities of classes, which add up to 1"
        return None
    expected = (*outputs.shape[:1], *outputs.shape[2:])
    if labels.shape != expected:
        return f"labels of shape {tuple(labels.shape)} are no classes for outputs of shape {tuple(outputs.shape)}"
    classes = labels[labels != ignored]
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= outputs.shape[1]):
        found = f"labels from {int(classes.min())} to {int(classes.max())}"
        return f"{found} are no classes 0 to {outputs.shape[1] - 1} of {outputs.shape[1]} outputs"
    return None
