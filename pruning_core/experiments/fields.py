"""Fields of a dataclass that normalise what they are given, typed as what they keep; what penalties and patterns become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from pruning_core.checks import A, Real, Several, Text, check
from pruning_core.errors import BadInput, BadType
from pruning_core.methods.base import Method, as_method

Penalty = tuple[str | Method, float]
Penalties = tuple[tuple[Method, float], ...] | None

_Given = TypeVar("_Given")
_Kept = TypeVar("_Kept")


class Becomes(Generic[_Given, _Kept]):
    """A field of a dataclass that takes what is handy to write, and keeps what it stands for: a name becomes a method."""

    def __init__(self, convert: Callable[[_Given], _Kept], **default: Any):
        self.convert, self.default = convert, default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> _Kept:
        if instance is None and not self.default:
            raise AttributeError(self.name)  # so a dataclass learns that the field has no default
        return self.default["default"] if instance is None else vars(instance)[self.name]

    def __set__(self, instance: object, value: _Given) -> None:
        vars(instance)[self.name] = self.convert(value)


def penalties(given: Penalty | Iterable[Penalty] | None) -> Penalties:
    """Pairs (method, strength): of one pair, or of several."""
    if given is None:
        return None
    pairs = check("a penalty", given, Several(A(object), at_least=1))
    pairs = pairs if isinstance(pairs[0], tuple | list) else (pairs,)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise BadType("a penalty is a pair (method, strength), or several such pairs.")
    strength = Real(at_least=0)
    found = tuple((as_method(method), float(check("the strength of a penalty", s, strength))) for method, s in pairs)
    for method, _ in found:
        if type(method).penalty is Method.penalty:
            raise BadInput(f"{method.name!r} has no penalty; it cannot be used as one in training.")
    return found


def patterns(given: str | Iterable[str] | None) -> Any:
    """Patterns on names of layers as a tuple; a text alone, which is a name of parts, stays."""
    if given is None or isinstance(given, str):
        return given and str(given)
    return check("patterns", given, Several(Text(), at_least=1))


def scope_of(given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The patterns of a scope; a text alone is one of them, as in prune().

    >>> scope_of("fc*"), scope_of(["fc1", "fc2"]), scope_of(None)
    (('fc*',), ('fc1', 'fc2'), None)
    """
    return patterns([given] if isinstance(given, str) else given)
