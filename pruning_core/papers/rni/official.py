"""The twelve settings of RNI's Results.ipynb as experiments (Suteu and Guo 2022): two networks, three methods, two data sets.

Each is one dense network, cut once to the half and once to a tenth of its channels, each with its own fine-tuning. What
differs from the official code, named once: networks train on the 90 % of the training images that this book trains on; the
best epoch is that of the validation split, not of the test images; channels are cut to the exact fraction, at least three
staying in a layer, unless ``reference`` takes the official thresholds; the network is built after the seed is set. The
paper's own functions, ``train`` and ``prune_finetune``, follow the official code with ``reference=True`` in the choice of the
epoch and in the images too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pruning_core.errors import known_name
from pruning_core.experiments.asked import Asked, spread
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER, receding
from pruning_core.experiments.stages import Stage, Train
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.slimming import Slimming
from pruning_core.methods.ucs import UniformChannelScaling
from pruning_core.papers.rni.pipeline import NETWORKS

EPOCHS, BATCH_SIZE = 160, 64
FRACTIONS = (0.5, 0.9)
"""What is removed, beside the full network, which is the row "dense"."""


class Setting(NamedTuple):
    """A network of the notebook with the strength of its penalty for each method, and the shift ``b`` of RNI's."""

    strengths: Mapping[str, float | None]
    b: float
    scope: tuple[str, ...] | None = None


SETTINGS = {
    "vgg16": Setting({"rni": 1e-3, "l1": 1e-4, "ucs": None}, 3.0),
    "resnet56": Setting({"rni": 1e-4, "l1": 1e-5, "ucs": None}, 0.0, ("layer*.conv1",)),
}
NAMES = tuple(
    f"{a}-{d}-{m}" for a, setting in SETTINGS.items() for d in ("cifar10", "cifar100") for m in setting.strengths
)
METHODS = {"rni": RecedingNeurons, "l1": Slimming, "ucs": UniformChannelScaling}


def experiments(name: str, asked: Asked) -> list[Experiment]:
    """The experiments of one setting, "vgg16-cifar10-rni": a network a seed and fraction removed. ``reference``: the official
    thresholds, which mistake >= for >.

    Raises UnknownName, and BadInput for flags, which the notebook does not have.
    """
    asked.no_flags(name)
    arch, data, method = known_name("setting of RNI", name, NAMES).split("-")
    setting = SETTINGS[arch]
    asked.methods_of(f"rni/{name}", [method])
    kind = METHODS[method](reference=asked.reference)
    if isinstance(kind, RecedingNeurons):
        kind = replace(kind, b=setting.b)
    settings: dict[str, Any] = {
        "batch_size": BATCH_SIZE,
        "optimizer": RECEDING_OPTIMIZER,
        "normalise": f"{data}/rni",
        "augment": f"{data}/rni",
        "norm": "sigmoid" if method == "rni" else "batch",
        "profile": "paper",
        "device": asked.device,
        "tags": {"method": kind.name},
    }
    planned = []
    for fraction in spread(FRACTIONS, asked.points):
        stages = receding(kind, fraction, EPOCHS, EPOCHS, setting.strengths[method], scope=setting.scope)
        timeline = [_with_best_epoch(stage) for stage in stages]
        planned += [Experiment(NETWORKS[arch], data, timeline, seed=s, **settings) for s in range(asked.seeds or 1)]
    return planned


def _with_best_epoch(stage: Stage) -> Stage:
    return replace(stage, keep="best_validation") if isinstance(stage, Train) else stage
