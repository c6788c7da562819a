"""What code of one's own is, as a hash: functions and classes by what they do and by the values that they hold."""

import dataclasses
import dis
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import plain
from pruning_core.errors import BadInput
from pruning_core.records.checkpoints import describe
from pruning_core.records.hashes import digest

_INSTALLED = {"site-packages", "dist-packages"}
_HELD_BY_WRAPPERS = ("fget", "fset", "fdel", "func", "args", "keywords", "__func__", "__wrapped__")
"""Where properties, static and class methods and what functools makes keep what they wrap."""


def identity(thing: Any) -> str:
    """16 hexadecimal characters, the same for the same code with the same values in whatever process it is compiled.

    Of functions enter code, defaults and captured values, and of the global names that they use the values; of classes all
    members and parents; of partials, methods and objects what they hold. What Python, this package or an installed one
    defines enters by its name, other than what belongs to the module of ``thing`` itself. Raises BadInput where values are
    held within each other too deeply.

    >>> identity(lambda x: x + 1) == identity(lambda x: x + 1), identity(lambda x: x + 1) == identity(lambda x: x + 2)
    (True, False)
    """
    try:
        return _Reader(_module(thing)).read(thing)
    except RecursionError as error:
        raise BadInput("code of your own holds values within each other too deeply for a content hash.") from error


def is_of_the_package(module: str | None) -> bool:
    """Whether a module of that name is one of this package.

    >>> is_of_the_package("pruning_core.data"), is_of_the_package("pruning_core_extras")
    (True, False)
    """
    return (module or "").partition(".")[0] == "pruning_core"


def code_text(code: CodeType) -> str:
    """A function's compiled code as text: the same for the same code, whenever it is compiled."""
    constants = [
        code_text(c) if isinstance(c, CodeType) else repr(sorted(c, key=repr) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return f"{code.co_code.hex()} {code.co_exceptiontable.hex()} {constants} {code.co_names} {arguments}"


class _Reader:
    """Reads each object once, so that those that hold each other come to an end."""

    def __init__(self, near: str):
        self.near = near  # the module whose code is read in any case
        self.seen: dict[int, tuple[Any, str]] = {}  # with the objects: no other gets the number of one that is gone

    def read(self, thing: Any) -> str:
        if id(thing) not in self.seen:
            self.seen[id(thing)] = (thing, "itself")
            self.seen[id(thing)] = (thing, digest(self._parts(thing))[:16])
        return self.seen[id(thing)][1]

    def _parts(self, thing: Any) -> Any:
        """What makes up a thing, as JSON types."""
        thing = plain(thing)
        if isinstance(thing, Tensor):
            dense = thing.layout is torch.strided and not (thing.is_meta or thing.is_quantized)
            return ["tensor", describe(thing) if dense else repr(thing)]
        if isinstance(thing, np.ndarray):
            values = [self.read(v) for v in thing.flat] if thing.dtype.hasobject else thing.tobytes().hex()
            return ["array", str(thing.dtype), list(thing.shape), values]
        if isinstance(thing, list | tuple):
            return ["list", *map(self.read, thing)]
        if isinstance(thing, set | frozenset):
            return ["set", *sorted(map(self.read, thing))]
        if isinstance(thing, Mapping):
            return ["mapping", *([self.read(key), self.read(value)] for key, value in thing.items())]
        if isinstance(thing, functools.partial):
            return ["partial", *map(self.read, (thing.func, thing.args, _sorted(thing.keywords)))]
        if isinstance(thing, MethodType):
            return ["method", self.read(thing.__func__), self.read(thing.__self__)]
        if isinstance(thing, FunctionType | type):
            if self._is_own(thing):
                return self._function(thing) if isinstance(thing, FunctionType) else self._class(thing)
            wrapped = vars(thing).get("__wrapped__") if isinstance(thing, FunctionType) else None
            return ["name", f"{thing.__module__}.{thing.__qualname__}", self.read(wrapped)]
        return self._object(thing)

    def _function(self, function: FunctionType) -> Any:
        code, names = function.__code__, function.__globals__
        held = {name: names[name] for name in _global_names(code) if name in names}
        held |= {name: value for name, cell in _cells(function) for value in _content(cell)}
        for name, module in [
            pair for pair in held.items() if isinstance(pair[1], ModuleType) and self._is_own(pair[1])
        ]:
            used = {*_attribute_names(code)} & vars(module).keys()  # what the function can only mean of it
            held |= {f"{name}.{attribute}": vars(module)[attribute] for attribute in used}
        given = (function.__defaults__, _sorted(function.__kwdefaults__ or {}), _sorted(vars(function)), _sorted(held))
        return ["function", code_text(code), *map(self.read, given)]

    def _class(self, kind: type) -> Any:
        code = FunctionType | property | classmethod | staticmethod
        members = {
            name: self.read(member)
            for name, member in sorted(vars(kind).items())
            if isinstance(member, code) or not (name.startswith("__") or name == "_abc_impl")
        }
        return ["class", [self.read(base) for base in kind.__bases__], members]

    def _object(self, thing: Any) -> Any:
        """An object of one's own, a dataclass or a network by its values; another one by what it says of itself."""
        kind = type(thing)
        if isinstance(thing, ModuleType):
            return ["module", thing.__name__]
        if dataclasses.is_dataclass(thing):
            values = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        elif isinstance(thing, nn.Module) or self._is_own(kind):
            values = _slots(thing) | getattr(thing, "__dict__", {})
        else:
            said = repr(thing)
            wrapped = _HELD_BY_WRAPPERS if kind.__module__ in ("builtins", "functools") else ()
            held = [self.read(getattr(thing, name, None)) for name in wrapped]
            return ["value", self.read(kind), "" if " at 0x" in said else said, held]
        return ["object", self.read(kind), self.read(_sorted(values))]

    def _is_own(self, thing: Any) -> bool:
        module = _module(thing)
        if module == self.near:
            return True
        top = module.partition(".")[0]
        if is_of_the_package(module) or top in sys.stdlib_module_names or top == "torch":
            return False
        file = getattr(sys.modules.get(module) or sys.modules.get(top), "__file__", None)
        return file is None or _INSTALLED.isdisjoint(Path(file).parts)


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in sorted(values.items(), key=lambda pair: str(pair[0]))}


def _slots(thing: Any) -> dict[str, Any]:
    """The values of an object that has slots."""
    given = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    names = [name for slots in given for name in ([slots] if isinstance(slots, str) else slots)]
    return {name: getattr(thing, name) for name in names if hasattr(thing, name) and not name.startswith("__")}


def _module(thing: Any) -> str:
    """The module whose code a thing is; that of a function which a decorator has made is the decorator's."""
    while isinstance(thing, functools.partial | MethodType):
        thing = thing.func if isinstance(thing, functools.partial) else thing.__func__
    if isinstance(thing, FunctionType):
        return str(thing.__globals__.get("__name__"))
    if isinstance(thing, ModuleType):
        return thing.__name__
    return str(getattr(thing if isinstance(thing, type) else type(thing), "__module__", None))


def _cells(function: FunctionType) -> Iterable[tuple[str, CellType]]:
    return zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)


def _content(cell: CellType) -> list[Any]:
    """The captured value, if there is one already."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _global_names(code: CodeType) -> Iterator[str]:
    """The global names that a function's code and the functions inside it use."""
    yield from (str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _attribute_names(code: CodeType) -> Iterator[str]:
    """All names in a function's code and the functions inside it, those of attributes among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _attribute_names(constant)
