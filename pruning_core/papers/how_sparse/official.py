"""How Sparse's configuration files (Zhang et al. 2024) as experiments: those of the repository, and any other in its form.

What differs from the official code stands at the head of ``configurations.py``. Its sweep begins at 0, which removes one
weight there; here the dense network is measured instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning_core.checks import Flag, OneOf, Real, Several, Text, Whole, check
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.asked import Asked, spread
from pruning_core.experiments.experiment import Experiment
from pruning_core.papers.how_sparse.configurations import Configuration, experiments_of
from pruning_core.records.values import read_document

MODELS = {
    "FC": "fc5", "FC2": "fc2", "FC12": "fc12", "FC13": "fc13", "LeNet": "lenet_how_sparse", "CNet": "cnet",
    "AlexNet": "alexnet_how_sparse",
    **{f"VGG{depth}": f"vgg{depth}_how_sparse" for depth in (11, 13, 16, 19)},
    **{f"ResNet{depth}": f"resnet{depth}_how_sparse" for depth in (18, 34, 50, 101, 152)},
}  # fmt: skip
"""Network of a configuration file -> ours. VGG-11, 13, 19 and ResNet-34, 101, 152 stand in the official ``model.py``, but its
program cannot find their layers, or not even choose them: here they run."""

STARTS = {"kaiming_normal": None, "kaiming_uniform": "he_uniform"}
"""``init`` of a file -> ``start`` of an Experiment. The official FC and FC2 are normal whatever a file says."""

NEEDED: dict[str, Any] = {
    "model": OneOf(*MODELS, kind="network of How Sparse"),
    "dataset": OneOf("cifar10", "cifar100", "mnist", kind="data set of How Sparse"),
    "lr": Real(at_least=0),
    "epoch": Whole(at_least=1),
}
OPTIONAL: dict[str, tuple[Any, Any]] = {
    "batch_size": (128, Whole(at_least=1)), "momentum": (0.9, Real(at_least=0, below=1)),
    "weight_decay": (0.0, Real(at_least=0)), "gamma": (0.1, Real(at_least=0)), "warm": (0, Whole(at_least=0)),
    "schedu": (False, Flag()), "schedumode": ("multistep", OneOf("multistep", "cos", kind="schedumode")),
    "milestones": ((), Several(Whole(at_least=1))), "l1": (False, Flag()), "lmbda": (0.0, Real(at_least=0)),
    "regularizer": ("L1", OneOf("L1", "L2", kind="regularizer")),
    "sparse_epoch": (1000, Whole(at_least=2)), "lanczos_iter": (128, Whole(at_least=1)),
    "lanczos_num": (1, Whole(at_least=1)), "init": ("kaiming_normal", OneOf(*STARTS, kind="init")),
    "criterion": ("cross_entropy", OneOf("cross_entropy", "mse", kind="criterion")), "optim": ("sgd", Text()),
}  # fmt: skip
"""Key of a file -> what it is where it is missing, and what it must be."""

IDLE = ("data_path", "gpu", "use_full_data", "mode", "file_path", "save_model", "sparse")
"""Keys that are taken and change nothing: --root and --device take the place of the first two, 90 % of the training images
train in any case, records and checkpoints are always kept, and the sweep is always made."""


def experiments(name: str, entry: Configuration, asked: Asked) -> list[Experiment]:
    """The experiments of a configuration, at most ``points`` of its sweep evenly spread; ``reference`` takes the learning
    rates of the code. Raises BadInput for flags, which the official program does not have."""
    asked.no_flags(name)
    asked.methods_of(name, ["magnitude"])
    sweep = spread(entry.sparsities(), asked.points)
    how: dict[str, Any] = {"seeds": asked.seeds or 1, "device": asked.device, "reference": asked.reference}
    return list(experiments_of(name, entry, sparsities=sweep, **how))


def is_configuration(document: Mapping[str, Any]) -> bool:
    """Whether a file has the form of this paper's repository."""
    return isinstance(document.get("model"), str) and "dataset" in document


def read_configuration(path: Path) -> Configuration:
    """A file in the official form. Raises BadInput or UnknownName, naming the key, for what the official program could not
    use either."""
    return configuration_of(read_document(path), str(path))


def configuration_of(document: Mapping[str, Any], where: str) -> Configuration:
    """The configuration that the keys of a file describe; ``where`` names the file.

    >>> configuration_of({"model": "FC", "dataset": "mnist", "lr": 0.1, "epoch": 5, "l1": True, "lmbda": 1e-4}, "a file").model
    'fc5'
    """
    for key in document:
        known_name(f"key of {where}", key, [*NEEDED, *OPTIONAL, *IDLE])
    if missing := [key for key in NEEDED if key not in document]:
        raise BadInput(f"{where} lacks {', '.join(missing)}.")
    given = {key: check(f"{key} of {where}", document[key], kind) for key, kind in NEEDED.items()}
    for key, (default, kind) in OPTIONAL.items():
        given[key] = check(f"{key} of {where}", document[key], kind) if key in document else default
    if given["optim"] != "sgd":
        raise BadInput(
            f"optim of {where} can only be sgd: the official code prints {given['optim']!r} into the name of its folder, and "
            "trains by SGD all the same."
        )
    kinds = {"multistep": "multistep", "cos": "cosine"}
    schedule: Any = kinds[given["schedumode"]] if given["schedu"] else "constant"
    # A squared penalty has the gradient of a weight decay of twice its factor.
    squared = given["l1"] and given["regularizer"] == "L2"
    return Configuration(
        MODELS[given["model"]], given["dataset"], given["lr"], given["lmbda"], schedule, given["warm"],
        given["gamma"] if schedule == "multistep" else 0.1,
        tuple(given["milestones"]) if schedule == "multistep" else (), given["lanczos_iter"],
        given["sparse_epoch"], given["l1"] and not squared, given["epoch"], given["batch_size"],
        given["momentum"], given["weight_decay"] + 2 * given["lmbda"] * squared, given["lanczos_num"],
        None if given["model"] in ("FC", "FC2") else STARTS[given["init"]],
        None if given["criterion"] == "cross_entropy" else given["criterion"],
    )  # fmt: skip
