"""Fields of a dataclass that normalise what they are given, typed as what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

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
