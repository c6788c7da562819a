"""What several commands share: options, values as YAML, examples under the help."""

import os
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pruning_core.checks import Place, Whole, check
from pruning_core.data.own import named_data
from pruning_core.errors import BadInput, known_name, shown
from pruning_core.experiments.besides import Besides
from pruning_core.experiments.engine import MANY
from pruning_core.experiments.own_code import own_object
from pruning_core.experiments.watching import Watch
from pruning_core.records.places import check_folder, located
from pruning_core.records.values import read_document, read_value
from pruning_core.training.losses import LOSSES
from pruning_core.version import PROFILES

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command(name: str, example: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose help ends with an example; its text is the docstring of the function."""
    context = CONTEXT | settings.pop("context_settings", {})
    epilog = f"Example: python -m pruning_core {example}"
    return click.command(name, epilog=epilog, context_settings=context, **settings)


def profile(default: str) -> Decorator:
    return click.option("--profile", default=default, show_default=True, help=f"one of {', '.join(PROFILES)}")


class PathOf(click.Path):
    """A path that can be one: click takes an empty one for the working directory, and a zero byte to the file system."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(check(param.opts[-1] if param else "a path", value, Place()), param, ctx)


def alone(option: str, *beside: str) -> None:
    """BadInput where anything is typed that ``option`` does not look at: all but itself and the parameters ``beside`` it."""
    context = click.get_current_context()
    for parameter in context.command.params:
        typed = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if typed and option not in parameter.opts and parameter.name not in beside:
            name = (
                parameter.opts[-1]
                if isinstance(parameter, click.Option)
                else shown(context.params[str(parameter.name)])
            )
            raise BadInput(f"{option} runs nothing, so that {name} changes nothing: leave one of them out.")


parameters = click.option(
    "-p", "parameters", nargs=2, type=(str, str), metavar="NAME VALUE", multiple=True,
    help="set a parameter, its value as YAML; may be given several times, each with another name",
)  # fmt: skip


files = click.option(
    "-f", "files", type=PathOf(path_type=Path), multiple=True,
    help="parameters from a file of YAML, as papermill -f; a later file wins, and -p wins over all of them",
)  # fmt: skip


def given(pairs: Iterable[tuple[str, str]], files: Iterable[Path] = ()) -> dict[str, Any]:
    """``-f file`` and ``-p name value`` as parameters; a value is read as YAML, as papermill does, and 1e-4 is a number.
    Raises BadInput for a name that is given twice."""
    found: dict[str, Any] = {}
    for file in files:
        found |= read_document(file)
    typed: dict[str, Any] = {}
    for name, value in pairs:
        if name in typed:
            raise BadInput(f"-p {name} is given twice: {shown(typed[name])} and {shown(value)}; give it once.")
        typed[name] = value
    return found | {name: read_value(value, "a value of -p") for name, value in typed.items()}


_RUNNING: tuple[Decorator, ...] = (
    click.option("--width", type=float, help="factor on the number of channels of every layer"),
    click.option("--limit", type=int, help="as if the data set had so many images; the test set stays whole"),
    click.option("--seeds", type=int, help="how many networks, from as many seeds"),
    click.option("--device", default="cpu", show_default=True, help="where to compute: cpu, cuda, cuda:1"),
    click.option(
        "--root", type=PathOf(path_type=Path), help="folder of the data sets (default $PRUNING_DATA, else the cache)"
    ),
    click.option(
        "--workers", help="processes of this machine, where there are several experiments; or the address of a dask scheduler"
    ),
    click.option(
        "--out",
        type=PathOf(path_type=Path),
        help="folder for rows, figures, curves and the report (official: in the cache)",
    ),
    click.option("--loss", help="mse, hinge, or MODULE:FUNCTION of your own, in place of cross-entropy"),
    click.option("--network", type=PathOf(path_type=Path), help="begin with the network of this file, saved by save_network"),
    click.option("--measure-cuts", is_flag=True, help="measure right before and right after each cut, where there is one"),
    click.option(
        "--max-minutes", "--max_training_minutes", "max_minutes", type=float,
        help="stop at a checkpoint after so many minutes (exit status 75); the same command goes on",
    ),
    click.option(
        "--watch", type=PathOf(path_type=Path),
        help="folder for a table of all epochs and for TensorBoard (official: `watch` in --out)",
    ),
    click.option("--tags", help="whose names numbers have in TensorBoard: snipit, sipp (official: the setting's own)"),
    click.option("--histograms", type=int, metavar="K", help="watch the weights of all layers, every K epochs"),
    click.option(
        "--pictures", type=int, metavar="K",
        help="watch the pictures that the tags have (snipit), every K epochs",
    ),
    click.option("--sign-flips", "--track_weights", "sign_flips", is_flag=True, help="watch which weights change sign"),
    click.option("--elasticities", type=int, metavar="K", help="watch the elasticities of the weights, every K epochs"),
    click.option("--no-tensorboard", is_flag=True, help="watch without TensorBoard: tables only"),
)  # fmt: skip


def running(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that run experiments."""
    for option in reversed(_RUNNING):
        function = option(function)
    return function


def named_images(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """What --data names: a set, or a folder of images, which gets the folder's name."""
    if text is not None and os.sep in text:
        check("--data", text, Place())
    return None if text is None else named_data(text)


TAGS = {"snipit": "papers.snipit OfficialTags", "sipp": "papers.sipp_pfp SippTags"}
"""Whose names numbers can have in TensorBoard -> where they are made."""


def besides(options: dict[str, Any], folder: Path | None = None, tags: str | None = None) -> Besides:
    """What is asked for by those options that every experiment takes, which are taken out of ``options``; ``folder`` and
    ``tags`` where nothing else is asked for."""
    watch, named = options.pop("watch"), options.pop("tags")
    asked = {name: options.pop(name) for name in ("histograms", "pictures", "sign_flips", "elasticities")}
    tables_only = options.pop("no_tensorboard")
    watched = None
    if tables_only or any(value is not None and value is not False for value in (watch, named, *asked.values())):
        place = watch or folder
        if place is None:
            raise BadInput("give the folder to write to, --watch FOLDER, where something is to be watched.")
        named = tags if named is None and not tables_only else named
        found: Any = None
        if named is not None:
            room, name = TAGS[known_name("tags", named, TAGS)].split()
            found = getattr(import_module(f"pruning_core.{room}"), name)
        watched = Watch(place, tags=found, tensorboard=not tables_only, **asked)
    loss = options.pop("loss")
    return Besides(loss and _loss(loss), options.pop("network"), options.pop("measure_cuts"), watched)


def _loss(text: str) -> Any:
    """A loss of the book by its name, or a function MODULE:FUNCTION."""
    if ":" not in text:
        return known_name("loss", text, LOSSES)
    return own_object("loss", text)


def use_root(root: Path | None) -> None:
    """Data sets lie in ``root`` from now on, for workers as well, which inherit the variable."""
    if root is not None:
        os.environ["PRUNING_DATA"] = str(check_folder("--root", located("--root", root)))


def address_of(text: str, name: str) -> str:
    """The address of a dask scheduler as it was typed; BadInput for what cannot be one."""
    if not text.isprintable() or not re.fullmatch(r"[a-z]+://\S+|[^\s:/]+:[0-9]{1,5}", text):
        raise BadInput(f"{name} must be the address of a dask scheduler, such as tcp://host:8786, not {shown(text)}.")
    return text


def workers_of(text: str | None) -> int | str | None:
    """A number of processes, or an address."""
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text):
        return check("--workers", int(text), Whole(1, MANY))
    try:
        return address_of(text, "--workers")
    except BadInput:
        raise BadInput(
            f"--workers must be a number of processes, or the address of a dask scheduler, not {shown(text)}."
        ) from None
