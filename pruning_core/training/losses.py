"""Losses on what a network puts out, and how often its largest output is the label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from pruning_core.checks import Constraints, Real, check_fields
from pruning_core.models.calls import logits, raised

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy; with smoothing e the target is ``(1 - e) onehot + e / classes``. Logits (N, classes), labels (N,)."""

    constraints = Constraints(label_smoothing=Real(at_least=0, below=1))

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)


def of_one_tensor(loss: Loss) -> bool:
    """Whether a loss is known to take one tensor as outputs: ours, and those of torch."""
    return isinstance(loss, CrossEntropy | _Loss) or getattr(loss, "__module__", "") == functional.__name__


def read_by(loss: Loss, outputs: Any) -> Any:
    """What ``loss`` gets of the outputs: one of torch the logits of a dict, tuple or dataclass, any other loss all."""
    return raised(logits(outputs) if of_one_tensor(loss) else outputs)


def loss_value(loss: Loss, outputs: Any, labels: Any) -> Tensor:
    """``loss(outputs, labels)``, of the outputs that it reads.

    >>> float(loss_value(functional.mse_loss, {"logits": torch.ones(2, 1)}, torch.zeros(2, 1)))
    1.0
    """
    return loss(outputs if isinstance(outputs, Tensor) else read_by(loss, outputs), labels)


def has_classes(outputs: Any, labels: Any) -> bool:
    """Whether labels (N, ...) are classes that outputs (N, classes, ...) are scores of, by type and shape."""
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor) or labels.dtype != torch.long:
        return False
    fits = outputs.dim() == labels.dim() + 1 and outputs.shape[:1] + outputs.shape[2:] == labels.shape
    return fits and outputs.shape[1] > 1


def hits(outputs: Tensor, labels: Tensor, loss: Loss, best: int = 1) -> tuple[Tensor, int | Tensor]:
    """How many labels are the largest output, and how many there are; with ``best`` > 1 the first is (2,): those that are
    the largest, and those among the ``best`` largest.

    Outputs (N, classes, ...), labels (N, ...); those equal to the ``ignore_index`` of the loss do not count.

    >>> hits(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]), CrossEntropy())
    (tensor(1), 2)
    """
    if best == 1:  # by max: argmax and topk take several times as long
        right = outputs.max(1).indices == labels
    else:
        right = outputs.topk(min(best, outputs.shape[1]), 1).indices == labels[:, None]
    labelled: int | Tensor = labels.numel()
    if (ignored := getattr(loss, "ignore_index", None)) is not None:
        counted = labels != ignored
        right, labelled = right & (counted if best == 1 else counted[:, None]), counted.sum()
    return right.sum() if best == 1 else torch.stack([right[:, 0].sum(), right.sum()]), labelled
