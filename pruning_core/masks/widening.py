"""A forward pass in double precision by a network whose weights stay in single precision until a layer uses them.

A copy in double precision of a network with a hundred million weights takes longer to make than its outputs on a small image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pruning_core.models.modes import copied
from pruning_core.models.storage import CARRIED

WIDENED = {  # functions of layers that refuse tensors of two types, and that change none of them in evaluation mode
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(F.linear, F.batch_norm, F.layer_norm, F.group_norm),
}  # fmt: skip
PART = 1_000_000  # entries of a weight that are made double at once
WIDE = (torch.float64, torch.complex128)


class NotWidened(Exception):
    """Somewhere the network would compute in another precision, or write to one of its own tensors."""


class Widened(TorchFunctionMode):
    """Weights become double where a layer uses them; whatever else would not compute in double precision ends the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # What takes no tensor may set back a state, as the end of torch.no_grad() does, and is let through at any time.
        if (self.over and any(isinstance(argument, Tensor) for argument in args)) or _writes(func, args, kwargs):
            self.over = True
            raise NotWidened(getattr(func, "__name__", str(func)))
        if func is F.linear and _narrow(args[1]) and args[1].numel() > 2 * PART:
            return _linear(*args, **kwargs)
        if func in WIDENED:
            args = tuple(_double(argument) for argument in args)
            kwargs = {name: _double(argument) for name, argument in kwargs.items()}
        found = func(*args, **kwargs)
        for part in found if isinstance(found, list | tuple) else (found,):
            if _narrow(part):
                self.over = True
                raise NotWidened(getattr(func, "__name__", str(func)))
        return found


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, of a few rows of the weight at a time: to fill memory with all of them takes longer than the sums."""
    input = _double(input)
    rows = weight.split(max(PART // weight.shape[1], 1))
    found = torch.cat([F.linear(input, _double(part)) for part in rows], -1)
    return found if bias is None else found + bias


def _double(argument: Any) -> Any:
    return argument.to(torch.promote_types(argument.dtype, torch.float64)) if _narrow(argument) else argument


def _narrow(argument: Any) -> bool:
    return (
        isinstance(argument, Tensor)
        and argument.dtype not in WIDE
        and (argument.is_floating_point() or argument.is_complex())
    )


def _writes(func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a function may write to a tensor of less than double precision."""
    name = getattr(func, "__name__", "")
    in_place = name in ("__setitem__", "__set__", "__delete__") or (name.endswith("_") and not name.endswith("__"))
    in_place |= name.startswith("__i") and name not in ("__init__", "__index__", "__int__", "__invert__")
    in_place |= kwargs.get("inplace", False) is True
    return (in_place and bool(args) and _narrow(args[0])) or kwargs.get("out") is not None


def widening(network: nn.Module) -> nn.Module | None:
    """A copy for runs under :class:`Widened`: parameters of its own that share the network's memory, other tensors in double
    precision. None for networks that a compiler runs, in which no function is seen.

    >>> layer = nn.Linear(2, 1)
    >>> twin, input = widening(layer), torch.ones(1, 2).double()
    >>> with torch.no_grad(), Widened():
    ...     output = twin(input)
    >>> output.dtype, layer.weight.dtype
    (torch.float64, torch.float32)
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule) or getattr(module, "_compiled_call_impl", None) is not None:
            return None
        if type(module).__module__.startswith("torch._dynamo"):
            return None
        attributes = vars(module)
        if CARRIED in attributes:
            memo[id(attributes[CARRIED])] = {}
        tensors = [value for value in attributes.values() if isinstance(value, Tensor)]
        tensors += [buffer for buffer in module._buffers.values() if buffer is not None]
        memo |= {id(tensor): tensor.detach().double() for tensor in tensors if tensor.is_floating_point()}
    memo |= {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in network.parameters()}
    twin: nn.Module = copied(network, memo)
    return twin
