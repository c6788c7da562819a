"""The arguments of a public function, held against what they must be before its first line runs.

What a parameter must be follows from its annotation (a number, a text, a network, a table, one of some names) and, for
numbers, from its name (:mod:`vocabulary`); other bounds are declared beside it, as in ``@checked(times=Whole(at_least=1))``.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks.constraints import (
    A,
    Constraint,
    Dense,
    Device,
    Flag,
    Maybe,
    OneOf,
    Place,
    Real,
    Several,
    Text,
    Whole,
)
from pruning_core.checks.vocabulary import NUMBERS
from pruning_core.errors import BadType, PruningError, shown

_Callable = TypeVar("_Callable", bound=Callable[..., Any])

_KINDS: dict[Any, Constraint] = {
    bool: Flag(),
    int: Whole(),
    float: Real(),
    str: Text(),
    torch.device: Device(),
    nn.Module: A(nn.Module, "a torch.nn.Module"),
    Tensor: Dense(),
    torch.Generator: A(torch.Generator, "a torch.Generator, the source of randomness,"),
    torch.dtype: A(torch.dtype, "a data type of torch"),
    np.ndarray: A(np.ndarray, "an array of numpy"),
}
_NUMBERS = (int, float, str)


@dataclass(frozen=True)
class AnyOf:
    """What one of several constraints takes; the message of the first is that of all, with what the others would take."""

    constraints: tuple[Constraint, ...]

    def check(self, name: str, value: Any) -> Any:
        refusals = []
        for constraint in self.constraints:
            if isinstance(constraint, OneOf) and not isinstance(value, str):
                continue
            try:
                return constraint.check(name, value)
            except PruningError as error:
                refusals.append(error)
        wanted = dict.fromkeys(
            str(error).removeprefix(f"{name} must be ").rpartition(", not ")[0] for error in refusals
        )
        if all(isinstance(error, BadType) for error in refusals) and all(wanted):
            raise BadType(f"{name} must be {', or '.join(wanted)}, not {shown(value)}.")
        raise next((error for error in refusals if not isinstance(error, BadType)), refusals[0])


@dataclass(frozen=True)
class Entries:
    """A collection; what a list, an array or a column of a table holds must fit ``constraint``. One that may be read only
    once stays as it is, unless the function wants a list (``held``) and may look at it again."""

    constraint: Constraint | None = None
    held: bool = False

    def check(self, name: str, value: Any) -> Any:
        fits = isinstance(value, Iterable) or (hasattr(value, "__getitem__") and not isinstance(value, type))
        if isinstance(value, str | bytes) or not fits or getattr(value, "ndim", 1) == 0:
            raise BadType(f"{name} must be a list or another collection, not {shown(value)}.")
        if isinstance(value, Tensor):
            Dense().check(name, value)
        if self.held and not hasattr(value, "__getitem__"):
            value = list(value)
        if self.constraint is not None and isinstance(value, Collection | Tensor):
            for entry in value:
                self.constraint.check(f"each of {name}", entry)
        return value


@dataclass(frozen=True)
class Named:
    """A mapping from names (or other keys) to values that fit the constraint."""

    keys: Constraint | None = None
    values: Constraint | None = None

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise BadType(f"{name} must be a mapping, such as a dictionary, not {shown(value)}.")
        for key, entry in value.items():
            if self.keys is not None:
                self.keys.check(f"each key of {name}", key)
            if self.values is not None:
                self.values.check(f"{name}[{shown(key)}]", entry)
        return value


@overload
def checked(function: _Callable, /) -> _Callable: ...
@overload
def checked(**declared: Constraint | None) -> Callable[[_Callable], _Callable]: ...
def checked(function: Any = None, /, **declared: Constraint | None) -> Any:
    """A function (or a class, by its ``__init__``) whose arguments are checked when it is called: BadType or BadInput.

    ``declared`` holds what annotations do not say, by parameter: bounds, names; None where the function has better words
    for what it refuses. Numbers of numpy and torch arrive as plain
    ones. The rest of the function may rely on all of that; what only the values together decide is its own to check.

    >>> @checked(times=Whole(at_least=1))
    ... def repeated(text: str, times: int = 2) -> str:
    ...     return text * times
    >>> repeated("ab", np.int64(3))
    'ababab'
    >>> repeated("ab", 0)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: times must be at least 1, not 0.
    """
    if function is None:
        return lambda given: checked_by(given, declared)
    return checked_by(function, {})


def checked_by(function: Any, declared: Mapping[str, Constraint | None]) -> Any:
    """What :func:`checked` makes of a function or class, with the constraints that are declared."""
    if isinstance(function, type):
        function.__init__ = checked_by(function.__init__, declared)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)
    if unknown := declared.keys() - signature.parameters.keys():
        raise TypeError(f"{function.__qualname__} has no parameter {sorted(unknown)[0]!r}.")
    constraints: dict[str, Constraint] = {}

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        if not constraints:  # at the first call: annotations may name what is imported later
            found = constraints_of(function) | dict(declared)
            constraints.update({name: constraint for name, constraint in found.items() if constraint is not None})
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError:
            return function(*arguments, **options)  # Python says best which argument is missing or one too many
        for name, value in bound.arguments.items():
            if name in constraints and not _is_default(value, signature.parameters[name].default):
                bound.arguments[name] = _held(constraints[name], signature.parameters[name], value)
        return function(*bound.args, **bound.kwargs)

    wrapper.declared = declared  # type: ignore[attr-defined]
    return wrapper


def _is_default(value: Any, default: Any) -> bool:
    return value is default and default is not inspect.Parameter.empty


def _held(constraint: Constraint, parameter: inspect.Parameter, value: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple(constraint.check(f"each of {parameter.name}", entry) for entry in value)
    if parameter.kind is parameter.VAR_KEYWORD:
        return {key: constraint.check(key, entry) for key, entry in value.items()}
    return constraint.check(parameter.name, value)


def constraints_of(function: Callable[..., Any]) -> dict[str, Constraint | None]:
    """What the annotations of a function's parameters say that these must be; nothing for those that say nothing."""
    found: dict[str, Constraint | None] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = _evaluated(parameter.annotation, function.__globals__)
        if annotation is str and isinstance(parameter.default, str) and parameter.default == "":
            found[name] = Text(empty=True)
        else:
            found[name] = _constraint(annotation, name)
    return found


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    own: dict[str, Any] = {}
    if "pd." in annotation or "pandas." in annotation:  # imported where a table is needed only
        import pandas

        own = {"pd": pandas, "pandas": pandas}
    try:
        return eval(annotation, names, own)
    except NameError:  # known to the type checker only
        return inspect.Parameter.empty


def _constraint(annotation: Any, name: str = "") -> Constraint | None:
    if annotation in (int, float) and type(NUMBERS.get(name)) is (Real if annotation is float else Whole):
        return NUMBERS[name]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return OneOf(*arguments) if all(isinstance(entry, str) for entry in arguments) else None
    if origin in (Union, types.UnionType):
        return _union(arguments, name)
    if origin in (collections.abc.Sequence, tuple, list, collections.abc.Iterable):
        return _collection(origin, arguments)
    if origin in (collections.abc.Mapping, dict):
        return Named(*(_constraint(kind) for kind in arguments))
    if origin is not None and isinstance(origin, type):
        annotation = origin  # Mapping[str, Tensor], Callable[[Any], Tensor]
    if annotation is collections.abc.Callable:
        return A(collections.abc.Callable, "a function")
    if annotation is collections.abc.Mapping:
        return Named()
    if not isinstance(annotation, type) or annotation in (Any, object, inspect.Parameter.empty):
        return None
    if issubclass(annotation, os.PathLike):
        return Place()
    return _KINDS.get(annotation, A(annotation, f"of type {annotation.__name__}"))


def _union(arguments: tuple[Any, ...], name: str) -> Constraint | None:
    kinds = [kind for kind in arguments if kind is not type(None)]
    if any(isinstance(kind, type) and issubclass(kind, os.PathLike) for kind in kinds):
        kinds = [kind for kind in kinds if kind is not str]
    if torch.device in kinds:
        kinds = [kind for kind in kinds if kind is not str]
    constraints = sorted(
        (_constraint(kind, name) for kind in kinds), key=lambda one: isinstance(one, Several)
    )  # arrays stay
    if not all(constraints):
        return None
    one = constraints[0] if len(constraints) == 1 else AnyOf(tuple(c for c in constraints if c is not None))
    return Maybe(one) if one is not None and len(kinds) < len(arguments) and type(None) in arguments else one


def _collection(origin: Any, arguments: tuple[Any, ...]) -> Constraint:
    entries = {kind for kind in arguments if kind is not Ellipsis}
    kind = entries.pop() if len(entries) == 1 else None
    if kind in _NUMBERS:
        constraint = Real() if kind is float else _KINDS[kind]
        length = len(arguments) if origin is tuple and Ellipsis not in arguments else None
        return Several(constraint, at_least=length or 0, at_most=length)
    return Entries(_constraint(kind), held=origin is not collections.abc.Iterable)
