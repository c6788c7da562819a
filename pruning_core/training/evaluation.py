"""Loss and accuracy of a network over a split, and the checks that find unusable data before any work is done."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput, BadType, known_name, named_failures, shown
from pruning_core.models.calls import like_model, logits, raised, samples, tried
from pruning_core.models.modes import observing
from pruning_core.training.first_look import as_split, look
from pruning_core.training.losses import CrossEntropy, Loss, hits, loss_value

PRECISIONS = ("float32", "bfloat16")
Metric = Literal["accuracy"] | Callable[[Any, Any], Any] | None


class Evaluation(NamedTuple):
    """Mean loss per sample, accuracy in percent (NaN where labels are no classes), number of samples, top-5 accuracy in
    percent (None up to 5 classes), and what a metric of the caller's says (None without one)."""

    loss: float
    accuracy: float
    n: int
    accuracy5: float | None = None
    metric: float | None = None


@checked(metric=None)
def evaluate(
    model: nn.Module,
    data: Any,
    *,
    batch_size: int = 512,
    loss: Loss | None = None,
    precision: str = "float32",
    metric: Metric = "accuracy",
) -> Evaluation:
    """Loss and accuracy of ``model`` over a split, in evaluation mode, in order and without augmentation.

    ``data`` may also be a DataLoader or another iterable of batches, in their own sizes; :class:`~pruning_core.data.Feed`
    says what a batch is. ``loss(outputs, labels)`` is a mean over the batch (default: cross-entropy); outputs in a dict,
    tuple or dataclass reach a loss of torch as the logits among them, and any other loss as they are. Accuracy is that of
    classes (N, ...) for outputs (N, classes, ...), without labels that the loss ignores. ``metric`` is "accuracy", None, or
    something more: a function (outputs, labels) -> mean over the batch, or an object with ``reset``, ``update(outputs,
    labels)`` and ``compute``, as torchmetrics has them, which sees all batches. Mode, gradients and random state stay as
    they were. Raises BadInput or BadType for no sample, a batch size < 1, or inputs, outputs, labels and loss that do not
    fit.

    >>> batches = [(torch.zeros(2, 3), torch.zeros(2, 1))]
    >>> evaluate(nn.Linear(3, 1, bias=False), batches, loss=nn.MSELoss(), metric=lambda outputs, _: outputs.mean())
    Evaluation(loss=0.0, accuracy=nan, n=2, accuracy5=None, metric=0.0)
    """
    return evaluate_each(model, [data], batch_size=batch_size, loss=loss, precision=precision, metric=metric)[0]


def evaluate_each(
    model: nn.Module,
    splits: Sequence[Any],
    *,
    batch_size: int = 512,
    loss: Loss | None = None,
    precision: str = "float32",
    metric: Metric = "accuracy",
) -> list[Evaluation]:
    """What ``evaluate`` says of each of some splits of one data set, which are checked by one forward pass. Arguments and
    errors as there."""
    batch_size = check("batch_size", batch_size, Whole(at_least=1))
    known_name("precision", precision, PRECISIONS)
    check_metric(metric)
    splits, loss = [as_split(split, model) for split in splits], CrossEntropy() if loss is None else loss
    classes = look(model, loss, *splits).classes and metric is not None
    with observing(model):
        return [_evaluated(model, split, batch_size, loss, precision, metric, classes) for split in splits]


def check_metric(metric: object) -> None:
    """Raise BadType or UnknownName for what is no metric."""
    if isinstance(metric, str):
        known_name("metric", metric, ("accuracy",))
    elif metric is not None and not callable(metric) and not hasattr(metric, "update"):
        raise BadType(f"metric is 'accuracy', a function (outputs, labels) -> number, or None, not {shown(metric)}.")


def _evaluated(
    model: nn.Module, split: Any, batch_size: int, loss: Loss, precision: str, metric: Any, classes: bool
) -> Evaluation:
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    labelled: Any = 0
    more: list[float] = []
    sizes: list[int] = []
    own, gathers = metric is not None and metric != "accuracy", hasattr(metric, "update")
    if gathers:
        with named_failures("the metric"):
            metric.reset()
    for batch in split.batches(batch_size):
        inputs, labels = like_model(model, *batch)
        outputs = forward(model, inputs, precision)
        sizes.append(samples(inputs))
        losses.append(loss_value(loss, outputs, labels).double() * sizes[-1])
        if classes:
            right, count = hits(logits(outputs), labels, loss, best=5)
            correct, labelled = [*correct, right], labelled + count
        if gathers:
            with named_failures("the metric"):
                metric.update(outputs, labels)
        elif own:
            with named_failures("the metric"):
                more.append(float(metric(outputs, labels)) * sizes[-1])
    n = sum(sizes)
    mean, told = float(torch.stack(losses).sum()) / n, None
    if own:
        with named_failures("the metric"):
            told = float(metric.compute()) if gathers else sum(more) / n
    if not int(labelled):
        return Evaluation(mean, math.nan, n, None, told)
    top1, top5 = (100 * count / int(labelled) for count in torch.stack(correct).sum(0).tolist())
    return Evaluation(mean, top1, n, top5 if logits(outputs).shape[1] > 5 else None, told)


@checked
def confusion_matrix(model: nn.Module, data: Any, batch_size: int = 512) -> Tensor:
    """Counts (true class, predicted class), int64, over a split or batches, in evaluation mode. Raises what ``evaluate``
    raises, and BadInput for labels (N, ...) of more than one dimension.

    >>> network = nn.Linear(2, 2, bias=False)
    >>> network.weight.data = torch.eye(2)
    >>> confusion_matrix(network, [(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))])
    tensor([[1, 1],
            [0, 0]])
    """
    split = as_split(data, model)
    look(model, CrossEntropy(), split)
    pairs = []
    with observing(model):
        for batch in split.batches(batch_size):
            inputs, labels = like_model(model, *batch)
            outputs = logits(tried(model, inputs))
            if labels.dim() != 1:
                raise BadInput(
                    f"a confusion matrix needs one class a sample, not labels of shape {tuple(labels.shape)}."
                )
            classes = outputs.shape[1]
            pairs.append(labels.cpu() * classes + outputs.argmax(1).cpu())
    return torch.bincount(torch.cat(pairs), minlength=classes**2).view(classes, classes)


@checked
def computes_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether ``device`` has instructions for products in bfloat16: elsewhere autocast works too, but gains nothing.

    They are AVX512-BF16 or AMX of a processor, and tensor cores of a GPU; False for a GPU that is not there.

    >>> isinstance(computes_bfloat16("cpu"), bool)
    True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def forward(model: nn.Module, inputs: Any, precision: str) -> Any:
    """Outputs of ``model``, a tensor in float32 also where half precision or "bfloat16", under autocast, computes it."""
    if precision == "float32":
        return raised(tried(model, inputs))
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    with torch.autocast(device, torch.bfloat16):
        outputs = tried(model, inputs)
    return outputs.float() if isinstance(outputs, Tensor) else outputs
