"""What is done to every case, and judged without the package's own comparison of two networks."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.case import Case


def made(case: Case, seed: int = 0) -> nn.Module:
    """In double precision, with norms that have seen something and no parameter left at a special value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = case.build().double().eval()
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield torch.view_as_real(output) if output.is_complex() else output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif is_dataclass(output):
        for field in fields(output):
            yield from tensors(getattr(output, field.name))
    elif isinstance(output, tuple | list):
        for value in output:
            yield from tensors(value)


def apart(one: nn.Module, other: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference of two networks in evaluation mode, relative to the largest output of each tensor."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = list(tensors(one.eval()(*inputs)))
        torch.manual_seed(1)
        second = list(tensors(other.eval()(*inputs)))
    assert [t.shape for t in first] == [t.shape for t in second]
    return max(float((a - b).abs().max()) / (float(a.abs().max()) + 1e-12) for a, b in zip(first, second, strict=True))


def steps(model: nn.Module, masks: Mapping[str, Tensor], inputs: tuple[Tensor, ...], count: int = 3) -> None:
    """Plain gradient descent on all that comes out, in training mode, the dead kept dead."""
    as_it_is = {name: lambda x, *args, **options: x for name in ("dropout", "dropout2d", "alpha_dropout")}
    with (
        torch.random.fork_rng(devices=[]),
        patch.multiple(F, **as_it_is),
    ):  # how many numbers are drawn depends on the widths
        for i in range(count):
            torch.manual_seed(i)
            model.train().zero_grad()
            sum((t.double() - 0.1).square().mean() for t in tensors(model(*inputs)) if t.is_floating_point()).backward()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if parameter.grad is not None:
                        parameter -= 0.02 * parameter.grad
                        if name in masks:
                            parameter *= masks[name]
    model.eval()


def widths(model: nn.Module) -> dict[str, int]:
    """How many outputs each layer with a weight has."""
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            found[name] = weight.shape[1] * module.groups if transposed else weight.shape[0]
            if isinstance(module, nn.Embedding):
                found[name] = weight.shape[1]
    return found
