"""The two scripts of i-SpaSP as experiments (Wolfe and Kyrillidis 2022): ResNet-34 and MobileNetV2 from torchvision's weights.

The settings are those of the launch scripts, which switch the cosine on. What differs from the official code, named once:
networks train on the 90 % of the training images that this book trains on; statistics of batch norm are cut along with the
channels, which the code forgets; biases and all norms are free of weight decay, where the code's rule by names misses some;
the pruned branch keeps its statistics, where the code runs the last norm of it in training mode; the test loss knows no label
smoothing. ``reference`` takes the code's rule of names and its pruned branch. On images of other classes than ImageNet's the
network starts at random and is trained first, as long as it is fine-tuned in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pruning_core.checks import Real, Whole, check
from pruning_core.data.own import named_data
from pruning_core.data.sets import DATASETS, IMAGENETTE_CLASSES
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.asked import Asked, read_flags
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.recipes.chapters import ISPASP_TUNING
from pruning_core.experiments.stages import Load, Measure, Prune, Shrink, Stage, Train
from pruning_core.masks.budgets import Budget
from pruning_core.methods.ispasp import ISpaSP
from pruning_core.papers.ispasp.configurations import mobilenetv2_configuration, resnet34_configuration
from pruning_core.training.optimizers import LearningRate

SHARED = {
    "data-path": "", "save-dir": "", "exp-name": "", "workers": 8, "pruned-path": "", "verbose": False, "batch-size": 256,
    "num-cs-batches": 5, "num-cs-iter": 20, "block-ft-epochs": 1, "block-ft-lr": 1e-2, "prune-ft-lr": 1e-2,
    "prune-ft-epochs": 90, "use-lr-sched": False, "momentum": 0.9,
}  # fmt: skip
FLAGS: dict[str, dict[str, Any]] = {
    "resnet34": SHARED
    | {"layer1-ratio": 0.4, "layer2-ratio": 0.4, "layer3-ratio": 0.4, "layer4-ratio": 1.0}
    | {"prune-last-layer": False, "wd": 5e-4},
    "mobilenet_v2": SHARED | {"ratio": 0.3, "blocks": "6,9,10,12,13", "wd": 4e-5},
}
"""Network -> the flags of its script with their defaults. ``ratio`` and ``blocks`` of MobileNetV2 stand in the source there."""

LINES = {
    "resnet34": "--use-lr-sched",
    "resnet34-2.13G": "--layer4-ratio 0.7 --prune-last-layer --use-lr-sched",
    "mobilenet_v2": "--use-lr-sched",
    "mobilenet_v2-242M": "--blocks 5,6,8,9,10,12,13 --use-lr-sched",
    "mobilenet_v2-220M": "--blocks 5,6,8,9,10,12,13,15,16 --use-lr-sched",
}
"""Name -> words of its script. Of sizes beyond the two launch scripts the paper gives the cost alone; these blocks fit it."""


SCRIPTS = {"resnet34": "prune_resnet34_ispasp.py", "mobilenet_v2": "prune_mobilenetv2_ispasp.py"}
LAUNCHED = {"resnet34": "prune_rn34_ispasp.py", "mobilenet_v2": "prune_mbnv2_ispasp.py"}
"""Network -> its script, and the launch script that calls it with the words of LINES."""


def experiments(name: str, asked: Asked) -> list[Experiment]:
    """The experiment of a setting or of a script by its file's name, which has the script's own defaults; one a seed.

    Raises UnknownName or BadInput for what the script would not take either.
    """
    network = {script: own for own, script in SCRIPTS.items()}.get(name)
    words = [*asked.flags]
    if network is None:
        words = [*LINES[known_name("setting of i-SpaSP", name, LINES)].split(), *words]
        network = name.partition("-")[0]
    asked.methods_of(name, ["ispasp"])
    flags = read_flags(f"i-SpaSP's script for {network}", FLAGS[network], words)
    if flags["data_path"] and asked.data:
        raise BadInput("the images are named twice: give --data-path FOLDER or --data, and not both.")
    if flags["pruned_path"].endswith(".pth"):
        raise BadInput(
            "--pruned-path takes a file of save_network here: a .pth is a pickle, and nothing is unpickled here."
        )
    data = asked.data or (named_data(flags["data_path"]) if flags["data_path"] else "imagenet")
    stages = timeline(network, flags, data, asked.reference)
    recipe = "imagenet/ispasp" if photographs(data) or flags["data_path"] else None
    return [
        Experiment(
            f"torchvision/{network}",
            data,
            stages,
            seed=seed,
            batch_size=flags["batch_size"],
            profile="paper" if photographs(data) else "quick",
            optimizer=_optimizer(flags, "prune_ft_lr", asked.reference),
            normalise=recipe,
            augment=recipe,
            network=flags["pruned_path"] or None,
            device=asked.device,
            tags={"configuration": text_of(network, flags)},
        )
        for seed in range(asked.seeds or 1)
    ]


def photographs(data: str) -> bool:
    """Whether torchvision's weights know the classes of this set: ImageNet, also in a folder of one's own, or a part of it."""
    own = DATASETS.get(data)
    return data in ("imagenet", "imagenette") or (own is not None and own.folder is not None and own.classes == 1000)


def timeline(network: str, flags: Mapping[str, Any], data: str, reference: bool = False) -> list[Stage]:
    """Measure the dense network; one block after the other is cut, trained and measured; fine-tune.

    With ``pruned_path`` the network of that file is fine-tuned, and nothing is cut.
    """
    rate, epochs = check("--block-ft-lr", flags["block_ft_lr"], Real(at_least=0)), flags["prune_ft_epochs"]
    last = Train(
        check("--prune-ft-epochs", epochs, Whole(at_least=0)), label_smoothing=0.1,
        learning_rate=LearningRate("cosine") if flags["use_lr_sched"] else LearningRate(),
    )  # fmt: skip
    if flags["pruned_path"]:
        return [Measure("pruned"), last, Measure("fine-tuned")]
    short = Train(
        flags["block_ft_epochs"], optimizer=_optimizer({**flags, "block_ft_lr": rate}, "block_ft_lr", reference),
        learning_rate=LearningRate(), label_smoothing=0.1,
    )  # fmt: skip
    start: list[Stage] = [Train(epochs, label_smoothing=0.1, learning_rate=LearningRate("cosine"))]
    if photographs(data):
        start = [Load("IMAGENET1K_V1", IMAGENETTE_CLASSES if data == "imagenette" else None)]
    size = flags["batch_size"]
    method = ISpaSP(iterations=flags["num_cs_iter"], reference=reference)
    cuts: list[Stage] = []
    for site, fraction in removed(network, flags).items():
        budget = Budget(of="channels", across={site: fraction})
        cuts += [Prune(method, budget, samples=size * flags["num_cs_batches"], batch_size=size), Shrink()]
        cuts += [short, Measure("block")] if short.epochs else []
    return [*start, Measure("dense"), *cuts, Measure("pruned"), last, Measure("fine-tuned")]


def removed(network: str, flags: Mapping[str, Any]) -> dict[str, float]:
    """Channel group -> the fraction of it that goes."""
    if network == "resnet34":
        return resnet34_configuration(_ratios(flags), flags["prune_last_layer"])
    return mobilenetv2_configuration(flags["ratio"], _blocks(flags))


def _ratios(flags: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(flags[f"layer{i}_ratio"] for i in range(1, 5))


def _blocks(flags: Mapping[str, Any]) -> tuple[int, ...]:
    numbers = str(flags["blocks"]).split(",")
    if not all(number.strip().isdigit() for number in numbers):
        raise BadInput(f"--blocks are numbers with commas between them, and not {flags['blocks']!r}.")
    return tuple(map(int, numbers))


def text_of(network: str, flags: Mapping[str, Any]) -> str:
    """What is pruned how far, in the words of the claims."""
    if network == "resnet34":
        ratios = "/".join(f"{ratio:g}".removeprefix("0") for ratio in _ratios(flags))
        return ratios + (" last" if flags["prune_last_layer"] else "")
    return f"{flags['ratio']:g}".removeprefix("0") + f" on {','.join(map(str, _blocks(flags)))}"


def _optimizer(flags: Mapping[str, Any], rate: str, reference: bool) -> Any:
    changes: dict[str, Any] = {"lr": flags[rate], "momentum": flags["momentum"], "weight_decay": flags["wd"]}
    if reference:  # by names: a norm of a block is ".bn1", the stem's is "bn1", and MobileNetV2's are numbers
        changes |= {"decay_norm_and_bias": True, "undecayed": (".bn", ".bias")}
    return replace(ISPASP_TUNING, **changes, nesterov=flags["momentum"] > 0)
