"""Layers that the example does not reach: auxiliary heads, called in training mode alone, and experts chosen by values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pruning_core.models.calls import mapped, tensors_of

RESTING = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
MANY = 16  # samples of noise that together may go every way


def other_ways(twin: nn.Module, arguments: tuple, left_out: Callable[[], bool], running: list) -> list[Tensor]:
    """What ``twin`` puts out on other ways than the usual one, which are tried as long as some layer is ``left_out``.

    The example goes in once more in training mode, then noise in evaluation mode, several samples at first. ``running``,
    the modules that are running, is emptied before each: a way that breaks off leaves some behind.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, tensor: Tensor) -> Tensor:
        many = torch.cat([tensor] * count) if tensor.dim() else tensor
        if many.is_meta or not many.is_floating_point():
            return many
        return torch.randn(many.shape, generator=generator).to(many)

    found: list[Tensor] = []
    for count in (0, MANY, MANY, 1, 1):
        if not left_out():
            break
        for module in twin.modules():  # norms and dropout have nothing to say about the way
            module.training = not count and not isinstance(module, RESTING)
        running.clear()
        with contextlib.suppress(Exception):
            found += tensors_of(twin(*(mapped(partial(noise, count), arguments) if count else arguments)))
    twin.eval()
    return found
