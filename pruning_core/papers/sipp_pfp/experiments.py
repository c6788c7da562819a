"""The parameter files of SiPP's and PFP's repositories as experiments, from the one table in parameter_files.py."""

from collections.abc import Iterator
from typing import Any

from pruning_core.data.sets import NORMALISATIONS
from pruning_core.errors import BadInput
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.recipes.general import cascade
from pruning_core.experiments.stages import Measure, Prune, Stage, Train
from pruning_core.masks.budgets import Budget
from pruning_core.methods.base import Method, as_method
from pruning_core.methods.thinet import ThiNet
from pruning_core.papers.sipp_pfp.parameter_files import FileTraining, ParameterFile, parameter_file
from pruning_core.papers.sipp_pfp.spacings import compressed_before, in_groups
from pruning_core.training.optimizers import LearningRate, Optimizer

METHODS_OF_THE_FILES: dict[str, tuple[str | Method, str]] = {
    "SiPP": ("sipp", "global"), "SiPP-rand": ("sipp_random", "global"), "SiPP-hybrid": ("sipp_hybrid", "global"),
    "WT": ("magnitude", "global"), "SNIP": ("snip", "global"), "PFP": ("pfp", "global"),
    "FT": ("l1_norm", "layer"), "SoftNet": ("l2_norm", "layer"), "ThiNet": (ThiNet(reference=True), "layer"),
}  # fmt: skip
"""Name in the files -> our method as the official code has it, and how its budget is spread."""


def official_experiments(
    name: str, *, seeds: int | None = None, points: int = 256, device: str = "cpu"
) -> Iterator[Experiment]:
    """The experiments of one parameter file, at profile "paper": every method and every network.

    ``name`` as in PARAMETER_FILES, "cifar/resnet20"; ``seeds`` replaces the file's number of networks; ``points`` is the
    size of S (a file that sweeps over it is one call a size). Methods of the files that are outside this book are passed
    over. Raises UnknownName, and BadInput for the file whose data are not public.
    """
    entry = parameter_file(name)
    if entry.network is None or entry.data is None:
        what = "the driving data are not public, so neither they nor the network that steers by them is in this package"
        raise BadInput(f"{name} cannot be run: {what}.")
    recipe = f"{entry.data}/sipp"
    settings = _settings(entry.training) | {
        "normalise": recipe if recipe in NORMALISATIONS else None,
        "augment": _augmentation(name, entry.network, entry.data),
        "profile": "paper",
        "device": device,
    }
    for short in (short for short in entry.methods if short in METHODS_OF_THE_FILES):
        given, across = METHODS_OF_THE_FILES[short]
        method = as_method(given)
        tags = {"method": method.name, "file": name}
        for seed in range(entry.nets if seeds is None else seeds):
            for stages in _timelines(entry, method, across, points):
                yield Experiment(entry.network, entry.data, stages, seed=seed, tags=tags, **settings)


def _timelines(entry: ParameterFile, method: Method, across: str, points: int) -> Iterator[list[Stage]]:
    """One timeline, or in mode "retrain" one for each fraction that is retrained."""
    split = in_groups(entry.kept, entry.retrained)
    epochs, retraining = entry.training.epochs, entry.retraining
    again = Train(retraining.epochs - retraining.first_epoch, **_settings(retraining))
    if entry.mode == "train":
        yield [Train(epochs)]
    elif entry.mode == "retrain":
        # Without a cascade every retrained fraction starts at the dense network; the cuts before it are made again.
        before = compressed_before(entry.kept, entry.retrained, mode="retrain")
        for earlier, group in zip(before, split, strict=True):
            budgets = [Budget(1 - kept, of="weights", across=across) for kept in (*earlier, group[-1])]
            cuts = [Prune(method, budget, batches="score", samples=points) for budget in budgets]
            yield [Train(epochs), *cuts, Measure("pruned"), again, Measure("fine-tuned")]
    else:
        after: Any = entry.mode.partition("-")[2] or "go on"  # "cascade-rewind" -> "rewind"
        yield cascade(method, split, epochs, again, after, across, batches="score", samples=points)


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


def warm_up_and_cool_down(
    epoch: float, scheduled: float, momentum: float, warmup: float, cooldown: float, shift: float
) -> tuple[float, float]:
    """Factor on the learning rate, and momentum, of the official schedule with a cool-down, which no parameter file uses.

    ``epoch`` counts from 0, fractions included; ``warmup`` and ``cooldown`` are lengths above 0 in epochs. The factor is the
    milestones', ``scheduled``, but in the warm-up at most a line from 0 to 1, and in the cool-down at least one back to 0.
    The momentum falls from ``momentum + shift`` to ``momentum - shift`` in the warm-up and rises back in the cool-down.

    >>> [warm_up_and_cool_down(epoch, 0.5, 0.5, 2, 2, 0.25) for epoch in (0, 1, 2, 3, 4)]
    [(0.0, 0.75), (0.5, 0.5), (1.0, 0.25), (0.5, 0.5), (0.5, 0.75)]
    """
    if epoch < warmup:
        line = epoch / warmup
        return min(line, scheduled), momentum + shift - 2 * shift * line
    line = min((epoch - warmup) / cooldown, 1.0)
    return max(1 - line, scheduled), momentum - shift + 2 * shift * line
