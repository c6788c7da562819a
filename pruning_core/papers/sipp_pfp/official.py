"""The official parameter files of SiPP and PFP as experiments: every method, every network, in the modes of the files.

What differs from the official code, named once: networks train on the 90 % of the training images that this book trains on,
and S comes from 5 % of them; channels that a sum ties go together, where the code lets layers disagree, so that FT, SoftNet
and PFP cut other channels of residual networks than it does; ThiNet scores one layer after the other on the network as it is
cut, where the code ranks all layers on the dense one, and keeps the order of the code (``reference=True``), which is inverted;
PFP meets its budget from below; a deviation ``delta`` of 1 or more, which two sweeps begin with, sets the size of S alone. A
keep ratio counts all parameters, and weights alone are pruned: budgets here are converted, so that the same number stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any

import torch

from pruning_core.checks import checked
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked, spread
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.recipes.general import cascade
from pruning_core.experiments.stages import Measure, Prune, Stage, Train
from pruning_core.masks.budgets import Budget
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import Method, as_method
from pruning_core.methods.shared.sensitivities import sample_size
from pruning_core.methods.thinet import ThiNet
from pruning_core.models.build import build_model
from pruning_core.models.cost import count_parameters, output_positions
from pruning_core.papers.sipp_pfp.config_file import ELSEWHERE, LOW_RANK, METHODS
from pruning_core.papers.sipp_pfp.parameter_files import FileTraining, ParameterFile, parameter_file
from pruning_core.papers.sipp_pfp.spacings import compressed_before, in_groups
from pruning_core.training.optimizers import LearningRate, Optimizer

CONSTANT = 10.0
"""C as the evaluator sets it for the size of S and the methods; the papers' experiments had 3."""

METHODS_OF_THE_FILES: dict[str, tuple[str | Method, str]] = {
    "SiPP": ("sipp", "global"), "SiPP-rand": ("sipp_random", "global"), "SiPP-hybrid": ("sipp_hybrid", "global"),
    "WT": ("magnitude", "global"), "SNIP": ("snip", "global"), "PFP": ("pfp", "global"),
    "FT": ("l1_norm", "layer"), "SoftNet": ("l2_norm", "layer"), "ThiNet": (ThiNet(reference=True), "layer"),
    "PFP-rand": ("pfp_random", "global"), "PFP-top": ("pfp_top", "global"), "Uniform": ("uniform", "global"),
    "ell1": ("l1_sampling", "global"), "ell2": ("l2_sampling", "global"), "ell1 and ell2": ("l1_l2_sampling", "global"),
    "Uniform Filters": ("random_channels", "layer"),
}  # fmt: skip
"""Name in the files -> our method as the official code has it, and how its budget is spread. The classes that draw weights
share it out themselves, which is what "global" leaves them to do."""

METHODS_ELSEWHERE = {"ALDS": LOW_RANK, **ELSEWHERE}
"""Name in the files, or class of the official code, -> why it is not here."""


@checked
def official_experiments(
    name: str, *, seeds: int | None = None, points: int | None = None, device: str = "cpu"
) -> Iterator[Experiment]:
    """The experiments of one parameter file, at profile "paper": every method and every network.

    ``name`` as in PARAMETER_FILES, "cifar/resnet20"; ``seeds`` replaces the file's number of networks, ``points`` the size of
    S, which follows from the file's ``delta`` (a file that sweeps over it is an experiment a size). Each measures the dense
    network first. Methods of the files that are outside this book are passed over. Raises UnknownName, and BadInput for the
    file whose data are not public.

    >>> next(official_experiments("mnist/lenet300_100")).timeline[2].samples
    448
    """
    asked = Asked(seeds=seeds, device=device)
    entry = parameter_file(name)
    for experiment in experiments_of(name, entry, asked):
        yield experiment if points is None else replace(experiment, timeline=_with_points(experiment.timeline, points))


def _with_points(stages: tuple[Stage, ...], points: int) -> list[Stage]:
    return [replace(stage, samples=points) if isinstance(stage, Prune) else stage for stage in stages]


def experiments_of(name: str, entry: ParameterFile, asked: Asked) -> Iterator[Experiment]:
    """The experiments of ``entry``, which a file of that name holds. ``points`` of ``asked`` thins out the kept fractions
    that are retrained; ``methods`` are names of the file."""
    asked.no_flags(name)
    if entry.network is None or entry.data is None:
        what = "the driving data are not public, so neither they nor the network that steers by them is in this package"
        raise BadInput(f"{name} cannot be run: {what}.")
    chosen = _chosen(name, entry, asked)
    recipe = f"{entry.data}/sipp"
    settings = _settings(entry.training) | {
        "normalise": recipe if recipe in NORMALISATIONS else None,
        "augment": entry.augment or _augmentation(name, entry.network, entry.data),
        "profile": "paper",
        "device": asked.device,
    }
    deltas = entry.deltas or (entry.delta,)
    for short in chosen:
        for delta in deltas:
            points = points_of(entry.network, entry.data, delta, settings["batch_size"])
            tags: dict[str, Any] = {"file": name} | ({"points": points} if len(deltas) > 1 else {})
            method = _with_theory(METHODS_OF_THE_FILES[short][0], delta)
            for seed in range(asked.seeds or entry.nets):
                for stages in _timelines(entry, method, METHODS_OF_THE_FILES[short][1], points, asked.points):
                    yield Experiment(entry.network, entry.data, stages, seed=seed, tags=tags, **settings)


def _chosen(name: str, entry: ParameterFile, asked: Asked) -> list[str]:
    """The short names of a file's methods that are asked for, which may be given as their classes. Raises UnknownName, or
    BadInput with the reason for a method that is outside this book."""
    for given in asked.methods:
        if (short := METHODS.get(given, given)) in METHODS_ELSEWHERE:
            raise BadInput(f"{given}, asked for of {name}, is not here: {METHODS_ELSEWHERE[short]}.")
    return asked.methods_of(name, [m for m in entry.methods if m in METHODS_OF_THE_FILES], METHODS)


def _with_theory(given: str | Method, delta: float) -> Method:
    """The method with the C and, where it is a probability, the delta that the evaluator hands it."""
    method = as_method(given)
    known = {field.name for field in fields(method)}
    theory = {"constant": CONSTANT} | ({"delta": delta} if delta < 1 else {})
    return replace(method, **theory) if set(theory) <= known else method  # type: ignore[arg-type]


@cache
def points_of(network: str, data: str, delta: float, batch_size: int) -> int:
    """The size of S that the evaluator computes: ceil(C ln(8 eta* eta / delta)), rounded up to whole batches.

    >>> points_of("lenet300", "mnist", 1e-12, 64)
    448
    """
    outputs = [positions * rows for positions, rows in _layers(network, data)]
    factor = max(10 * delta, 1.0)  # two sweeps begin with a delta that is no probability; only eta / delta counts
    size = sample_size(sum(outputs) / factor, max(outputs), delta / factor, CONSTANT)
    return -(-size // batch_size) * batch_size


@cache
def _layers(network: str, data: str) -> list[tuple[int, int]]:
    """(positions, rows) of every layer with weights that are pruned."""
    with torch.device("meta"):
        model = build_model(network, data)
        positions = output_positions(model, torch.zeros(2, *_shape(network, data)))
    return [(n, len(model.get_submodule(layer).weight)) for layer, n in positions.items()]  # type: ignore[arg-type]


def _shape(network: str, data: str) -> tuple[int, ...]:
    side = AUGMENTATIONS.get(f"{data}/sipp_{network}", AUGMENTATIONS["none"]).side
    channels, height, width = DATASETS[data].shape
    return (channels, side or height, side or width)


@cache
def of_weights(network: str, data: str) -> float:
    """How many parameters there are for each weight that can be pruned: what a keep ratio is converted by."""
    with torch.device("meta"):
        model = build_model(network, data)
    weights = sum(model.get_parameter(name).numel() for name in find_sites(model, channels=False).weights)
    return count_parameters(model) / weights


def removed(entry: ParameterFile, kept: float) -> float:
    """The fraction of the weights that goes where ``kept`` of all parameters stay, as biases and norms all do; at least a
    thousandth of the weights stays, as in the official code."""
    assert entry.network is not None and entry.data is not None
    return min((1 - kept) * of_weights(entry.network, entry.data), 1 - 1e-3)


def _timelines(
    entry: ParameterFile, method: Method, across: str, points: int, thinned: int | None
) -> Iterator[list[Stage]]:
    """One timeline, or in mode "retrain" one for each fraction that is retrained."""
    split = spread(in_groups(entry.kept, entry.retrained), thinned)
    epochs, retraining = entry.training.epochs, entry.retraining
    again = Train(retraining.epochs - retraining.first_epoch, **_settings(retraining))
    start: list[Stage] = [Train(epochs), Measure("dense")]
    if entry.mode == "train":
        yield start
    elif entry.mode == "retrain":
        # Without a cascade every retrained fraction starts at the dense network; the cuts before it are made again.
        groups = in_groups(entry.kept, entry.retrained)
        before = compressed_before(entry.kept, entry.retrained, mode="retrain")
        for earlier, group in zip(before, groups, strict=True):
            if group in split:
                cuts = [_cut(entry, kept, method, across, points) for kept in (*earlier, group[-1])]
                yield [*start, *cuts, Measure("pruned"), again, Measure("fine-tuned")]
    else:
        after: Any = entry.mode.partition("-")[2] or "go on"  # "cascade-rewind" -> "rewind"
        groups = tuple(tuple(1 - removed(entry, kept) for kept in group) for group in split)
        stages = cascade(method, groups, epochs, again, after, across, batches="score", samples=points)
        first = next(i for i, stage in enumerate(stages) if isinstance(stage, Prune))
        yield [*stages[:first], Measure("dense"), *stages[first:]]


def _cut(entry: ParameterFile, kept: float, method: Method, across: str, points: int) -> Prune:
    return Prune(method, Budget(removed(entry, kept), of="weights", across=across), batches="score", samples=points)


def _settings(training: FileTraining) -> dict[str, Any]:
    """What Experiment and Train take; batch size and rate are those of one GPU in the files, multiplied by their number."""
    optimizer = Optimizer(
        training.optimizer, training.lr * training.gpus, training.momentum, training.nesterov, training.weight_decay
    )
    rate = LearningRate("multistep", warmup=training.warmup, milestones=training.milestones, gamma=training.gamma)
    return {"optimizer": optimizer, "learning_rate": rate, "batch_size": training.batch_size * training.gpus}


def _augmentation(name: str, network: str, data: str) -> str | None:
    """The repositories augment by network: LeNet-5 is fed with crops, perceptrons in the later repository only."""
    if network == "lenet5":
        return f"{data}/sipp_lenet5"
    if data == "mnist":
        return "mnist/sipp_lenet300" if name.startswith(("pfp/", "sipp/")) else None
    return f"{data}/sipp"
