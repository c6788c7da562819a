"""Parameter files of SiPP and PFP in their own form: both repositories', with ``file:`` inclusion and ``customizations:``.

The first repository names a training file whose own key is ``training``, with numEpochs, learningRate and lRmilestones; the
later one includes a file at any place, with optimizerKwargs and lrSchedulers. What a file says itself goes before what it
includes. A path is looked for beside the file, and below each folder above it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pruning_core.checks import Real, Several, Text, Whole, check
from pruning_core.data.sets import AUGMENTATIONS, DATASETS
from pruning_core.errors import BadInput, known_name
from pruning_core.papers.sipp_pfp.parameter_files import FileTraining, ParameterFile
from pruning_core.papers.sipp_pfp.spacings import MODES, SPACINGS, Fractions
from pruning_core.records.values import read_document

NETWORKS = {
    "resnet20": "resnet20_b", "resnet56": "resnet56_bottleneck", "resnet110": "resnet110_bottleneck",
    "densenet22": "densenet22", "wrn16_8": "wrn16_8", "wrn28_2": "wrn28_2", "vgg16": "vgg16", "vgg16_bn": "vgg16",
    "lenet5": "lenet5", "lenet300_100": "lenet300", "lenet500_300_100": "lenet500", "fc_nettrim": "fc_nettrim",
    "fcnet_nettrim": "fc_nettrim",
    "cnn5": "cnn5", "cnn60k": "cnn60k",
}  # fmt: skip
DATA = {"CIFAR10": "cifar10", "MNIST": "mnist", "FashionMNIST": "fashion_mnist", "ImageNet": "imagenet"}
METHODS = {
    "SiPPNet": "SiPP", "SiPPNetRand": "SiPP-rand", "SiPPNetHybrid": "SiPP-hybrid", "ThresNet": "WT", "SnipNet": "SNIP",
    "PFPNet": "PFP", "PFPNetRand": "PFP-rand", "PFPNetTop": "PFP-top", "FilterThresNet": "FT", "SoftNet": "SoftNet",
    "ThiNet": "ThiNet", "UniNet": "Uniform", "EllOneNet": "ell1", "EllTwoNet": "ell2",
    "EllOneAndTwoNet": "ell1 and ell2", "FilterUniNet": "Uniform Filters", "ALDSNet": "ALDS",
}  # fmt: skip
"""Class of the official code -> the short name that the table of files has."""

LOW_RANK = "it takes layers apart into factors and removes no weights, which is outside of this book"
ELSEWHERE = {
    **dict.fromkeys(("SVDNet", "SVDErrorNet", "SVDNuclearNet", "SVDFrobeniusNet", "PCANet", "MessiNet"), LOW_RANK),
    **dict.fromkeys(("LearnedRankNet", "LearnedRankNetScheme0"), LOW_RANK),
    "FakeNet": "a training of the same length without a cut is mode 'train' with the epochs of both",
}  # fmt: skip
"""Class of the official code -> why a file cannot ask for it. ReferenceNet is measured in any case, and ALDS passed over,
as it stands in files of the papers."""

SPACING = {"geometric": 3, "linear": 3, "cubic": 3, "harmonic2": 3, "harmonic": 2}
"""Type of a spacing -> how many of (numIntervals, maxVal, minVal) it takes."""


def is_parameter_file(document: Mapping[str, Any]) -> bool:
    """Whether a file has the form of these repositories."""
    return (
        {"network", "experiments"} <= set(document)
        or ("file" in document and "experiments" in document)
        or ({"file", "customizations"} <= set(document))
    )


def read_parameter_file(path: Path) -> dict[str, ParameterFile]:
    """Name -> settings of a file: one, named like the file, or one a customization, "name#1" and so on.

    Raises UnknownName or BadInput, naming the file, the key and what is allowed.
    """
    document = _included(read_document(path), path)
    customizations = document.pop("customizations", None)
    if not customizations:
        return {path.stem: settings_of(document, str(path))}
    found = {}
    for number, change in enumerate(check(f"customizations of {path}", customizations, Several(_Mapping())), 1):
        changed = copy.deepcopy(document)
        *way, last = check(f"key of customization {number} of {path}", change.get("key"), Several(Text(), at_least=1))
        place = changed
        for key in way:
            place = place.setdefault(key, {})
        if not isinstance(place, dict) or "value" not in change:
            raise BadInput(f"customization {number} of {path} needs a key that leads to a place, and a value.")
        place[last] = change["value"]
        found[f"{path.stem}#{number}"] = settings_of(changed, str(path))
    return found


class _Mapping:
    """A mapping of the file."""

    def check(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadInput(f"{name} must hold keys and values, not {value!r}.")
        return value


def _included(document: Any, path: Path, depth: int = 0, key: str = "") -> Any:
    """The document with what its ``file:`` entries name put in; its own entries go first."""
    if not isinstance(document, dict):
        return document
    own = {k: _included(v, path, depth, k) for k, v in document.items() if k != "file"}
    if "file" not in document:
        return own
    if depth > 8:
        raise BadInput(f"{path} includes files that include each other.")
    other = _found(check(f"file of {path}", document["file"], Text()), path)
    included = _included(read_document(other), other, depth + 1)
    return _merged(included.get(key, included) if key else included, own)


def _found(name: str, path: Path) -> Path:
    for folder in path.resolve().parents:
        for place in (folder / name, folder / "src" / "experiment" / "experiment" / "param" / name):
            if os.path.isfile(place):  # Path.is_file raises for a name that is too long
                return place
    raise BadInput(f"{path} includes {name}, which lies neither beside it nor below a folder above it.")


def _merged(base: Any, own: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    return base | {key: _merged(base.get(key), value) for key, value in own.items()}


def settings_of(document: Mapping[str, Any], where: str) -> ParameterFile:
    """The settings in a document whose inclusions are resolved."""
    network, experiments = (_part(document, key, where) for key in ("network", "experiments"))
    if network.get("dataset") == "Driving":
        raise BadInput(f"{where} cannot be run: the driving data are not public.")
    data = DATA[known_name(f"dataset of {where}", network.get("dataset"), DATA)]
    name = network.get("name")
    ours = f"torchvision/{name}" if data == "imagenet" else NETWORKS[known_name(f"network of {where}", name, NETWORKS)]
    training = _part(document, "training", where)
    retraining = _merged(training, document.get("retraining") or {})
    methods = check(f"methods of {where}", experiments.get("methods"), Several(Text(), at_least=1))
    for method in methods:
        if method in ELSEWHERE:
            raise BadInput(f"{method}, a method of {where}, is not here: {ELSEWHERE[method]}.")
    groups = check(f"retrainIterations of {where}", experiments.get("retrainIterations", -1), Whole())
    delta = (document.get("coresets") or {}).get("deltaS", 1e-16)
    return ParameterFile(
        ours,
        data,
        tuple(METHODS[known_name(f"method of {where}", m, METHODS)] for m in methods if m != "ReferenceNet"),
        sum(_kept(experiments, where), ()),
        training_of(training, where),
        training_of(retraining, where),
        None if groups < 1 else groups,
        known_name(f"mode of {where}", experiments.get("mode"), MODES),
        float(check(f"deltaS of {where}", delta, Real(above=0))),
        nets=check(f"numNets of {where}", experiments.get("numNets", 1), Whole(at_least=1)),
        augment=augmentation_of(training, data, where),
    )


def _part(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    return _Mapping().check(f"{key} of {where}", document.get(key))


def _kept(experiments: Mapping[str, Any], where: str) -> Iterator[Fractions]:
    for part in check(f"spacing of {where}", experiments.get("spacing"), Several(_Mapping(), at_least=1)):
        kind = known_name(f"spacing of {where}", part.get("type"), SPACINGS)
        if kind == "manual":
            yield SPACINGS[kind](part.get("values", ()))
            continue
        keys = ("numIntervals", "maxVal", "minVal") if SPACING[kind] == 3 else ("numIntervals", "minVal")
        if missing := [key for key in keys if key not in part]:
            raise BadInput(f"the {kind} spacing of {where} lacks {', '.join(missing)}.")
        yield SPACINGS[kind](*(part[key] for key in keys))


RENAMED = {
    "numEpochs": "epochs", "batchSize": "batch_size", "learningRate": "lr", "lRmilestones": "milestones",
    "lRgamma": "gamma", "weightDecay": "weight_decay", "startEpoch": "first_epoch", "lr": "lr", "warmup": "warmup",
    "weight_decay": "weight_decay", "nesterov": "nesterov", "momentum": "momentum", "optimizer": "optimizer",
}  # fmt: skip
"""Key of a training -> field of FileTraining."""


def training_of(training: Mapping[str, Any], where: str) -> FileTraining:
    """How a network is trained, from either repository's keys. Batch size and rate are those of one GPU; so they stay."""
    flat = {k: v for k, v in training.items() if k in RENAMED} | dict(training.get("optimizerKwargs") or {})
    for schedule in training.get("lrSchedulers") or ():
        flat |= _scheduled(schedule, flat.get("numEpochs", 0), where)
    if training.get("cooldown"):
        raise BadInput(f"cooldown of {where} can only be 0, which all official files have.")
    settings = {RENAMED[known_name(f"key of the optimizer of {where}", k, RENAMED)]: v for k, v in flat.items()}
    if missing := [key for key in ("numEpochs", "batchSize", "learningRate") if RENAMED[key] not in settings]:
        raise BadInput(f"the training of {where} lacks {', '.join(missing)}.")
    settings["optimizer"] = str(settings.get("optimizer", "sgd")).lower()
    milestones = check(f"milestones of {where}", settings.get("milestones", ()), Several(Whole(at_least=0)))
    return FileTraining(**{"weight_decay": 0.0} | settings | {"milestones": tuple(milestones)})


def _scheduled(schedule: Mapping[str, Any], epochs: int, where: str) -> dict[str, Any]:
    """The keys of the first repository that say what one of the later one's schedules does."""
    kind = known_name(f"lrSchedulers of {where}", schedule.get("type"), ("MultiStepLR", "StepLR", "WarmupLR"))
    steps = schedule.get("stepKwargs") or {}
    if kind == "WarmupLR":
        return {"warmup": steps.get("warmup_epoch", 0)}
    every = check(f"step_size of {where}", steps.get("step_size", 1), Whole(at_least=1))
    milestones = steps.get("milestones") if kind == "MultiStepLR" else list(range(every, epochs + 1, every))
    return {"lRmilestones": milestones, "lRgamma": (schedule.get("kwargs") or {}).get("gamma", 0.1)}


def augmentation_of(training: Mapping[str, Any], data: str, where: str) -> str:
    """The recipe of this book whose steps are those of ``transformsTrain``; BadInput where there is none."""
    steps: dict[str, Any] = {}
    for entry in training.get("transformsTrain") or ():
        name, number = _transform(entry)
        field = {"Pad": "pad", "Resize": "side", "RandomHorizontalFlip": "flip", "RandomResizedCrop": "scale"}.get(name)
        if field is not None:
            steps[field] = {"flip": 0.5, "scale": (0.08, 1.0)}.get(field, number)
    if steps.get("side") == DATASETS[data].shape[1]:
        del steps["side"]  # which changes nothing
    for recipe in (f"{data}/sipp", f"{data}/sipp_lenet5", f"{data}/sipp_lenet300", "none"):
        known = AUGMENTATIONS.get(recipe)
        if known is not None and {k: v for k, v in vars(known).items() if v} == steps:
            return recipe
    raise BadInput(f"transformsTrain of {where} is none of the recipes of this book for {data}: {steps}.")


def _transform(entry: Any) -> tuple[str, int]:
    """Name and size of a transform, written as "Pad(4)" or as type and kwargs."""
    if isinstance(entry, dict):
        numbers = [value for value in (entry.get("kwargs") or {}).values() if isinstance(value, int)]
        return str(entry.get("type")), numbers[0] if numbers else 0
    name, _, rest = str(entry).partition("(")
    digits = rest.rstrip(")").split(",")[0].strip()
    return name, int(digits) if digits.isdigit() else 0
