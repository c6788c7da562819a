"""The image sets of the book: ``load_data(name)`` gives four fixed splits, normalised, on one device.

Shares. Sets with an official test set: that is ``test``, and of the official training set 90 % are ``train``,
5 % ``score`` (for sensitivities) and 5 % ``validation`` (for choosing epochs and hyper-parameters).
``digits`` and ``mnist5k`` have none: 20 % are ``test``, 8 % ``score``, 8 % ``validation``, 64 % ``train``.
All are stratified by class, do not overlap, and are the same for everybody, always.
"""

import math
import os
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.checks import SEED, Device, Maybe, Whole, check, checked, present
from pruning_core.data.downloads import content_sha256, image_folder, load_raw
from pruning_core.data.own import arrays_of, check_counts, folder_fingerprint, folder_info, listed, parts
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS, Augmentation, DatasetInfo, Normalisation
from pruning_core.data.sources import Raw
from pruning_core.data.splits import (
    WITH_TEST_SET,
    WITHOUT_TEST_SET,
    FileSplit,
    ImageReader,
    Split,
    mixed,
    split_indices,
)
from pruning_core.errors import BadInput, BadType, known_name, shown
from pruning_core.records.files import cache_root
from pruning_core.records.places import located


@dataclass(frozen=True)
class Data:
    """A loaded set. ``shape`` is (C, H, W) of one image as a network sees it.

    >>> digits = load_data("digits")
    >>> digits.shape, digits.classes, len(digits.train), len(digits.test)
    ((1, 8, 8), 10, 1152, 359)
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    train: Split
    score: Split
    validation: Split
    test: Split
    normalisation: Normalisation


def data_root() -> Path:
    """The folder of the sets: ``$PRUNING_DATA`` or ``data`` in the cache.

    >>> data_root().name
    'data'
    """
    named = os.environ.get("PRUNING_DATA")
    return located("PRUNING_DATA", named) if named else cache_root() / "data"


@dataclass(frozen=True)
class _Request:
    """What ``load_data`` was asked for, checked: its names looked up, its defaults filled in."""

    info: DatasetInfo
    root: Path
    device: torch.device
    normalisation: Normalisation
    augmentation: Augmentation | None
    seed: int
    limit: int | None
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the network sees it."""
        side = self.augmentation.side if self.augmentation else None
        return (self.info.shape[0], side, side) if side else self.info.shape

    def chosen(self, labels: np.ndarray, test_labels: np.ndarray | None) -> dict[str, np.ndarray]:
        """Split -> indices, into the test set for "test" where there is one, else into the training set."""
        check_counts(self.info.name, np.unique(labels, return_counts=True)[1], test_labels is not None)
        if test_labels is None:
            chosen = split_indices(labels, WITHOUT_TEST_SET, self.seed)
        else:
            chosen = split_indices(labels, WITH_TEST_SET, self.seed)
            chosen["test"] = mixed(test_labels, np.arange(len(test_labels)), self.seed + 1)
        total, classes = sum(len(part) for part in chosen.values()), self.info.classes
        if self.limit is None or self.limit >= total:
            return chosen
        test = chosen.pop("test")  # stays whole: a number is worth as much as the images that it is measured on
        shrunk = {name: part[: int(len(part) * self.limit / total)] for name, part in chosen.items()}
        if short := [name for name, part in shrunk.items() if len(part) < classes]:
            least = max(-(-classes * total // len(part)) for part in chosen.values())
            raise BadInput(
                f"limit={self.limit} leaves fewer images than classes ({classes}) in the {short[0]} split; "
                f"at least {least} are needed."
            )
        return shrunk | {"test": test}


def surely_scored(name: str, limit: int | None = None) -> int:
    """How many images the split for scoring of a set holds at least, told from its sizes alone: nothing is loaded.

    How many there are hangs on how each class is rounded, which makes half an image a class at most.

    >>> surely_scored("digits"), len(load_data("digits").score)
    (138, 143)
    """
    images, tested = DATASETS[known_name("data set", name, DATASETS)].sizes
    share = (WITH_TEST_SET if tested else WITHOUT_TEST_SET)["score"]
    least = images * share - DATASETS[name].classes / 2
    return max(int(least * min(1.0, (limit or math.inf) / (images + tested))), 0)


@checked(random_labels=None)
def load_data(
    name: str | os.PathLike,
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
    """Load a set by name: its splits train, score, validation and test, in the shares of this file's first lines.

    ``digits`` and ``mnist5k`` never need a network, the others are fetched on first use.

    Args:
        name: one of ``DATASETS`` (:func:`register_data` adds yours), or a folder with ``train/<class>/`` and
            ``val/<class>/``, or with ``<class>/`` alone, of PNG or JPEG files.
        root: where the files are or shall go; default ``$PRUNING_DATA``, else ``data`` in the cache.
        device: where the images live; sets read from files are sent there batch by batch.
        normalise: a recipe of ``NORMALISATIONS``; None: the mean and standard deviation of the set itself.
        augment: a recipe of ``AUGMENTATIONS`` for the training split; None: no augmentation.
        seed: the order inside the splits, and so which images ``limit`` keeps. Never which split an image is in.
        limit: the splits but the test set, which is always whole, shrink as if so many images were kept in all: of CIFAR-10
            (60,000 images) 9,000 leave 6,750 for training.
        random_labels: shuffle the labels of the training split, of no other, by this seed: what can a network learn by heart?
        dtype: of the images.

    Raises UnknownName for no such set or recipe, CorruptFile for a damaged file, BadInput for a limit that leaves a split
    with fewer images than classes, a recipe for other channels, and a set that cannot be had.

    >>> load_data("digits").shape
    (1, 8, 8)
    """
    limit = check("limit", limit, Maybe(Whole(at_least=1)))
    random_labels = check("random_labels, the seed of the shuffle,", random_labels, Maybe(SEED))
    seed, device = check("seed", seed, SEED), check("device", device, Device())
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise BadType(f"dtype is a floating-point type of torch, such as torch.float32, not {shown(dtype)}.")
    info = _known(name)
    normalisation, augmentation = Normalisation(info.mean, info.std), None
    if normalise is not None:
        normalisation = NORMALISATIONS[known_name("normalisation", normalise, NORMALISATIONS)]
    if augment is not None:
        augmentation = AUGMENTATIONS[known_name("augmentation", augment, AUGMENTATIONS)]
    folder = located("root", root) if root is not None else data_root()
    request = _Request(info, folder, torch.device(device), normalisation, augmentation, seed, limit, dtype)
    if len(normalisation.mean) not in (1, info.shape[0]):
        raise BadInput(f"the normalisation {normalise!r} is for 3 channels, {name} has {info.shape[0]}.")
    if augmentation and augmentation.scale and info.kind == "tensor":
        raise BadInput(f"the augmentation {augment!r} is for sets read from files, {name} is not one.")
    present(request.device)
    splits = _from_files(request) if info.kind == "folder" else _from_memory(request)
    if random_labels is not None:
        labels = splits["train"].labels
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(random_labels))
        splits["train"].labels = labels[order.to(labels.device)]
    return Data(info.name, request.shape, info.classes, **splits, normalisation=normalisation)


def _known(name: str | os.PathLike) -> DatasetInfo:
    """The entry of that name, or of the folder that it names."""
    if isinstance(name, str) and name in DATASETS:
        info = DATASETS[name]
        if info.folder and folder_fingerprint(Path(info.folder), info.shape[1]) != info.fingerprint:
            raise BadInput(f"the folder of data set {name!r} holds other images than before; register it again.")
        return info
    if isinstance(name, os.PathLike) or (isinstance(name, str) and (os.sep in name or os.path.isdir(name))):
        return folder_info(os.fspath(name), name)
    return DATASETS[known_name("data set", name, DATASETS)]


def _pixels(info: DatasetInfo, root: Path) -> tuple[Raw, float]:
    """The arrays of a set, and the pixel that counts as 1."""
    if info.read is None:
        return load_raw(info.name, root), 16.0 if info.name == "digits" else 255.0
    raw = arrays_of(info.name, info.read)
    if content_sha256(raw) != info.fingerprint:
        raise BadInput(f"the function of data set {info.name!r} returns other images than before; register it again.")
    return raw, 255.0 if raw["train_images"].dtype == np.uint8 else 1.0


def _from_memory(request: _Request) -> dict[str, Split]:
    raw, top = _pixels(request.info, request.root)
    device, shape = request.device, request.shape
    channels = (torch.tensor(values, device=device).expand(shape[0]) for values in astuple(request.normalisation))
    mean, std = (values.view(-1, 1, 1) for values in channels)
    black = (-mean / std).flatten().to(request.dtype)
    splits = {}
    for split, indices in request.chosen(raw["train_labels"], raw.get("test_labels")).items():
        part = "test" if split == "test" and "test_images" in raw else "train"
        images: Tensor = torch.from_numpy(raw[f"{part}_images"][indices]).to(device).float().div_(top)
        if images.shape[1:] != shape:
            images = F.interpolate(images, shape[1:], mode="bilinear", antialias=True)
        images.sub_(mean).div_(std)
        labels = torch.from_numpy(raw[f"{part}_labels"][indices].astype(np.int64)).to(device)
        augmentation = request.augmentation if split == "train" else None
        splits[split] = Split(images.to(request.dtype), labels, augmentation, black)
    return splits


def _listed_tiny(folder: Path, classes: int) -> tuple[list[Path], np.ndarray]:
    """The validation part of Tiny ImageNet as distributed: one folder of images and a table of classes."""
    table = folder / "val_annotations.txt"
    if not table.is_file():
        return listed(folder, classes)
    rows = sorted(line.split("\t")[:2] for line in table.read_text(encoding="utf-8").splitlines() if line)
    number = {name: i for i, name in enumerate(sorted({row[1] for row in rows}))}
    if len(number) != classes:
        raise BadInput(f"{table} must name {classes} classes, but names {len(number)}.")
    return [folder / "images" / row[0] for row in rows], np.asarray([number[row[1]] for row in rows])


def _from_files(request: _Request) -> dict[str, Split]:
    info, classes = request.info, request.info.classes
    train, test = parts(Path(info.folder) if info.folder else image_folder(info.name, request.root))
    files, labels = listed(train, classes)
    test_files, test_labels = _listed_tiny(test, classes) if test else (files, None)
    mean, std = request.normalisation.mean, request.normalisation.std
    reader = ImageReader(request.shape[1], mean, std, request.augmentation, request.dtype)
    side = request.augmentation.side if request.augmentation else None  # a fixed one holds for all splits
    plain = replace(reader, augmentation=Augmentation(side=side) if side else None)
    splits: dict[str, Split] = {}
    for split, indices in request.chosen(labels, test_labels).items():
        own, known = (test_files, test_labels) if split == "test" and test_labels is not None else (files, labels)
        numbers = torch.from_numpy(known[indices].astype(np.int64))
        chosen_reader = reader if split == "train" else plain
        splits[split] = FileSplit([own[i] for i in indices], numbers, chosen_reader, request.device)
    return splits
