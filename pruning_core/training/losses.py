"""Losses on what a network puts out, and how often its largest output is the label."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from pruning_core import errors
from pruning_core.checks import Constraints, Real, check_fields
from pruning_core.errors import BadInput, BadType, PruningError
from pruning_core.models.calls import logits, raised, shown

Loss = Callable[[Any, Any], Tensor]
REMEDY = (
    "the loss is cross-entropy unless another is given, as loss=torch.nn.MSELoss() or loss=torch.nn.BCEWithLogitsLoss()"
)


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy; with smoothing e the target is ``(1 - e) onehot + e / classes``. Logits (N, classes), labels (N,)."""

    constraints = Constraints(label_smoothing=Real(at_least=0, below=1))

    label_smoothing: float = 0.0
    ignore_index: ClassVar[int] = -100

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class SquaredError:
    """Mean over samples and classes of ``(output - onehot)^2``: criterion ``mse`` of How Sparse. Shapes as above.

    >>> float(SquaredError()(torch.tensor([[1.0, 0.5]]), torch.tensor([0])))
    0.125
    """

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        onehot = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
        return functional.mse_loss(outputs, onehot)


@dataclass(frozen=True)
class Margin:
    """Multi-class hinge: mean over samples of ``sum_j max(0, 1 - z_y + z_j) / classes``, j other than y. Shapes as above.

    >>> float(Margin()(torch.tensor([[2.0, 1.5]]), torch.tensor([0])))
    0.25
    """

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.multi_margin_loss(outputs, labels)


LOSSES: dict[str, Loss] = {"cross_entropy": CrossEntropy(), "mse": SquaredError(), "hinge": Margin()}
"""Losses by name, for logits (N, classes) and labels (N,) that are classes."""

OF_CLASSES = (CrossEntropy, SquaredError, Margin)


def given_loss(given: str | Loss | None) -> str | Loss | None:
    """A loss as an experiment keeps it: those of LOSSES by their name, cross-entropy as None. Raises UnknownName for a name
    that is not there, BadType for what cannot be called with outputs and labels."""
    if isinstance(given, str):
        given = errors.known_name("loss", str(given), LOSSES)
    elif isinstance(given, type) or not (given is None or callable(given)):
        raise errors.BadType(
            f"loss must be a name ({', '.join(LOSSES)}) or a function of (outputs, labels), not {errors.shown(given)}."
        )
    given = next((name for name, known in LOSSES.items() if given == known), given)
    if callable(given):
        _check_parameters(given)
    return None if given == "cross_entropy" else given


def _check_parameters(loss: Loss) -> None:
    """BadType for a function that cannot be called with outputs and labels, before it is: what else it does, nobody knows."""
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # of a function in C that does not say
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        name = getattr(loss, "__qualname__", type(loss).__qualname__)
        raise BadType(
            f"loss must be a function of (outputs, labels), which {name}{signature} is not: {error}."
        ) from None


def loss_of(given: str | Loss | None) -> Loss:
    """The function behind what :func:`given_loss` has taken."""
    return LOSSES[given or "cross_entropy"] if given is None or isinstance(given, str) else given


def of_one_tensor(loss: Loss) -> bool:
    """Whether a loss is known to take one tensor as outputs: ours, and those of torch."""
    return isinstance(loss, (*OF_CLASSES, _Loss)) or getattr(loss, "__module__", "") == functional.__name__


def read_by(loss: Loss, outputs: Any) -> Any:
    """What ``loss`` gets of the outputs: one of torch the logits of a dict, tuple or dataclass, any other loss all."""
    return raised(logits(outputs) if of_one_tensor(loss) else outputs)


def ignored_by(loss: Loss) -> int | None:
    """The label that a loss leaves out, -100 for torch's cross-entropy unless it says otherwise; None for any other loss.

    >>> ignored_by(functional.cross_entropy), ignored_by(functional.mse_loss)
    (-100, None)
    """
    usual = -100 if loss in (functional.cross_entropy, functional.nll_loss) else None
    return getattr(loss, "ignore_index", usual)


def loss_value(loss: Loss, outputs: Any, labels: Any) -> Tensor:
    """``loss(outputs, labels)``, of the outputs that it reads.

    Raises BadInput, in one sentence, for what the loss raises, for what is not one number, and for a number that does not
    depend on outputs of which a gradient can be taken.

    >>> float(loss_value(functional.mse_loss, {"logits": torch.ones(2, 1)}, torch.zeros(2, 1)))
    1.0
    """
    read = outputs if isinstance(outputs, Tensor) else read_by(loss, outputs)
    try:
        value = loss(read, labels)
    except (PruningError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:  # whatever a loss of the user's raises
        _refuse_class(loss)
        what = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        whole = isinstance(labels, Tensor) and not labels.is_floating_point()
        if whole and isinstance(read, Tensor) and labels.shape == read.shape:
            what = f"{what}; whole numbers that are no classes are given as labels.float()"
        raise BadInput(f"the loss does not take outputs {shown(read)} and labels {shown(labels)}: {what}.") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        _refuse_class(loss)
        raise BadInput(f"the loss must return one number, the mean over the samples of a batch, not {shown(value)}.")
    if isinstance(read, Tensor) and read.requires_grad and not value.requires_grad:
        raise BadInput(
            "the loss has no gradient: it must be computed from the outputs by torch, without detach() or item()."
        )
    return value


def strict_loss_value(loss: Loss, outputs: Any, labels: Any) -> Tensor:
    """The same, refusing as well what torch only warns of: outputs (N, 1) and labels (N,), each paired with every other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")
        return loss_value(loss, outputs, labels)


def _refuse_class(loss: Loss) -> None:
    if isinstance(loss, type):
        raise BadType(f"loss is the class {loss.__name__}: give an instance of it, {loss.__name__}().")


def has_classes(outputs: Any, labels: Any) -> bool:
    """Whether labels (N, ...) are classes that outputs (N, classes, ...) are scores of, by type and shape."""
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor) or labels.dtype != torch.long:
        return False
    fits = outputs.dim() == labels.dim() + 1 and outputs.shape[:1] + outputs.shape[2:] == labels.shape
    return fits and outputs.shape[1] > 1


def no_classes(outputs: Any, labels: Any, ignored: int | None = None) -> str | None:
    """Why outputs and labels are no classification, as half a sentence; None if they are one.

    Outputs are (N, classes, ...), two classes at least; labels (N, ...) whole numbers below that, or ``ignored``, or
    probabilities of the outputs' shape. There may be more labels than outputs: those of a whole split.

    >>> no_classes(torch.zeros(2, 3), torch.tensor([1, 3]))
    'labels run from 1 to 3, but the network has 3 outputs'
    """
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor):
        return f"classes need a tensor of logits and one of labels, not {shown(outputs)} and {shown(labels)}"
    if outputs.dim() < 2 or outputs.shape[1] == 1:
        return f"outputs of shape {tuple(outputs.shape)} have no two columns to choose a class from"
    if labels.is_floating_point():
        if labels.shape[1:] != outputs.shape[1:]:
            return f"labels of {labels.dtype} are no classes"
        if bool((labels < 0).any()) or not torch.allclose(labels.sum(1), labels.new_ones(()), atol=1e-2):
            return "labels of the outputs' shape are no probabilities of classes, which add up to 1"
        return None
    if labels.dim() != outputs.dim() - 1 or labels.shape[1:] != outputs.shape[2:] or len(labels) < len(outputs):
        return f"labels of shape {tuple(labels.shape)} are no classes for outputs of shape {tuple(outputs.shape)}"
    classes = labels if ignored is None else labels[labels != ignored]
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= outputs.shape[1]):
        low, high = int(classes.min()), int(classes.max())
        return f"labels run from {low} to {high}, but the network has {outputs.shape[1]} outputs"
    return None


def hits(outputs: Tensor, labels: Tensor, loss: Loss, best: int = 1) -> tuple[Tensor, int | Tensor]:
    """How many labels are the largest output, and how many there are; with ``best`` > 1 the first is (2,): those that are
    the largest, and those among the ``best`` largest.

    Outputs (N, classes, ...), labels (N, ...); those equal to the ``ignore_index`` of the loss do not count.

    >>> hits(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]), CrossEntropy())
    (tensor(1), tensor(2))
    """
    if best == 1:  # by max: argmax and topk take several times as long
        right = outputs.max(1).indices == labels
    else:
        right = outputs.topk(min(best, outputs.shape[1]), 1).indices == labels[:, None]
    labelled: int | Tensor = labels.numel()
    if (ignored := ignored_by(loss)) is not None:
        counted = labels != ignored
        right, labelled = right & (counted if best == 1 else counted[:, None]), counted.sum()
    return right.sum() if best == 1 else torch.stack([right[:, 0].sum(), right.sum()]), labelled
