"""What the image sets are, and how the papers normalise and augment them: the tables of ``sets.yml`` by name.

Augmentation changes whole batches at a time on their device. All its draws come from the generator that is given, so that a
run can be repeated bit by bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.checks import checked
from pruning_core.records.files import read_yaml

Floats = tuple[float, ...]


@checked
@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) / std`` a channel, for pixels in [0, 1].

    >>> Normalisation(mean=(0.5,), std=(0.25,))
    Normalisation(mean=(0.5,), std=(0.25,))
    """

    mean: Floats
    std: Floats


@checked
@dataclass(frozen=True)
class DatasetInfo:
    """What there is to know about a set before it is loaded; data/README.md says more.

    >>> DATASETS["digits"].classes, DATASETS["digits"].licence
    (10, 'CC BY 4.0 (unverified)')
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: Floats
    std: Floats
    sizes: tuple[int, int]  # official training and test images; 0 where there is no official test set
    source: str
    licence: str
    kind: Literal["tensor", "folder"] = "tensor"
    files: Mapping[str, str] = field(default_factory=dict)  # address -> SHA-256 of what its official place serves
    read: Callable[[], Any] | None = None  # a function of one's own that returns the images (data/own.py)
    folder: str | None = None  # a folder of one's own
    fingerprint: str = ""  # SHA-256 of what is one's own: with other images an experiment is another one


@checked
@dataclass(frozen=True)
class Augmentation:
    """What a training image goes through at random. All fields at rest: nothing.

    pad: a crop of the image's size, at random after padding with so many black pixels at each edge.
    flip: the probability of a left-right flip.
    rotate: a turn by an angle from [-rotate, rotate] degrees, nearest pixel, black corners.
    scale: smallest and largest share of the area for a random resized crop (sets read from files only).
    side: every image, of all splits, is first resized to this square. No randomness, but the papers' recipes hold it.

    >>> Augmentation(pad=4, flip=0.5)
    Augmentation(pad=4, flip=0.5, rotate=0.0, scale=None, side=None)
    """

    pad: int = 0
    flip: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] | None = None
    side: int | None = None

    def __call__(self, x: Tensor, black: Tensor, generator: torch.Generator) -> Tensor:
        """A new batch from ``x`` (N, C, H, W), in which a black pixel has the values ``black`` (C,)."""
        if self.rotate:
            x = _rotated(x, black, self.rotate, generator)
        if self.pad or self.flip:
            x = _cropped_and_flipped(x, black, self.pad, self.flip, generator)
        return x


def _uniform(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device).to(device)


def _cropped_and_flipped(x: Tensor, black: Tensor, pad: int, flip: float, generator: torch.Generator) -> Tensor:
    n, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device).expand(n, height)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if flip:
        turned = _uniform(n, generator, x.device) < flip
        columns = torch.where(turned[:, None], width - 1 - columns, columns)
    if pad:
        shifts = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=generator.device).to(x.device)
        rows, columns = rows + shifts[0], columns + shifts[1]
        framed = black.view(1, -1, 1, 1).expand(n, channels, height + 2 * pad, width + 2 * pad).clone()
        framed[:, :, pad:-pad, pad:-pad] = x
        x = framed
    x = x.gather(2, rows[:, None, :, None].expand(n, channels, height, x.shape[3]))
    return x.gather(3, columns[:, None, None, :].expand(n, channels, height, width))


def _rotated(x: Tensor, black: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    angle = torch.deg2rad((2 * _uniform(len(x), generator, x.device) - 1) * degrees)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(turn.to(x.dtype), list(x.shape), align_corners=False)
    level = black.view(1, -1, 1, 1)
    return F.grid_sample(x - level, grid, mode="nearest", align_corners=False) + level


def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Table -> name -> field -> value, lists as tuples."""
    tables = read_yaml(Path(__file__).with_name("sets.yml"))
    for entry in (entry for table in tables.values() for entry in table.values()):
        entry.update({field: tuple(value) for field, value in entry.items() if isinstance(value, list)})
    return tables


_TABLES = _tables()
DATASETS = {name: DatasetInfo(name, **entry) for name, entry in _TABLES["datasets"].items()}
NORMALISATIONS = {recipe: Normalisation(**entry) for recipe, entry in _TABLES["normalisations"].items()}
AUGMENTATIONS = {recipe: Augmentation(**entry) for recipe, entry in _TABLES["augmentations"].items()}

IMAGENETTE_CLASSES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""Where Imagenette's ten classes, in the order of their folders, stand among ImageNet's thousand."""
