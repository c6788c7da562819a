"""The samples that curvature is taken over, and what is refused about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning_core.errors import BadInput, BadType
from pruning_core.training.evaluation import like_model

Batch = tuple[Tensor, Tensor]  # inputs, labels
Batches = Iterable[Batch]
Loss = Callable[[Tensor, Tensor], Tensor]


def refuse_training(model: nn.Module) -> None:
    """Raise BadInput when any part of the network is in training mode."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its part {name!r} ({type(module).__name__})" if name else "it"
            raise BadInput(
                f"curvature needs a network in evaluation mode, but {where} is in training mode: call eval()."
            )


def finite_loss(value: Tensor, number: int) -> float:
    """The loss of batch ``number`` as a number; BadInput unless it is one, and finite."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"the loss must be one number a batch, the mean over its samples, not {shape}.")
    if not math.isfinite(float(value)):
        raise BadInput(f"the loss of batch {number} is {float(value)}: there is no curvature to compute.")
    return float(value)


def held_batches(model: nn.Module, batches: Batches) -> tuple[list[Batch], Batch | None]:
    """The batches on the network's device; and, where all have one shape, the whole of which they are then parts."""
    held = [like_model(model, *batch) for batch in pairs(batches)]
    if len({(x.shape[1:], x.dtype, y.shape[1:], y.dtype) for x, y in held}) > 1:
        return held, None
    sizes = [len(x) for x, _ in held]
    inputs, labels = (torch.cat(parts) for parts in zip(*held, strict=True))
    return list(zip(inputs.split(sizes), labels.split(sizes), strict=True)), (inputs, labels)


def pairs(batches: Batches) -> Iterator[Batch]:
    """The batches as pairs of tensors; refuses what is none, or holds no sample."""
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise BadType(f"batches must be an iterable of (inputs, labels), not {type(batches).__name__}.")
    count = 0
    for count, batch in enumerate(batches, 1):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
            raise BadType("batches must yield pairs (inputs, labels) of tensors.")
        if batch[0].dim() == 0 or len(batch[0]) == 0:
            raise BadInput(f"batch {count} holds no sample.")
        yield batch[0], batch[1]
    if not count:
        raise BadInput("batches is empty: there is no loss.")


@contextmanager
def forward_pass(device: torch.device) -> Iterator[None]:
    """For a forward pass: attention without fused kernels, which have no second derivative; random state as before."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=devices):
        yield
