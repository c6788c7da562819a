"""The samples that curvature is taken over: batches that are held or read again, and what is refused about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning_core.errors import BadInput, BadType
from pruning_core.training.evaluation import like_model

Batches = Iterable[tuple[Tensor, Tensor]]

Loss = Callable[[Tensor, Tensor], Tensor]


def refuse_training(model: nn.Module) -> None:
    """Raise BadInput when any part of the network is in training mode."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its part {name!r} ({type(module).__name__})" if name else "it"
            raise BadInput(
                f"curvature is that of a network in evaluation mode, but {where} is in training mode: call eval()."
            )


def finite_loss(value: Tensor, number: int) -> float:
    """The loss of batch ``number`` as a number; BadInput unless it is one, and finite."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"the loss must be one number a batch, the mean over its samples, not {shape}.")
    if not math.isfinite(float(value)):
        raise BadInput(f"the loss of batch {number} is {float(value)}: there is no curvature to compute.")
    return float(value)


class JoinedBatches:
    """Batches that are parts of two tensors."""

    def __init__(self, inputs: Tensor, labels: Tensor, sizes: list[int]):
        self.inputs, self.labels, self.sizes = inputs, labels, sizes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.inputs.split(self.sizes), self.labels.split(self.sizes), strict=True)


class RepeatedBatches:
    """Batches that are read again each time, and compared with the first time by a few of their numbers."""

    def __init__(self, model: nn.Module, batches: Batches):
        if iter(batches) is batches:
            raise BadInput("batches that can be read only once must be held: hold=True.")
        self.model, self.source = model, batches
        self.marks = [self._mark(*batch) for batch in pairs(batches)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number = 0
        for number, batch in enumerate(pairs(self.source), 1):
            if number > len(self.marks) or self._mark(*batch) != self.marks[number - 1]:
                raise BadInput(
                    f"batch {number} is another one than when the Hessian was made; turn off shuffling and augmentation, or "
                    "hold the batches: hold=True."
                )
            yield like_model(self.model, *batch)
        if number != len(self.marks):
            raise BadInput(f"batches gave {len(self.marks)} batches when the Hessian was made, and now {number}.")

    @staticmethod
    def _mark(*batch: Tensor) -> tuple:
        return tuple(
            (tuple(t.shape), float(t.detach().sum(dtype=torch.float64)), *t.detach().flatten()[:4].tolist())
            for t in batch
        )


def held_batches(model: nn.Module, batches: Batches) -> list[tuple[Tensor, Tensor]] | JoinedBatches:
    held = [like_model(model, *batch) for batch in pairs(batches)]
    kinds = {(x.shape[1:], x.dtype, y.shape[1:], y.dtype) for x, y in held}
    if len(kinds) != 1:
        return held
    inputs, labels = (torch.cat(parts) for parts in zip(*held, strict=True))
    return JoinedBatches(inputs, labels, [len(x) for x, _ in held])


def pairs(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
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
