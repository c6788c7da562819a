"""Tensors, networks and generators that can be worked with: finite numbers, and no draw from the global random state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks.constraints import Dense
from pruning_core.errors import BadInput, BadType, shown

DOUBLE = torch.float64
_COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Floats:
    """A tensor of floating-point numbers with ``dims`` dimensions (any number of them where None), not empty, all finite.

    >>> Floats(2).check("hidden", torch.ones(3))
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: hidden must be a tensor with 2 dimensions, not Tensor of shape (3,).
    """

    dims: int | None = None

    def check(self, name: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else shown(value)
            raise BadType(f"{name} must be a tensor of floating-point numbers, not {kind}.")
        Dense().check(name, value)
        if self.dims is not None and value.dim() != self.dims:
            raise BadInput(f"{name} must be a tensor with {self.dims} dimensions, not {shown(value)}.")
        if not value.numel():
            raise BadInput(f"{name} is empty.")
        if not bool(torch.isfinite(value).all()):
            raise BadInput(f"{name} must be finite, but there are NaN or infinite values.")
        return value


def doubles(name: str, values: Any) -> Tensor:
    """``values`` (tensor, array, sequence or number) as a finite float64 tensor of the same shape, without gradient.

    Raises BadType for what is not made of real numbers, BadInput for NaN or infinite entries, and for nothing at all.

    >>> doubles("radii", [1, 2])
    tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise BadType(f"{name} must hold real numbers, not {values.dtype}.")
        found = Dense().check(name, values).detach().to("cpu", DOUBLE)
    else:
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, RuntimeError):  # rows of different lengths, tensors that want a gradient
            array = np.asarray(None)
        if array.dtype.kind not in "iuf":
            raise BadType(f"{name} must be a tensor or a sequence of numbers, not {type(values).__name__}.")
        found = torch.from_numpy(array.astype(np.float64))
    if found.numel() == 0:
        raise BadInput(f"{name} is empty.")
    if not bool(torch.isfinite(found).all()):
        raise BadInput(f"{name} must be finite, but there are NaN or infinite values.")
    return found


def check_finite(model: nn.Module) -> None:
    """Raise BadInput naming the first parameter or buffer of a network that holds NaN or infinite values; BadType for none.

    >>> network = nn.Linear(2, 1)
    >>> check_finite(network)
    >>> network.bias.data.fill_(float("nan"))
    tensor([nan])
    >>> check_finite(network)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: 'bias' holds 1 NaN or infinite values; such a network cannot be worked with.
    """
    if not isinstance(model, nn.Module):
        raise BadType(f"the network must be a torch.nn.Module, not {type(model).__name__}.")
    named = [(n, t) for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_floating_point()]
    if not named:
        return
    for name, tensor in named:  # torch only stores those of eight bits and fewer
        if tensor.dtype not in _COMPUTED:
            raise BadType(f"{name!r} holds {tensor.dtype}, in which no layer computes; give model.float().")
    # A sum is finite only if all entries are, and eighty times faster than isfinite; a sum may also overflow.
    sums = torch.stack([tensor.detach().sum().float().to(named[0][1].device) for _, tensor in named]).tolist()
    if all(map(math.isfinite, sums)):
        return
    for name, tensor in named:
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise BadInput(f"{name!r} holds {bad} NaN or infinite values; such a network cannot be worked with.")


def present(device: str | torch.device) -> None:
    """BadInput, unless tensors can be put on the device and read from it, here and now.

    >>> present("cpu")
    >>> present("meta")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: device='meta' was asked for, but torch cannot use it here.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device={str(device)!r} was asked for, but torch sees no GPU.")
    try:
        torch.zeros(1).to(device).cpu()
    except Exception as error:  # also of a backend that would be a package of its own, and is not there
        raise BadInput(f"device={str(device)!r} was asked for, but torch cannot use it here.") from error


def generator_of(generator: Any) -> torch.Generator:
    """The generator itself; BadType for anything else, so that no draw ever comes from the global random state.

    >>> generator_of(0)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: a torch.Generator is needed as the source of randomness, not int.
    """
    if not isinstance(generator, torch.Generator):
        raise BadType(f"a torch.Generator is needed as the source of randomness, not {type(generator).__name__}.")
    return generator
