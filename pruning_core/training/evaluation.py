"""Loss and accuracy of a network over a split, and the checks that find unusable data before any work is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_core.checks import Constraints, Real, Whole, check, check_fields
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, known_name
from pruning_core.models.modes import observing

PRECISIONS = ("float32", "bfloat16")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy; with smoothing e the target is ``(1 - e) onehot + e / classes``. Logits (N, classes), labels (N,)."""

    constraints = Constraints(label_smoothing=Real(at_least=0, below=1))

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)


class Evaluation(NamedTuple):
    """Mean loss per sample, accuracy in percent, number of samples, top-5 accuracy in percent (None up to 5 classes)."""

    loss: float
    accuracy: float
    n: int
    accuracy5: float | None = None


def evaluate(
    model: nn.Module, split: Split, *, batch_size: int = 512, loss: Loss | None = None, precision: str = "float32"
) -> Evaluation:
    """Loss and accuracy of ``model`` over a split, in evaluation mode, in order and without augmentation.

    ``loss(outputs, labels)`` is a mean over the batch (default: cross-entropy). Mode, gradients and random state stay as
    they were. Raises BadInput for an empty split, a batch size < 1 or labels that the outputs cannot hold.
    """
    return evaluate_each(model, [split], batch_size=batch_size, loss=loss, precision=precision)[0]


def evaluate_each(
    model: nn.Module,
    splits: Sequence[Split],
    *,
    batch_size: int = 512,
    loss: Loss | None = None,
    precision: str = "float32",
) -> list[Evaluation]:
    """What ``evaluate`` says of each of some splits of one data set, which are checked by one forward pass. Arguments and
    errors as there."""
    batch_size = check("batch_size", batch_size, Whole(at_least=1))
    known_name("precision", precision, PRECISIONS)
    check_split(model, *splits)
    with observing(model):
        return [_evaluated(model, split, batch_size, loss or CrossEntropy(), precision) for split in splits]


def _evaluated(model: nn.Module, split: Split, batch_size: int, loss: Loss, precision: str) -> Evaluation:
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    for batch in split.batches(batch_size):
        inputs, labels = like_model(model, *batch)
        outputs = forward(model, inputs, precision)
        losses.append(loss(outputs, labels).double() * len(labels))
        hits = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == labels[:, None]
        correct.append(torch.stack([hits[:, 0].sum(), hits.sum()]))
    n, classes = len(split), outputs.shape[1]
    top1, top5 = torch.stack(correct).sum(0).tolist()
    return Evaluation(float(torch.stack(losses).sum()) / n, 100 * top1 / n, n, 100 * top5 / n if classes > 5 else None)


def confusion_matrix(model: nn.Module, split, batch_size: int = 512) -> Tensor:
    """Counts (true class, predicted class), int64, over a split, in evaluation mode. Raises what ``evaluate`` raises."""
    check_split(model, split)
    pairs = []
    with observing(model):
        for batch in split.batches(batch_size):
            inputs, labels = like_model(model, *batch)
            outputs = model(inputs)
            classes = outputs.shape[1]
            pairs.append(labels.cpu() * classes + outputs.argmax(1).cpu())
    return torch.bincount(torch.cat(pairs), minlength=classes**2).view(classes, classes)


def check_split(model: nn.Module, *splits: Split) -> None:
    """Raise BadInput or BadType, before any work, unless ``model`` maps the inputs to (N, classes) for the labels.

    The inputs are tried on those of the first split, of which the others have the shape.
    """
    for split in splits:
        if not hasattr(split, "batches"):
            raise BadType(f"a split of load_data(...) is needed, with inputs and labels, not {type(split).__name__}.")
        if len(split) == 0:
            raise BadInput("the split is empty: there is no sample to work with.")
        labels = split.labels
        if labels.dtype != torch.long or labels.dim() != 1:
            raise BadType(f"labels must be int64 of shape (N,), not {labels.dtype} of shape {tuple(labels.shape)}.")
    inputs, labels = next(iter(splits[0].batches(min(2, len(splits[0])))))
    try:
        with observing(model):
            outputs = model(like_model(model, inputs, labels)[0])
    except RuntimeError as error:
        shape = tuple(inputs.shape)
        raise BadInput(f"the network cannot take inputs of shape {shape}: {str(error).splitlines()[0]}") from error
    for split in splits:
        check_logits(outputs, split.labels)


def check_logits(outputs: Any, labels: Tensor) -> None:
    """Raise BadInput unless ``outputs`` has the shape (N, classes), with enough classes for the labels."""
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise BadInput(f"the network must return logits of shape (N, classes), not {found}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= outputs.shape[1]:
        raise BadInput(f"labels run from {low} to {high}, but the network has {outputs.shape[1]} outputs.")


def like_model(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The batch on the device and (floating-point inputs) in the dtype of the model's parameters."""
    reference = next(model.parameters(), inputs)
    dtype = reference.dtype if inputs.is_floating_point() else inputs.dtype
    return inputs.to(reference.device, dtype, non_blocking=True), labels.to(reference.device, non_blocking=True)


def computes_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether ``device`` has instructions for products in bfloat16: elsewhere autocast works too, but gains nothing.

    They are AVX512-BF16 or AMX of a processor, and tensor cores of a GPU; False for a GPU that is not there.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def forward(model: nn.Module, inputs: Tensor, precision: str) -> Any:
    """Outputs of ``model``, in float32 also where "bfloat16" computes them under autocast."""
    if precision == "float32":
        return model(inputs)
    with torch.autocast(inputs.device.type, torch.bfloat16):
        outputs = model(inputs)
    return outputs.float()
