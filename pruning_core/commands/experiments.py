"""Experiments from the shell: every recipe of the catalogue, with the settings of an Experiment."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from pruning_core.checks import check
from pruning_core.commands.options import (
    besides,
    command,
    given,
    named_images,
    parameters,
    profile,
    running,
    use_root,
    workers_of,
)
from pruning_core.errors import BadInput, BadType, known_name
from pruning_core.experiments import Experiment, recipes, run, run_all
from pruning_core.experiments.asked import SEEDS
from pruning_core.experiments.stages import Prune
from pruning_core.records.places import RESULTS, check_folder
from pruning_core.records.values import read_value
from pruning_core.training.optimizers import LearningRate, Optimizer

SHOWN = ("label", "method", "seed", "sparsity", "accuracy", "seconds")


def timeline_of(name: str, values: Mapping[str, Any]) -> recipes.Timeline:
    """The timeline of a recipe with these arguments; one sentence for what it does not take, needs or cannot use.

    >>> timeline_of("dense", {"epochs": 3})[0].epochs
    3
    """
    recipe = recipes.RECIPES[known_name("recipe", name, recipes.RECIPES)]
    takes = inspect.signature(recipe).parameters
    named = {n: p for n, p in takes.items() if p.kind is not p.VAR_KEYWORD}
    own = {"method", "budget"}  # of a Prune that the recipe sets itself
    further = {f.name for f in fields(Prune)} - own if len(named) < len(takes) else set()
    for argument in values:
        known_name(f"argument of {name}", argument, {*named, *further})
    if missing := [n for n, p in named.items() if p.default is p.empty and n not in values]:
        raise BadInput(f"{name} needs {', '.join(missing)}: give each as -p NAME VALUE.")
    typed = {n: _typed(n, value, named.get(n)) for n, value in values.items()}
    try:
        return recipe(**typed)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadInput | BadType):
            raise
        raise BadInput(f"{name} cannot work with {_shown(values)}: {' '.join(str(error).split())}") from error


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _typed(name: str, value: Any, parameter: inspect.Parameter | None) -> Any:
    """A mapping where the recipe takes an Optimizer becomes one; lists become tuples, which timelines hold."""
    if parameter is not None and "Optimizer" in str(parameter.annotation) and value is not None:
        return settings_of(Optimizer, "name", value, name)
    return tuple(value) if isinstance(value, list) else value


def settings_of(kind: Callable[..., Any], main: str, value: Any, name: str) -> Any:
    """A value object from a text, its main field, or from a mapping of its fields.

    >>> settings_of(LearningRate, "kind", {"kind": "multistep", "milestones": [2]}, "--learning-rate").milestones
    (2,)
    """
    given = value if isinstance(value, Mapping) else {main: value}
    for field in given:
        known_name(f"field of {name}", field, [f.name for f in fields(kind)])  # type: ignore[arg-type]
    return kind(**{field: tuple(v) if isinstance(v, list) else v for field, v in given.items()})


def _setting(kind: Callable[..., Any], main: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        name = parameter.opts[-1]
        return None if text is None else settings_of(kind, main, read_value(text, name), name)

    return callback


@command(
    "run", "run cascade -p method sipp -p kept '[0.5, 0.2]' -p epochs 4 -p retrain 2 --optimizer '{name: sgd, lr: 0.1}'"
)
@click.argument("recipe")
@parameters
@profile("quick")
@click.option("--model", default="lenet300", show_default=True, help="a network (command models)")
@click.option(
    "--data", default="mnist5k", show_default=True, callback=named_images,
    help="a data set (command data), or a folder of pictures",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="of the first network")
@click.option("--norm", help="kind of norm layers: batch, sigmoid, none")
@click.option("--optimizer", callback=_setting(Optimizer, "name"), help="adam, or '{name: adam, lr: 0.002, clip: 10}'")
@click.option(
    "--learning-rate", callback=_setting(LearningRate, "kind"),
    help="cosine, or '{kind: multistep, milestones: [30, 45], gamma: 0.1, warmup: 5}'",
)  # fmt: skip
@click.option("--batch-size", type=int, help="images a step (default 128)")
@click.option("--normalise", help="whose constants, such as cifar10/snipit")
@click.option("--augment", help="whose augmentation, such as cifar10/how_sparse")
@click.option("--precision", help="float32, bfloat16, or auto: what the device is fast in")
@running
def run_command(recipe: str, parameters: Any, seed: int, seeds: int | None, **options: Any) -> None:
    """Run a recipe, or read its record if it has run: one row a measurement.

    RECIPE is a pipeline of the catalogue (pruning_core.experiments.recipes), -p sets its arguments.
    """
    use_root(options.pop("root"))
    if options["out"] is not None:
        check_folder("--out", options["out"], RESULTS)
    out, workers, minutes = options.pop("out"), workers_of(options.pop("workers")), options.pop("max_minutes")
    asked = besides(options)
    timeline = timeline_of(recipe, given(parameters))
    settings = {name: value for name, value in options.items() if value is not None}
    several = 1 if seeds is None else check("--seeds", seeds, SEEDS)
    planned = [
        asked.asked_of(Experiment(timeline=timeline, seed=seed + i, tags={"recipe": recipe}, **settings))
        for i in range(several)
    ]
    if several > 1 or workers is not None:
        rows = run_all(planned, workers=workers, max_minutes=minutes).to_dict("records")
    else:
        rows = run(planned[0], max_minutes=minutes)
    for row in rows:
        print("  ".join(f"{key}={row[key]}" for key in SHOWN if key in row))
    if out is not None:
        _write(rows, out, recipe)


def _write(rows: list[dict[str, Any]], out: Path, title: str) -> None:
    import pandas as pd

    from pruning_core.official import write_results

    print(write_results(pd.DataFrame(rows), out, title))
