"""Labelled images in splits and batches: one tensor on the device, or files read by a loader; which image goes where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pruning_core.checks import Whole, check, checked
from pruning_core.data.sets import Augmentation
from pruning_core.errors import BadInput, CorruptFile, shown
from pruning_core.records.places import file_bytes

WITH_TEST_SET = {"score": 0.05, "validation": 0.05}
WITHOUT_TEST_SET = {"test": 0.2, "score": 0.08, "validation": 0.08}
"""Shares of the images of each class that leave the training split, where there is an official test set, and where not."""


@checked
class Split:
    """A fixed part of a data set in memory: normalised ``inputs`` (N, C, H, W), ``labels`` (N,) int64.

    >>> split = Split(torch.zeros(10, 1, 8, 8), torch.arange(10))
    >>> len(split), len(split.subset(4)), [len(labels) for _, labels in split.batches(4)]
    (10, 4, [4, 4, 2])
    """

    _by_image: tuple[str, ...] = ("inputs", "labels")

    def __init__(
        self, inputs: Tensor, labels: Tensor, augmentation: Augmentation | None = None, black: Tensor | None = None
    ):
        if not inputs.dim() or not labels.dim() or len(inputs) != len(labels):
            raise BadInput(f"a split has as many labels as inputs, not {shown(labels)} for {shown(inputs)}.")
        self.inputs, self.labels, self.augmentation, self.black = inputs, labels, augmentation, black

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images)"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches(256)

    @checked(size=None)
    def batches(
        self, size: int, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (inputs, labels) on the device of the split.

        With a generator in an order drawn from it, and augmented when the split has an augmentation; without
        one in the fixed order and never augmented. ``drop_last`` leaves out a last batch that is not full.
        Raises BadInput for a size below 1, or when ``drop_last`` would leave nothing.
        """
        size = check("the batch size", size, Whole(at_least=1))
        if drop_last and size > len(self):
            raise BadInput(f"batches of {size} of {len(self)} images with drop_last leave nothing.")
        end = len(self) - len(self) % size if drop_last else len(self)
        return self._batches(size, end, generator)

    def _batches(self, size: int, end: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        order = None
        if generator is not None:
            order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.labels.device)
        for start in range(0, end, size):
            part = slice(start, min(start + size, end))
            chosen = part if order is None else order[part]
            x = self.inputs[chosen]
            if generator is not None and self.augmentation is not None and self.black is not None:
                x = self.augmentation(x, self.black, generator)
            yield x, self.labels[chosen]

    def subset(self, n: int) -> Self:
        """The first ``n`` images; any beginning of a split holds the classes in nearly their proportions."""
        n = check("the number of images of a subset", n, Whole(at_least=1, at_most=len(self)))
        part = copy(self)
        for name in self._by_image:
            setattr(part, name, getattr(self, name)[:n])
        return part


def joined(splits: Sequence[Split]) -> Split:
    """The images of several splits of one set as one, augmented as the first is."""
    whole = copy(splits[0])
    for name in whole._by_image:
        parts = [getattr(split, name) for split in splits]
        setattr(
            whole, name, torch.cat(parts) if isinstance(parts[0], Tensor) else [item for part in parts for item in part]
        )
    return whole


class FileSplit(Split):
    """A fixed part of a data set too large for memory: files, decoded by worker processes meanwhile."""

    _by_image = ("files", "labels")

    def __init__(self, files: Sequence[Path], labels: Tensor, reader: ImageReader, device: torch.device):
        self.files, self.labels, self.reader, self.device = list(files), labels, reader, device
        self.augmentation, self.black = reader.augmentation, None

    @property
    def inputs(self) -> Tensor:  # type: ignore[override]
        raise BadInput("the images of this set do not fit in memory: read them with batches().")

    def _batches(self, size: int, end: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        from torch.utils.data import DataLoader

        if generator is None:
            order, start = torch.arange(len(self)), None
        else:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
            start = int(torch.randint(2**40, (), generator=generator, device=generator.device))
        labels = self.labels.tolist()
        items: Any = [(self.files[i], labels[i], None if start is None else start + i) for i in order[:end].tolist()]
        workers = min(8, os.cpu_count() or 1, len(items) // 256)
        options: dict[str, Any] = {"num_workers": workers, "pin_memory": self.device.type == "cuda"}
        options["generator"] = torch.Generator()  # a loader without one draws from the global state
        for x, y in DataLoader(items, size, collate_fn=self.reader.batch, **options):
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class ImageReader:
    """Decodes a file to a normalised tensor (3, side, side); with a seed it augments."""

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | None = None
    dtype: torch.dtype = torch.float32

    def batch(self, items: list[tuple[Path, int, int | None]]) -> list[Tensor]:
        """Images (N, 3, side, side) and labels (N,) of files, each with its label and its seed."""
        return torch.utils.data.default_collate([(self(path, seed), label) for path, label, seed in items])

    def __call__(self, path: Path, seed: int | None) -> Tensor:
        """Raises CorruptFile for a file that is no whole image."""
        from PIL import Image
        from torchvision.transforms import v2

        try:
            with Image.open(BytesIO(file_bytes(path))) as file:
                picture = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise CorruptFile(f"{path} is no whole image: {error}.") from error
        chosen = self.augmentation or Augmentation()
        steps: list[Any]
        if chosen.side:
            steps = [v2.Resize((self.side, self.side), antialias=True)]
        elif chosen.scale and seed is not None:
            steps = [v2.RandomResizedCrop(self.side, scale=chosen.scale, antialias=True)]
        elif picture.size == (self.side, self.side):
            steps = []
        else:  # the usual margin of an eighth around the middle
            steps = [v2.Resize(round(self.side / 0.875), antialias=True), v2.CenterCrop(self.side)]
        if seed is not None:
            steps += [v2.RandomCrop(self.side, padding=chosen.pad)] if chosen.pad else []
            steps += [v2.RandomRotation(chosen.rotate)] if chosen.rotate else []
            steps += [v2.RandomHorizontalFlip(chosen.flip)] if chosen.flip else []
        steps += [v2.ToImage(), v2.ToDtype(self.dtype, scale=True), v2.Normalize(self.mean, self.std)]
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global state
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            return v2.Compose(steps)(picture)


def _scrambled(n: int, salt: int) -> np.ndarray:
    """n fixed pseudo-random 64-bit numbers (splitmix64): the same in every version of every library."""
    z = np.arange(n, dtype=np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _by_class(labels: np.ndarray, keys: np.ndarray) -> Iterator[np.ndarray]:
    """Class by class where its labels stand, in the order of their keys."""
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        yield own[np.argsort(keys[own], kind="stable")]


def mixed(labels: np.ndarray, indices: np.ndarray, salt: int) -> np.ndarray:
    """``indices`` in an order of which every beginning holds the classes in nearly their proportions."""
    keys = _scrambled(len(labels), salt)[indices]
    place = np.empty(len(indices))
    for own in _by_class(labels[indices], keys):
        place[own] = (np.arange(len(own)) + keys[own] / 2.0**64) / len(own)
    return indices[np.argsort(place, kind="stable")]


def split_indices(labels: np.ndarray, shares: dict[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Disjoint index arrays for ``shares`` of the images of each class, what is left under "train".

    Which split an image belongs to depends on the labels only; ``seed`` changes the order inside the splits.
    """
    keys = _scrambled(len(labels), 0)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in [*shares, "train"]}
    for own in _by_class(labels, keys):
        stops = np.cumsum([round(share * len(own)) for share in shares.values()])
        for name, part in zip(parts, np.split(own, stops), strict=True):
            parts[name].append(part)
    return {name: mixed(labels, np.concatenate(part), seed + 1) for name, part in parts.items()}
