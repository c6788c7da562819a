"""SNIP-it's own command lines as experiments (Verdenius et al. 2020): ``main.py`` with its flags, and the README's lines.

What differs from the official code, named once: networks train on the 90 % of the training images that this book trains on;
cuts meet their targets exactly, where the code is off by one weight, or overshoots below one half; every run measures after
its last epoch, which the code never does; gates of L0 stand behind each layer, those of linear layers too; tick-tock's
penalty has a gradient. Epochs count from 0 there: the first event of ``--prune_delay 4 --prune_freq 4`` follows epoch 8,
which is the ninth. The statistic's loss is the paper's cross-entropy; ``reference`` takes the code's, the mean of minus the
logits, and the code's sign of GraSP.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.asked import Asked, read_flags
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.stages import Attack
from pruning_core.masks.sites import find_sites
from pruning_core.models.build import build_model
from pruning_core.papers.snipit.criteria import timeline
from pruning_core.records.files import read_yaml
from pruning_core.training.optimizers import Optimizer

_TABLE: dict[str, Any] = read_yaml(Path(__file__).with_name("commands.yml"))

README: dict[str, str] = _TABLE["readme"]
"""Name of a line -> its flags, as the README has them."""

TAGS = {
    "EmptyCrit": "dense", "SNIP": "snip", "SNIPit": "snip-it", "SNIPitDuring": "snip-it-during", "SNAP": "snap",
    "SNAPit": "snap-it", "SNAPitDuring": "snap-it-during", "CNIP": "cnip", "CNIPit": "cnip-it",
    "CNIPitDuring": "cnip-it-during", "GRASP": "grasp", "IMP": "imp", "UnstructuredRandom": "random",
    "StructuredRandom": "random_channels", "HoyerSquare": "hoyer_square", "GroupHoyerSquare": "group_hoyer_square",
    "GateDecorators": "gates", "EfficientConvNets": "efficient_convnets", "L0": "l0",
}  # fmt: skip
"""Criterion of the official code -> the name of the method in rows of the book."""

ATTACKS = {
    "CarliniWagner": "carlini_wagner", "LinfPGD": "pgd", "L1FastGradientAttack": "l1_fgm", "L2DeepFoolAttack": "deepfool",
    "FGSM": "fgsm", "DDNAttack": "ddn", "SaltAndPepperNoiseAttack": "salt_and_pepper",
    "L2RepeatedAdditiveGaussianNoiseAttack": "gaussian_noise",
}  # fmt: skip
EPSILONS = (0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
ATTACKED = 512  # images: the first batch of the test set
OPTIMIZERS = {"ADAM": "adam", "SGD": "sgd", "RMSPROP": "rmsprop"}
STRUCTURED = ("SNAP", "CNIP", "Structured", "Group", "GateDecorators", "EfficientConvNets", "L0")


def flags_of(words: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """All flags of ``main.py`` for a command line. Raises BadInput for one that it does not have or that is not here.

    >>> flags_of(["--model", "VGG16"])["epochs"]
    80
    """
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name in _TABLE["elsewhere"]:
            raise BadInput(f"{word} of SNIP-it's main.py is not taken: {_TABLE['elsewhere'][name]}.")
    flags = read_flags("SNIP-it's main.py", _TABLE["flags"] | _TABLE["idle"], words)
    return _configured({name: flags[name] for name in _TABLE["flags"]})


def _configured(flags: dict[str, Any]) -> dict[str, Any]:
    """What the official autoconfig changes: the three regularisers name their own criterion."""
    switches = {"l0": "L0", "hoyer_square": "HoyerSquare", "group_hoyer_square": "GroupHoyerSquare"}
    chosen = [criterion for switch, criterion in switches.items() if flags[switch]]
    if len(chosen) > 1:
        raise BadInput("of --l0, --hoyer_square and --group_hoyer_square only one can be chosen.")
    if flags["loss"] != "CrossEntropy":
        losses = {"L0CrossEntropy": "L0", "HoyerSquare": "HoyerSquare", "GroupHoyerSquare": "GroupHoyerSquare"}
        chosen = [losses[known_name("loss of SNIP-it", flags["loss"], ["CrossEntropy", *losses])]]
    if flags["train_scheme"] != "DefaultTrainer":
        schemes = {"L0Trainer": "L0", "TickTock": "GateDecorators"}
        chosen = [schemes[known_name("train_scheme of SNIP-it", flags["train_scheme"], ["DefaultTrainer", *schemes])]]
    if flags["checkpoint_name"].strip("<>") == flags["checkpoint_name"] != "":
        raise BadInput(
            "--checkpoint_name is not taken: nothing is unpickled here. Save the network by save_network, and begin with "
            "`--network FILE`; without, it is trained first, or read from its checkpoint where it was trained before."
        )
    return flags | ({"prune_criterion": chosen[0]} if chosen else {})


def experiments(words: list[str] | tuple[str, ...], asked: Asked) -> list[Experiment]:
    """The experiments of one command line: the pruned networks and the unpruned ones that they are compared with.

    Seeds count from ``--seed``. Raises UnknownName or BadInput for what ``main.py`` would not take either.
    """
    flags = flags_of([*words, *asked.flags])
    criterion = known_name("prune_criterion of SNIP-it", flags["prune_criterion"], TAGS)
    if flags["data_set"] in _TABLE["data_elsewhere"]:
        raise BadInput(f"{flags['data_set']} is not here: {_TABLE['data_elsewhere'][flags['data_set']]}.")
    model = _TABLE["networks"][known_name("network of SNIP-it", flags["model"], _TABLE["networks"])]
    data = _TABLE["data"][known_name("data set of SNIP-it", flags["data_set"], _TABLE["data"])]
    images = round(0.9 * DATASETS[data].sizes[0])
    scope = None if flags["outer_layer_pruning"] or criterion.startswith(STRUCTURED) else hidden_layers(model, data)
    dense = timeline("EmptyCrit", flags | ({"epochs": 80} if criterion in ("L0", "GateDecorators") else {}), images)
    runs = {
        TAGS[criterion]: (timeline(criterion, flags, images, scope, asked.reference), flags),
        "dense": (dense, flags),
    }
    if criterion == "L0":  # its own penalty holds the decay of the weights
        runs["l0"] = (runs["l0"][0], flags | {"l2_reg": 0.0})
    if flags["eval"]:
        name = ATTACKS[known_name("attack of SNIP-it", flags["attack"], ATTACKS)]
        runs = {"dense": ([*dense, Attack(name, EPSILONS, ATTACKED)], flags)}
    chosen = asked.methods_of("this line of SNIP-it", runs)
    common: dict[str, Any] = {"profile": "paper", "device": asked.device}
    return [
        Experiment(model, data, stages, seed=seed, tags={"method": method}, **settings(own, data), **common)
        for method, (stages, own) in runs.items()
        if method in chosen
        for seed in range(flags["seed"], flags["seed"] + (asked.seeds or 1))
    ]


def settings(flags: Mapping[str, Any], data: str) -> dict[str, Any]:
    """What Experiment takes, from the flags and the data set's recipe."""
    recipe = f"{data}/snipit"
    return {
        "optimizer": _optimizer(flags),
        "batch_size": flags["batch_size"],
        "normalise": recipe if recipe in NORMALISATIONS else None,
        "augment": recipe if recipe in AUGMENTATIONS else None,
        "random_labels": flags["seed"] if flags["random_shuffle_labels"] else None,
    }


def _optimizer(flags: Mapping[str, Any]) -> Optimizer:
    name: Any = OPTIMIZERS[known_name("optimizer of SNIP-it", flags["optimizer"], OPTIMIZERS)]
    return Optimizer(
        name, flags["learning_rate"], momentum=0.0 if name == "sgd" else 0.9, weight_decay=flags["l2_reg"],
        clip=flags["grad_clip"] or None, noise=flags["grad_noise"],
    )  # fmt: skip


def hidden_layers(model: str, data: str) -> tuple[str, ...]:
    """Patterns for all layers with prunable weights but the first and the last."""
    with torch.device("meta"):
        network = build_model(model, data)
    layers = [name.rpartition(".")[0] for name in find_sites(network, channels=False).weights]
    if len(layers) < 3:
        raise BadInput(f"{model} has no layer between its first and its last: --outer_layer_pruning prunes those too.")
    return (f"!{layers[0]}", f"!{layers[-1]}")


def official_lines() -> dict[str, list[str]]:
    """Name of a README line -> its words."""
    return {name: shlex.split(line) for name, line in README.items()}
