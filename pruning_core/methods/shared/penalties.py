"""Penalties count what is alive: dead weights neither add to them nor move."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pruning_core.errors import Unprunable
from pruning_core.masks.masks import Masks


def living(tensor: Tensor, name: str, alive: Masks) -> Tensor:
    """``tensor`` with the dead entries of the parameter ``name`` multiplied by zero."""
    mask = alive.get(name)
    return tensor if mask is None else tensor * mask.to(tensor)


def summed(parts: Iterable[Tensor], otherwise: str) -> Tensor:
    """The sum of all ``parts``; raises Unprunable with the message ``otherwise`` if there are none."""
    found = list(parts)
    if not found:
        raise Unprunable(otherwise)
    return torch.stack(found).sum()
