"""Networks of one's own under a name, beside those of the papers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput, BadType, named_failures
from pruning_core.models.build import MODELS, shape_and_classes
from pruning_core.models.cost import count_parameters
from pruning_core.models.zoo.base import NORMS, ModelInfo, Shape
from pruning_core.records.places import check_name

CHOICES = ("shape", "classes", "width", "norm")


@dataclass(frozen=True)
class OwnBuilder:
    """What a user's function or class builds; it is handed those of the four choices that it has parameters for."""

    name: str
    build: Callable[..., nn.Module]
    takes: tuple[str, ...]
    shape: Shape
    classes: int

    def __call__(self, shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        given = {"shape": shape, "classes": classes, "width": width, "norm": norm}
        usual = {"shape": self.shape, "classes": self.classes, "width": 1.0, "norm": "batch"}
        for choice in CHOICES:
            if choice not in self.takes and given[choice] != usual[choice]:
                raise BadInput(
                    f"network {self.name!r} is built with {choice}={usual[choice]!r} only, as its builder has no parameter "
                    f"{choice!r}."
                )
        with named_failures(f"the builder of network {self.name!r}"):
            model = self.build(**{choice: given[choice] for choice in self.takes})
        if not isinstance(model, nn.Module):
            raise BadType(
                f"the builder of network {self.name!r} must return a torch.nn.Module, not {type(model).__name__}."
            )
        return model


@checked
def register_model(name: str, data: Any, build: Callable[..., nn.Module] | None = None, *, smallest: int = 1) -> Any:
    """Give a network of your own a name, for build_model, Experiment and the command line of this process.

    ``build`` is a function or a class; with name and data alone this is a decorator of it. It is called with those of
    ``shape`` (C, H, W), ``classes``, ``width`` (a factor on channels) and ``norm`` ("batch", "sigmoid", "none") that it has
    parameters for, by name; what it does not take is fixed, and asking for anything else is refused. Its weights are as it
    leaves them: build_model's seed governs what torch draws meanwhile.

    ``data`` is what it is for, as in build_model: the name of a set, loaded data, or ((C, H, W), classes). It is built and
    shown one image of that at once. ``smallest``: height and width of the smallest image that passes.

    Returns ``build``. Raises BadInput for a name that the book's networks have, and for a network that does not map images
    (N, C, H, W) to (N, classes). A network of yours may be registered again.

    >>> register_model("one_layer", ((1, 4, 4), 2), lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))  # doctest: +ELLIPSIS
    <function ...
    >>> MODELS.pop("one_layer").parameters
    34
    """
    name, smallest = check_name("a network", name), check("smallest", smallest, Whole(at_least=1))
    if name.startswith("torchvision/") or (name in MODELS and not isinstance(MODELS[name].build, OwnBuilder)):
        raise BadInput(f"the name {name!r} is taken by a network of the book.")
    shape, classes = shape_and_classes(data)
    if build is None:
        return lambda builder: register_model(name, data, builder, smallest=smallest)
    if not callable(build):
        raise BadType(f"a network is given as a function or class that builds it, not as {type(build).__name__}.")
    own = OwnBuilder(name, build, _takes(name, build), shape, classes)
    with torch.random.fork_rng(devices=[]):
        model = own(shape, classes, 1.0, "batch")
        _check_output(name, model, shape, classes)
        _check_new(name, model, own(shape, classes, 1.0, "batch"))
    norms = NORMS if "norm" in own.takes else ("batch",)
    about = (inspect.getdoc(build) or "").partition("\n")[0]
    MODELS[name] = ModelInfo(own, _as_it_is, "yours", about, count_parameters(model), shape, classes, norms, smallest)
    return build


def _as_it_is(model: nn.Module) -> None:
    """The initial weights are those of the builder."""


def _takes(name: str, build: Callable[..., nn.Module]) -> tuple[str, ...]:
    """Which of the choices the builder has parameters for; every other parameter must have a default."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError) as error:
        raise BadType(f"the parameters of the builder of network {name!r} cannot be told: {error}.") from error
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise BadInput(
            f"the builder of network {name!r} takes any keyword; name what it takes of {', '.join(CHOICES)}."
        )
    for p in parameters:
        if p.name not in CHOICES and p.default is p.empty and p.kind is not p.VAR_POSITIONAL:
            raise BadInput(
                f"the builder of network {name!r} has a parameter {p.name!r} without a default; it is called with "
                f"{', '.join(CHOICES)} only."
            )
        if p.name in CHOICES and p.kind is p.POSITIONAL_ONLY:
            raise BadInput(f"the builder of network {name!r} must take {p.name!r} by name.")
    return tuple(choice for choice in CHOICES if choice in {p.name for p in parameters})


def _check_output(name: str, model: nn.Module, shape: Shape, classes: int) -> None:
    """One image goes through, and as many numbers come out as there are classes."""
    try:
        with torch.no_grad():
            output = model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise BadInput(f"network {name!r} does not take images of shape {shape}: {why}.") from error
    if not isinstance(output, torch.Tensor) or output.shape != (1, classes):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise BadInput(f"network {name!r} must give (1, {classes}) for one image of shape {shape}, but gives {found}.")


def _check_new(name: str, model: nn.Module, other: nn.Module) -> None:
    """There is something to train, and what one run trains is not where the next one begins."""
    held = {id(parameter) for parameter in model.parameters()}
    if not held:
        raise BadInput(f"network {name!r} has no parameters, so there is nothing to train or to prune.")
    if held & {id(parameter) for parameter in other.parameters()}:
        raise BadInput(f"the builder of network {name!r} must make new layers each time: it gave the same ones twice.")
