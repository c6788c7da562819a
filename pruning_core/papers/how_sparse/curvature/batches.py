"""The samples that curvature is taken over, what is refused about them, their losses, and the tolerance these allow."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning_core.checks import checked
from pruning_core.data.feeds import Feed
from pruning_core.errors import BadInput, BadType
from pruning_core.models.calls import like_model, tried
from pruning_core.training.losses import CrossEntropy, loss_value

Batch = tuple[Any, Tensor]  # inputs, of which a network may take several, and labels
Batches = Iterable[Any]  # such pairs, or what a loader makes of them: dicts, lists
Loss = Callable[[Tensor, Tensor], Tensor]


def refuse_training(model: nn.Module) -> None:
    """Raise BadInput when any part of the network is in training mode."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its part {name!r} ({type(module).__name__})" if name else "it"
            raise BadInput(f"curvature needs evaluation mode, but {where} is in training mode: call eval().")


def finite_loss(value: Tensor, number: int) -> float:
    """The loss of batch ``number`` as a number; BadInput unless it is finite."""
    if not math.isfinite(float(value)):
        raise BadInput(f"the loss of batch {number} is {float(value)}: there is no curvature to compute.")
    return float(value)


def held(model: nn.Module, batches: Batches) -> tuple[list[Batch], Batch | None]:
    """The batches on the network's device; and, where all have one shape, the whole of which they are then parts."""
    found = [like_model(model, *batch) for batch in pairs(batches, model)]
    single = all(isinstance(tensor, Tensor) for batch in found for tensor in batch)
    if not single or len({(x.shape[1:], x.dtype, y.shape[1:], y.dtype) for x, y in found}) > 1:
        return found, None
    sizes = [len(x) for x, _ in found]
    inputs, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return list(zip(inputs.split(sizes), labels.split(sizes), strict=True)), (inputs, labels)


def pairs(batches: Batches, model: nn.Module | None = None) -> Iterator[Batch]:
    """The batches as pairs (inputs, labels), of whatever a Feed takes; refuses what has no labels, or holds no sample."""
    empty = True
    for inputs, labels in Feed(batches, model):
        empty = False
        if labels is None:
            raise BadType("batches must yield pairs (inputs, labels) of tensors.")
        yield inputs, labels
    if empty:
        raise BadInput("batches is empty: there is no loss.")


@contextmanager
def forward_pass(device: torch.device) -> Iterator[None]:
    """For a forward pass: attention without fused kernels, which have no second derivative; random state as before."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=devices):
        yield


@checked
def batch_losses(model: nn.Module, batches: Batches, loss: Loss | None = None) -> Tensor:
    """The mean loss of every batch, float64 (batches,), of a network in evaluation mode.

    >>> network = nn.Linear(1, 1, bias=False).eval()
    >>> nn.init.constant_(network.weight, 2.0).shape
    torch.Size([1, 1])
    >>> batches = [(torch.ones(1, 1), torch.ones(1, 1)), (torch.ones(1, 1), torch.zeros(1, 1))]
    >>> batch_losses(network, batches, nn.functional.mse_loss)
    tensor([1., 4.], dtype=torch.float64)
    """
    refuse_training(model)
    found = []
    with forward_pass(next(model.parameters()).device), torch.no_grad():
        for number, batch in enumerate(pairs(batches, model), 1):
            inputs, labels = like_model(model, *batch)
            found.append(finite_loss(loss_value(loss or CrossEntropy(), tried(model, inputs), labels), number))
    return torch.tensor(found, dtype=torch.float64)


@checked
def loss_tolerance(losses: Tensor) -> float:
    """The tolerance epsilon of Zhang et al. (2024): the standard deviation (over n) of the batches' mean losses, (n,).

    A short last batch counts like the others. The value shrinks with the batch size, about as one over its root. Raises
    BadInput for a single batch, or batches of equal losses, which leave no tolerance.

    >>> loss_tolerance(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    1.118033988749895
    """
    losses = torch.as_tensor(losses, dtype=torch.float64)
    if losses.dim() != 1 or len(losses) < 2:
        raise BadInput(f"a tolerance needs the losses of at least 2 batches, not a tensor {tuple(losses.shape)}.")
    if not bool(torch.isfinite(losses).all()):
        raise BadInput("a tolerance cannot be taken of losses that are NaN or infinite.")
    found = float(losses.std(correction=0))
    if not found > 0:
        raise BadInput("all batches have the same loss, so the tolerance is zero.")
    return found
