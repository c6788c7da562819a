"""Data sets of one's own under a name: arrays that a function returns, or a folder of image files."""

import hashlib
import math
import os
import time
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruning_core.checks import Dense, Maybe, Whole, check, checked
from pruning_core.data.downloads import content_sha256
from pruning_core.data.sets import DATASETS, NORMALISATIONS, DatasetInfo
from pruning_core.data.sources import Raw
from pruning_core.data.splits import WITH_TEST_SET, WITHOUT_TEST_SET, split_indices
from pruning_core.errors import BadInput, BadType, CorruptFile, named_failures, said
from pruning_core.progress import progress_bar
from pruning_core.records.places import check_name, file_bytes, located, regular_file

LARGEST_SIDE = 224  # of images in a folder for which nobody names a side
SUFFIXES = (".jpeg", ".jpg", ".png")
END = 32 * 1024  # a photograph that is changed is another at its end, since its pixels are packed


@checked
def register_data(
    name: str, source: str | os.PathLike | Callable[[], Any] | None = None, *, side: int | None = None
) -> Any:
    """Give a data set of your own a name, for load_data, Experiment, build_model and the command line of this process.

    ``source`` is a function without arguments, or a folder. With the name alone it is a decorator of such a function.

    A function returns ``(images, labels)``, or ``(images, labels, test images, test labels)``: arrays or tensors, images
    (N, C, H, W) or (N, H, W), as bytes (0..255) or floating-point numbers, which stay as they are; labels (N,), whole numbers
    from 0. Without a test set a fifth of the images becomes one. Mean and standard deviation are those of the training split.
    It is called once more at every load, and must return the same.

    A folder holds ``train/<class>/`` and ``val/<class>/`` (or ``test/<class>/``), or ``<class>/`` alone, with PNG or JPEG
    files, which are read when they are needed. ``side`` is the height and width that a network sees (default: the smaller
    side of the first image, at most 224), and the normalisation is ImageNet's.

    Returns ``source``. Raises BadInput for what cannot be a data set, before anything is stored; a name of the book's
    own sets is taken, one of yours may be registered again.

    >>> pixels = np.arange(60 * 16, dtype=np.uint8).reshape(60, 4, 4)
    >>> _ = register_data("ramps", lambda: (pixels, np.arange(60) % 2))
    >>> DATASETS["ramps"].shape, DATASETS.pop("ramps").classes
    ((1, 4, 4), 2)
    """
    name, side = check_name("a data set", name), check("side", side, Maybe(Whole(at_least=1)))
    if (held := DATASETS.get(name)) is not None and held.read is None and held.folder is None:
        raise BadInput(f"the name {name!r} is taken by a data set of the book.")
    if source is None:
        return lambda function: register_data(name, function, side=side)
    if isinstance(source, (str, os.PathLike)):
        DATASETS[name] = folder_info(name, source, side)
    elif callable(source):
        if side is not None:
            raise BadInput(f"side={side} is for folders of images; arrays have their own.")
        DATASETS[name] = _array_info(name, source)
    else:
        raise BadType(f"a data set is a folder or a function that returns arrays, not {type(source).__name__}.")
    return source


def named_data(given: str) -> str:
    """A name of a data set, for which the path of a folder of images may stand: that gets a name, the folder's own.

    Where the book has a set of that name, " of mine" follows it. Raises BadInput as :func:`register_data` does; a name that
    nobody knows is returned as it is.

    >>> named_data("digits")
    'digits'
    """
    if given in DATASETS or not (os.sep in given or os.path.isdir(given)):
        return given
    name = Path(os.path.abspath(located("a folder of images", given))).name or "images"
    name = unicodedata.normalize("NFC", name)  # some file systems take accents apart
    held = DATASETS.get(name)
    name += " of mine" if held is not None and held.folder is None else ""
    register_data(name, given)
    return name


def folder_info(name: str, folder: str | os.PathLike, side: int | None = None) -> DatasetInfo:
    """What there is to know about a folder of images; see :func:`register_data`."""
    from PIL import Image

    place = located("a folder of images", folder)
    if not os.path.isdir(place):  # Path.is_dir raises where nobody may look
        raise BadInput(f"there is no folder {place}.")
    train, test = parts(place)
    files, labels = listed(train)
    sizes = (len(files), 0)
    classes = int(labels.max()) + 1
    check_counts(name, np.bincount(labels), test is not None)
    if test is not None:
        sizes = (len(files), len(listed(test, classes)[0]))
    if side is None:
        try:
            with Image.open(BytesIO(file_bytes(files[0]))) as first:
                side = min(*first.size, LARGEST_SIDE)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise CorruptFile(f"{files[0]} is no whole image: {error}.") from error
    usual = NORMALISATIONS["imagenet"]
    return DatasetInfo(
        name, (3, side, side), classes, usual.mean, usual.std, sizes, "a folder of yours", "yours", "folder",
        folder=str(place), fingerprint=folder_fingerprint(place, side),
    )  # fmt: skip


def folder_fingerprint(folder: Path, side: int) -> str:
    """SHA-256 over ``side`` and the names, sizes and contents of the images; of a large one its ends, of END bytes each.

    They are read again only where the system has noted a change since this process read them.
    """
    found = sorted(path for part in parts(folder) if part is not None for path in listed(part)[0])
    noted, newest = hashlib.sha256(), 0
    for path in found:
        try:
            about = path.stat()
        except OSError as error:
            raise CorruptFile(f"{path} is no image that can be read: {error.strerror}.") from error
        noted.update(os.fsencode(f"\n{path} {about.st_ino} {about.st_size} {about.st_ctime_ns}"))
        newest = max(newest, about.st_ctime_ns)
    key, state = (str(folder), side), noted.hexdigest()
    if key in _READ and _READ[key][0] == state:
        return _READ[key][1]
    settled = time.time_ns() - newest > TICK  # else a change to come could bear the time of the last one
    fingerprint = _fingerprint(folder, side, found)
    if settled:
        _READ[key] = state, fingerprint
    return fingerprint


TICK = 1_000_000_000
"""Nanoseconds; the clock of a file system may be as coarse."""

_READ: dict[tuple[str, int], tuple[str, str]] = {}
"""Of a folder and a side what the system noted of the files, and their fingerprint."""


def _fingerprint(folder: Path, side: int, found: list[Path]) -> str:
    digest = hashlib.sha256(f"{side}".encode())
    with progress_bar(True, iterable=found, unit="image", desc="looking at the images", leave=False, delay=5) as images:
        for path in images:
            try:
                with regular_file(path) as file:
                    size = os.fstat(file.fileno()).st_size
                    digest.update(os.fsencode(f"\n{path.relative_to(folder).as_posix()} {size} "))
                    digest.update(file.read(2 * END if size <= 2 * END else END))
                    if size > 2 * END:
                        file.seek(-END, os.SEEK_END)
                        digest.update(file.read(END))
            except OSError as error:
                raise CorruptFile(f"{path} is no image that can be read: {error.strerror}.") from error
    return digest.hexdigest()


def parts(folder: Path) -> tuple[Path, Path | None]:
    """Where the training images are, and the test images if they have a folder: ``val``, else ``test``."""
    if not (folder / "train").is_dir():
        return folder, None
    return folder / "train", next((folder / part for part in ("val", "test") if (folder / part).is_dir()), None)


def listed(folder: Path, classes: int | None = None) -> tuple[list[Path], np.ndarray]:
    """Image files and labels below one folder a class; the classes are numbered by name."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if (classes is None and len(names) < 2) or classes not in (None, len(names)):
        wanted = "two folders or more" if classes is None else f"{classes} folders"
        raise BadInput(f"{folder} must hold {wanted}, one a class, but holds {len(names)}.")
    files, labels = [], []
    for label, name in enumerate(names):
        own = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        if not own:
            raise BadInput(f"{folder / name} holds no images.")
        files += own
        labels += [label] * len(own)
    return files, np.asarray(labels)


def _array_info(name: str, function: Callable[[], Any]) -> DatasetInfo:
    raw = arrays_of(name, function)
    images, labels, tested = raw["train_images"], raw["train_labels"], "test_images" in raw
    _check_classes(name, raw)
    own = split_indices(labels, WITHOUT_TEST_SET)["train"] if not tested else np.arange(len(labels))
    values = torch.from_numpy(images[own]).double() / (255 if images.dtype == np.uint8 else 1)
    mean, std = (tuple(part.tolist()) for part in (values.mean((0, 2, 3)), values.std((0, 2, 3))))
    if not all(std):
        raise BadInput(
            f"the images of {name!r} have a channel that is the same everywhere, so nothing can be learnt from it."
        )
    _, channels, height, width = images.shape
    return DatasetInfo(
        name, (channels, height, width), int(labels.max()) + 1, mean, std,
        (len(labels), len(raw["test_labels"]) if tested else 0), "a function of yours", "yours",
        read=function, fingerprint=content_sha256(raw),
    )  # fmt: skip


def _check_classes(name: str, raw: Raw) -> None:
    labels = raw["train_labels"]
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or classes[0] != 0 or classes[-1] != len(classes) - 1:
        raise BadInput(
            f"the labels of {name!r} must be the whole numbers from 0 to classes - 1, each of them there, and at least two."
        )
    check_counts(name, counts, "test_images" in raw)
    if "test_images" in raw and not set(np.unique(raw["test_labels"])) <= set(classes.tolist()):
        raise BadInput(f"the test labels of {name!r} hold a class that the training labels do not.")


def check_counts(name: str, counts: np.ndarray, tested: bool) -> None:
    """Every split must get an image of every class."""
    least = math.floor(0.5 / min((WITH_TEST_SET if tested else WITHOUT_TEST_SET).values())) + 1
    if counts.min() < least:
        raise BadInput(
            f"class {int(counts.argmin())} of {name!r} has {counts.min()} images to learn from; at least {least} are needed, "
            "so that every split has some."
        )


def arrays_of(name: str, function: Callable[[], Any]) -> Raw:
    """What the function returns, as arrays (N, C, H, W) of bytes or float32 and labels (N,), checked."""
    with named_failures(f"the function of data set {name!r}"):
        found = function()
    if not isinstance(found, (tuple, list)) or len(found) not in (2, 4):
        raise BadType(
            f"the function of {name!r} must return (images, labels) or (images, labels, test images, test labels)."
        )
    raw: Raw = {}
    for part, images, labels in zip(("train", "test"), found[::2], found[1::2], strict=False):
        raw[f"{part}_images"], raw[f"{part}_labels"] = _images(name, images), _labels(name, labels)
        if len(raw[f"{part}_images"]) != len(raw[f"{part}_labels"]):
            raise BadInput(f"{name!r} has {len(images)} {part} images and {len(labels)} labels.")
    if "test_images" in raw and raw["test_images"].shape[1:] != raw["train_images"].shape[1:]:
        raise BadInput(f"the test images of {name!r} have another shape than the training images.")
    return raw


def _images(name: str, images: Any) -> np.ndarray:
    found = _array(f"the images of {name!r}", images)
    found = found[:, None] if found.ndim == 3 else found
    if found.ndim != 4 or not found.size:
        raise BadInput(f"the images of {name!r} must have the shape (N, C, H, W) or (N, H, W), not {found.shape}.")
    if found.dtype == np.uint8:
        return np.ascontiguousarray(found)
    floats = np.issubdtype(found.dtype, np.floating)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(found, dtype=np.float32) if floats else found
    if not floats or not np.isfinite(single).all():  # a double may be beyond what a float of 32 bits holds
        raise BadInput(f"the images of {name!r} must be bytes or finite floating-point numbers, not {found.dtype}.")
    return single


def _array(words: str, values: Any) -> np.ndarray:
    """What somebody's function returned, as an array; BadType or BadInput for what cannot be one."""
    if isinstance(values, torch.Tensor):
        values = check(words, values, Dense()).detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths
        raise BadInput(f"{words} make no array: {said(error)}") from error


def _labels(name: str, labels: Any) -> np.ndarray:
    found = _array(f"the labels of {name!r}", labels)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise BadInput(f"the labels of {name!r} must be a vector of whole numbers.")
    return found.astype(np.int64)
