"""Groups of networks that were seen before: equal architectures have equal groups, whatever their weights."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.masks.groups import Group
from pruning_core.models.layers.index import ChannelIndex

KEPT = 8
TENSORS = ("_parameters", "_buffers", "_modules", "training", "recipe")
PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    torch.memory_format,
    torch.layout,
    type,
)
TABLES = (dict, OrderedDict, set)
FUNCTIONS = (types.BuiltinFunctionType, types.FunctionType)

Outcome = tuple[list[Group], dict[str, int]]
_seen: OrderedDict[Hashable, Outcome] = OrderedDict()


class _NotPlain(Exception):
    """Something decides over the forward pass of which nobody can say whether it is equal."""


def architecture(model: nn.Module, arguments: tuple) -> Hashable | None:
    """What the groups depend on: classes, forward methods, attributes and shapes; None where something else may matter.

    Hooks, functions with a memory and objects of unknown kinds do; so do values of integer inputs and buffers, which are
    part of the key.

    >>> first, second = (architecture(nn.Linear(3, size), (torch.ones(1, 3),)) for size in (2, 4))
    >>> first == architecture(nn.Linear(3, 2), (torch.zeros(1, 3),)), first == second
    (True, False)
    """
    shared: dict[int, str] = {}
    try:
        layers = tuple(
            (name, type(module), type(module).forward, _attributes(module), _tensors(name, module, shared))
            for name, module in model.named_modules(remove_duplicate=False)
        )
        return layers, _plain(arguments)
    except (_NotPlain, RecursionError):  # an argument that holds itself
        return None


def remembered(key: Hashable | None) -> Outcome | None:
    """The groups and positions that were found for this key, if they are among the last ones."""
    if key is None or key not in _seen:
        return None
    _seen.move_to_end(key)
    groups, positions = _seen[key]
    return list(groups), dict(positions)


def remember(key: Hashable | None, outcome: Outcome) -> None:
    """Keep what was found for this key, and forget what was not asked for longest."""
    if key is not None:
        _seen[key] = (list(outcome[0]), dict(outcome[1]))
        while len(_seen) > KEPT:
            _seen.popitem(last=False)


def _attributes(module: nn.Module) -> Hashable:
    """The attributes of a module that are no tensors and no modules."""
    return tuple(
        sorted(
            (name, (type(value), value) if type(value) in PLAIN else _plain(value))
            for name, value in vars(module).items()
            if not (type(value) in TABLES and not value and name[0] == "_")  # hooks, and other tables of torch's
            and name not in TENSORS
        )
    )


def _tensors(name: str, module: nn.Module, shared: dict[int, str]) -> Hashable:
    """Shapes and kinds of the tensors of a module, which of them are shared with whom, and whole numbers themselves."""
    found: list[Hashable] = []
    for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            found.append((leaf, None))
        else:
            value = _plain(tensor) if isinstance(module, ChannelIndex) else (tensor.shape, tensor.dtype, tensor.device)
            found.append((leaf, value, shared.setdefault(id(tensor), f"{name}.{leaf}")))
    found.append(
        tuple(
            (leaf, None if child is None else shared.setdefault(id(child), f"{name}.{leaf}"))
            for leaf, child in module._modules.items()
        )
    )
    return tuple(found)


def _plain(value: Any) -> Hashable:
    """Something hashable that is equal for equal values."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized:
            raise _NotPlain
        numbers = value.numel() if not value.is_floating_point() and not value.is_meta else 0
        if numbers > 10_000:
            raise _NotPlain
        return value.shape, value.dtype, value.device, tuple(value.flatten().tolist()) if numbers else None
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return type(value), tuple((_plain(key), _plain(entry)) for key, entry in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(_plain, value))
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, partial):
        return partial, _plain(value.func), _plain(value.args), _plain(value.keywords)
    if isinstance(value, FUNCTIONS) and not getattr(value, "__closure__", None):
        return value
    raise _NotPlain
