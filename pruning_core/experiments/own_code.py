"""What of an experiment is its writer's own, as hashes: with other code or other images, its old records are void."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, known_name, said, shown
from pruning_core.experiments.identities import identity, is_of_the_package
from pruning_core.experiments.stages import Prune
from pruning_core.masks.schedules import SCHEDULES
from pruning_core.models.build import MODELS
from pruning_core.models.own import OwnBuilder
from pruning_core.records.checkpoints import describe_whole
from pruning_core.training.losses import Loss


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
        if not is_of_the_package(getattr(getattr(build, "func", build), "__module__", None)):
            found["network"] = identity(build)
    if fingerprint := DATASETS[known_name("data set", data, DATASETS)].fingerprint:
        found["data"] = fingerprint
    return found


def own_kinds(value: Any) -> dict[str, list[str]]:
    """The code of the methods, schedules and other classes within ``value`` that are not this package's, in the order in which
    they stand there: edit one in a notebook, and its old records are void."""
    found: dict[str, list[str]] = {}
    for kind in _kinds(value):
        if not is_of_the_package(kind.__module__):
            found.setdefault(kind.__qualname__, []).append(identity(kind))
    return found


def _kinds(value: Any) -> Iterator[type | Callable[..., float]]:
    """The classes of the dataclasses that enter a content hash, and the functions of the schedules that cuts follow."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        if isinstance(value, Prune) and isinstance(value.schedule, str):
            yield SCHEDULES[value.schedule]
        for field in dataclasses.fields(value):
            yield from _kinds(getattr(value, field.name))
    elif isinstance(value, list | tuple | Mapping):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _kinds(entry)


def loss_identity(loss: str | Loss) -> Any:
    """What a loss is, as JSON: its name; or the values that it holds, and its code where that belongs to no package."""
    if isinstance(loss, str):
        return loss
    inner = getattr(loss, "func", loss)  # of a functools.partial
    inner = getattr(inner, "__func__", inner)  # of a bound method
    kind: Any = inner if hasattr(inner, "__qualname__") else type(inner)
    held = describe_whole(loss)
    if kind.__module__.partition(".")[0] in ("torch", "pruning_core", "builtins"):
        return [f"{kind.__module__}.{kind.__qualname__}", held]
    return [loss_name(loss), identity(loss)]


def loss_name(loss: str | Loss) -> str:
    """How rows call a loss."""
    return loss if isinstance(loss, str) else str(getattr(loss, "__qualname__", type(loss).__qualname__))
