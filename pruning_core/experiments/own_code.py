"""What of an experiment is its writer's own, as hashes: with other code or other images, its old records are void."""

from collections.abc import Iterable
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, said, shown
from pruning_core.models.build import MODELS
from pruning_core.models.own import OwnBuilder
from pruning_core.records.checkpoints import describe
from pruning_core.records.hashes import content_hash
from pruning_core.training.losses import Loss

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def own_object(kind: str, text: str) -> Any:
    """What ``module:attribute`` names, of a module that Python finds. Raises BadInput, in one sentence, for what is no such
    path, and for a module that cannot be imported, whatever it raises.

    >>> own_object("loss", "math:tau")
    6.283185307179586
    >>> own_object("loss", "..losses:mine")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: a loss of your own is named as module:function, such as my_losses:halved, not '..losses:mine'.
    """
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise BadInput(
            f"a {kind} of your own is named as module:function, such as my_losses:halved, not {shown(text)}."
        )
    try:
        return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a module runs when it is imported, and may do whatever it likes
        raise BadInput(f"there is no {kind} {shown(text)}: {said(error).rstrip('.')}.") from error


def own_parts(model: str, data: str) -> dict[str, str]:
    """The code behind a network and the images behind a data set, where they are not the book's; else nothing."""
    found: dict[str, str] = {}
    if model in MODELS:
        build: Any = MODELS[model].build
        build = build.build if isinstance(build, OwnBuilder) else build
        if not _of_the_package(build):
            found["network"] = content_hash(_texts(build, set()))
    if fingerprint := DATASETS[data].fingerprint:
        found["data"] = fingerprint
    return found


def loss_identity(loss: str | Loss) -> Any:
    """What a loss is, as JSON: its name; or the values that it holds, and its code where that belongs to no package."""
    if isinstance(loss, str):
        return loss
    inner = getattr(loss, "func", loss)  # of a functools.partial
    inner = getattr(inner, "__func__", inner)  # of a bound method
    kind: Any = inner if hasattr(inner, "__qualname__") else type(inner)
    held = describe(loss)
    if hasattr(loss, "__dict__") and held == {"type": type(loss).__qualname__}:  # an object of a plain class
        held |= describe(vars(loss))
    if kind.__module__.partition(".")[0] in ("torch", "pruning_core", "builtins"):
        return [f"{kind.__module__}.{kind.__qualname__}", held]
    return [held, _texts(kind, set())]


def loss_name(loss: str | Loss) -> str:
    """How rows call a loss."""
    return loss if isinstance(loss, str) else str(getattr(loss, "__qualname__", type(loss).__qualname__))


def code_text(code: CodeType) -> str:
    """A function's compiled code as text: the same for the same code, whenever it is compiled."""
    constants = [
        code_text(c) if isinstance(c, CodeType) else repr(sorted(c, key=repr) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def _of_the_package(thing: Any) -> bool:
    module = getattr(getattr(thing, "func", thing), "__module__", None) or ""
    return module == "pruning_core" or module.startswith("pruning_core.")


def _texts(thing: Any, seen: set[int]) -> list[str]:
    """The code of a function or class, and of those of its own module that it names, with plain values that it names."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, type):
        members = [vars(thing)[name] for name in sorted(vars(thing))]
        functions = [getattr(member, "__func__", member) for member in members]
        parents = [base for base in thing.__bases__ if base.__module__ == thing.__module__]
        return [
            text
            for part in (*functions, *parents)
            if isinstance(part, (FunctionType, type))
            for text in _texts(part, seen)
        ]
    function = getattr(thing, "func", thing)
    if not isinstance(function, FunctionType):
        return [repr(type(thing))]
    cells = dict(
        zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=False)
    )
    named = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    texts = [code_text(function.__code__), repr([d for d in function.__defaults__ or () if isinstance(d, PLAIN)])]
    for name, value in sorted((named | cells).items()):
        if isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(v, PLAIN) for v in value)):
            texts.append(f"{name}={value!r}")
        elif isinstance(value, (FunctionType, type)) and value.__module__ == function.__module__:
            texts += _texts(value, seen)
    return texts


def _names(code: CodeType) -> Iterable[str]:
    """The global names that a function's code and the functions inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
