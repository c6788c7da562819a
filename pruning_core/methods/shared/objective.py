"""Losses of a statistic, checked as they are used: cross-entropy where labels are classes, any other where it is given."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from pruning_core.errors import BadInput, BadType
from pruning_core.models.calls import logits, raised, shown
from pruning_core.training.losses import REMEDY, ignored_by, no_classes, strict_loss_value


class Given:
    """A loss of the user's: what it raises becomes one sentence, what it returns must be one number, and depend on outputs."""

    def __init__(self, loss: Callable[[Any, Any], Tensor]):
        self.loss = loss

    def __call__(self, outputs: Any, labels: Any) -> Tensor:
        return strict_loss_value(self.loss, outputs, labels).reshape(())


class OfClasses(Given):
    """``loss`` of logits (N, classes, ...) and labels (N, ...): whole numbers below the number of classes, or the one that
    the loss ignores; or probabilities of the logits' shape. Labels that are anything else get a BadInput naming ``loss=``.

    >>> import torch
    >>> OfClasses()(torch.zeros(2, 4), torch.tensor([0, 3], dtype=torch.int32))
    tensor(1.3863)
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy):
        super().__init__(loss)
        self.ignored = ignored_by(loss)

    def __call__(self, outputs: Any, labels: Any) -> Tensor:
        outputs = raised(logits(outputs))
        if problem := no_classes(outputs, labels, self.ignored):
            raise BadInput(f"{problem}; {REMEDY}.")
        return super().__call__(outputs, labels.to(outputs.dtype) if labels.is_floating_point() else labels.long())


def statistic(loss: Callable[[Any, Any], Tensor] | None) -> Callable[[Any, Any], Tensor]:
    """The loss as methods call it; None is cross-entropy. Raises BadType for what cannot be called."""
    if loss is None:
        return OfClasses()
    if not callable(loss):
        raise BadType(f"loss must be a function of (outputs, labels), not {shown(loss)}.")
    return OfClasses(loss) if isinstance(loss, nn.CrossEntropyLoss) or loss is functional.cross_entropy else Given(loss)
