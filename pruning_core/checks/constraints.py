"""What an argument must be, declared once: numbers, whole numbers, names, finite tensors; anything else is one clear sentence.

A constraint is a small value, and :func:`check` holds an argument against it. numpy's and torch's scalars are numbers like
Python's own and come out as those; a bool is no number, and NaN is never one that can be worked with.

>>> check("clip", "1", Maybe(Real(above=0)))
Traceback (most recent call last):
...
pruning_core.errors.BadType: clip must be a number, not '1'.
>>> check("over", "all", OneOf("all", "weights")), check("label", "x", Text()), check("folder", "results", Place())
('all', 'x', 'results')
>>> check("rounds", np.int64(3), Whole(at_least=1)), check("reference", plain(np.True_), Flag())
(3, True)
>>> check("network", "resnet", A(Tensor, "a tensor"))
Traceback (most recent call last):
...
pruning_core.errors.BadType: network must be a tensor, not 'resnet'.
>>> Constraints(rounds=Whole(at_least=1))["rounds"].at_least
1
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from pruning_core.errors import BadInput, BadType, known_name, shown

LARGEST = sys.float_info.max  # an int may lie beyond it
LONGEST_INT = 4096  # bits: Python itself writes no int of more than 4,300 digits
LONGEST_NAME = 255  # bytes of each part of a path, NAME_MAX of Linux
LONGEST_PATH = 4096  # bytes, PATH_MAX of Linux with the zero at its end


class Constraint(Protocol):
    """What a value must be.

    >>> class Even:
    ...     def check(self, name, value):
    ...         return value + value % 2
    >>> check("width", 3, Even())
    4
    """

    def check(self, name: str, value: Any) -> Any:
        """``value`` as plain Python; BadType or BadInput, naming it, if it is not what it must be."""


class Constraints(dict[str, Constraint]):
    """Field of a dataclass -> what its value must be."""


@dataclass(frozen=True)
class Real:
    """A number within its bounds, finite unless ``infinite``. An int stays an int; fields of dataclasses keep it as a float,
    unless it ``counts`` something of which there are halves, as of epochs.

    >>> check("lr", np.float32(0.5), Real(above=0)), check("lr", 1, Real(above=0))
    (0.5, 1)
    """

    kind: ClassVar[str] = "a number"
    types: ClassVar[tuple[type, ...]] = (int, float)

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    infinite: bool = False
    counts: bool = False

    def check(self, name: str, value: Any) -> Any:
        given = plain(value)
        if isinstance(given, bool) or not isinstance(given, int | float) or not isinstance(given, self.types):
            raise BadType(f"{name} must be {self.kind}, not {shown(given)}.")
        fits = self.at_least <= given <= self.at_most and (given > self.above or self.above == -math.inf)
        if isinstance(given, int) and self.infinite and given.bit_length() > LONGEST_INT:
            raise BadInput(f"{name} has more digits than can be written.")
        if not (fits and (given < self.below or self.below == math.inf) and (self.infinite or abs(given) <= LARGEST)):
            raise BadInput(f"{name} must {self._allowed()}, not {shown(given)}.")
        return given

    def _allowed(self) -> str:
        low, high = max(self.at_least, self.above), min(self.at_most, self.below)
        if math.isfinite(low) and math.isfinite(high):
            return f"lie in {'(' if self.above == low else '['}{low:g}, {high:g}{')' if self.below == high else ']'}"
        words = [] if self.infinite else ["finite"]
        if math.isfinite(low):
            words.append(f"{'above' if self.above == low else 'at least'} {low:g}")
        if math.isfinite(high):
            words.append(f"{'below' if self.below == high else 'at most'} {high:g}")
        return f"be {' and '.join(words) or 'a number other than NaN'}"


@dataclass(frozen=True)
class Whole(Real):
    """A whole number within its bounds; 2.0 is none."""

    kind = "a whole number"
    types = (int,)

    infinite: bool = True  # no int is infinite, also where it is larger than every float

    def _allowed(self) -> str:
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            return f"be between {self.at_least} and {self.at_most}"
        return f"be at least {self.at_least}" if math.isfinite(self.at_least) else f"be at most {self.at_most}"


class OneOf:
    """One of some names; ``kind`` is what the message calls them."""

    def __init__(self, *names: str, kind: str | None = None):
        self.names, self.kind = names, kind

    def check(self, name: str, value: Any) -> str:
        return known_name(self.kind or name, value, self.names)


class Flag:
    """True or False, and nothing that is only taken for one of them."""

    def check(self, name: str, value: Any) -> bool:
        given = plain(value)
        if not isinstance(given, bool):
            raise BadType(f"{name} must be True or False, not {shown(given)}.")
        return given


@dataclass(frozen=True)
class Text:
    """A text, which is not ``empty`` unless that is allowed, and which can be written to a file."""

    empty: bool = False

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadType(f"{name} must be a text, not {shown(value)}.")
        if not value and not self.empty:
            raise BadInput(f"{name} must not be empty.")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise BadInput(
                f"{name} holds half of a letter (a lone surrogate), which cannot be written: {shown(value)}."
            )
        return str.__str__(value)  # of the member of an enumeration, too, its text and not its name


class Place:
    """The path of a file or folder, as a text or as ``os.PathLike``; stays what it is."""

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
            raise BadType(f"{name} must be the path of a file or folder, not {shown(value)}.")
        try:
            stored = os.fsencode(value)
        except UnicodeEncodeError:
            stored = b""
        # Nothing there, control characters (the line break among them), or more than Linux opens.
        if not stored or min(stored) < 32 or len(stored) >= LONGEST_PATH:
            raise BadInput(f"{name} must be the path of a file or folder, not {shown(value)}.")
        if (longest := max(map(len, stored.split(b"/")))) > LONGEST_NAME:
            raise BadInput(
                f"{name} must be the path of a file or folder, not {shown(value)}: a name in it has {longest} bytes, and "
                f"{LONGEST_NAME} is the most."
            )
        return value


@dataclass(frozen=True)
class A:
    """An object of some type; ``kind`` is what the message calls it."""

    type: Any
    kind: str | None = None

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, self.type):
            raise BadType(f"{name} must be {self.kind or f'of type {self.type.__name__}'}, not {shown(value)}.")
        return value


_NUMBERS = frozenset({
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64,
})  # fmt: skip


class Dense:
    """A tensor whose real numbers can be read and worked with: not sparse, quantised, complex, without storage (``meta``), nor
    of a data type that torch only stores (float8).

    >>> check("scores", torch.ones(2).to_sparse(), Dense())
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: scores must be a dense tensor of real numbers, not one with the layout torch.sparse_coo.
    """

    def check(self, name: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise BadType(f"{name} must be a tensor of torch, not {shown(value)}.")
        if value.layout is not torch.strided:
            raise BadType(f"{name} must be a dense tensor of real numbers, not one with the layout {value.layout}.")
        if value.is_meta:
            raise BadType(f"{name} must be a dense tensor of real numbers, not one on 'meta', which holds none.")
        if value.dtype not in _NUMBERS:
            raise BadType(f"{name} must be a dense tensor of real numbers, not of {value.dtype}.")
        return value


class Device:
    """The name of a device of torch, or one of its devices; comes out as its name.

    >>> check("device", torch.device("cpu"), Device())
    'cpu'
    >>> check("device", "gpu", Device())
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: device must be a device of torch, such as 'cpu' or 'cuda:0', not 'gpu'.
    """

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str | torch.device):
            raise BadType(f"{name} must be a device of torch, such as 'cpu' or 'cuda:0', not {shown(value)}.")
        try:
            return str(torch.device(value))
        except RuntimeError:
            raise BadInput(
                f"{name} must be a device of torch, such as 'cpu' or 'cuda:0', not {shown(value)}."
            ) from None


SEED = Whole(0, 2**62)
"""What a seed must be: torch takes no larger one, and neighbours of it are seeds as well."""


@dataclass(frozen=True)
class Maybe:
    """None, or what the constraint asks for."""

    constraint: Constraint

    def check(self, name: str, value: Any) -> Any:
        return None if value is None else self.constraint.check(name, value)


@dataclass(frozen=True)
class Several:
    """A collection whose entries all fit the constraint, ``at_least`` so many and ``rising`` where asked; becomes a tuple.

    >>> check("milestones", [30, np.int64(60)], Several(Whole(at_least=1)))
    (30, 60)
    """

    constraint: Constraint
    at_least: int = 0
    rising: bool = False
    at_most: int | None = None

    def check(self, name: str, value: Any) -> tuple:
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            entries = tuple(value)
        except TypeError:
            raise BadType(f"{name} must be a list or another collection, not {shown(value)}.") from None
        found = tuple(self.constraint.check(f"each of {name}", entry) for entry in entries)
        if len(found) < self.at_least:
            raise BadInput(f"{name} must have a length of at least {self.at_least}, not {len(found)}.")
        if self.at_most is not None and len(found) > self.at_most:
            raise BadInput(f"{name} must have a length of at most {self.at_most}, not {len(found)}.")
        if self.rising and any(after <= before for before, after in pairwise(found)):
            raise BadInput(f"{name} must rise, each once, not {shown(found)}.")
        return found


def check(name: str, value: Any, constraint: Constraint) -> Any:
    """``value`` as plain Python if it fits the constraint; otherwise BadType or BadInput, naming it."""
    return constraint.check(name, value)


def plain(value: Any) -> Any:
    """``value``, a scalar of numpy or torch as the number of Python that it is; what has none, as a tensor on ``meta`` or a
    masked entry, stays what it is. The member of an enumeration of numbers comes out as its number, a long double
    with the digits that a float has."""
    if isinstance(value, np.longdouble):  # its item() is itself
        return float(value)
    if isinstance(value, int) and isinstance(value, Enum):
        return int.__int__(value)
    if not isinstance(value, np.generic | np.ndarray | Tensor) or value.ndim != 0:
        return value
    return value if value is np.ma.masked or (isinstance(value, Tensor) and value.is_meta) else value.item()
