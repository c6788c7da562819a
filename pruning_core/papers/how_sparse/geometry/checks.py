"""What the numbers handed to the geometry must be: one clear sentence for those that cannot be worked with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.errors import BadType

DOUBLE = torch.float64


def doubles(name: str, values: Any) -> Tensor:
    """``values`` (tensor, array, sequence or number) as a finite float64 tensor of the same shape, without gradient.

    Raises BadType for what is not made of real numbers, BadInput for NaN or infinite entries, and for nothing at all.
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise BadType(f"{name} must hold real numbers, not {values.dtype}.")
        found = values.detach().to("cpu", DOUBLE)
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


def number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """``value`` as a finite float with ``least <= value <= most`` and ``above < value < below``; else BadInput or BadType."""
    found = doubles(name, value) if not isinstance(value, float) else torch.tensor(value, dtype=DOUBLE)
    if found.dim():
        raise BadType(f"{name} must be one number, not a {type(value).__name__} of shape {tuple(found.shape)}.")
    given = float(found)
    if not (math.isfinite(given) and least <= given <= most and above < given < below):
        bounds = [("at least", least), ("above", above), ("at most", most), ("below", below)]
        allowed = ["finite", *(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))]
        raise BadInput(f"{name} must be {' and '.join(allowed)}, not {given}.")
    return given


def generator_of(generator: Any) -> torch.Generator:
    """The generator itself; BadType for anything else, so that no draw ever comes from the global random state."""
    if not isinstance(generator, torch.Generator):
        raise BadType(f"a torch.Generator is needed as the source of randomness, not {type(generator).__name__}.")
    return generator
