"""What the image sets are, and how the papers normalise and augment them: the tables of ``sets.yml`` by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pruning_core.data.augmentation import Augmentation

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


def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Table -> name -> field -> value, lists as tuples."""
    text = Path(__file__).with_name("sets.yml").read_text(encoding="utf-8")
    tables = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for entry in (entry for table in tables.values() for entry in table.values()):
        entry.update({field: tuple(value) for field, value in entry.items() if isinstance(value, list)})
    return tables


_TABLES = _tables()
DATASETS = {name: DatasetInfo(name, **entry) for name, entry in _TABLES["datasets"].items()}
NORMALISATIONS = {recipe: Normalisation(**entry) for recipe, entry in _TABLES["normalisations"].items()}
AUGMENTATIONS = {recipe: Augmentation(**entry) for recipe, entry in _TABLES["augmentations"].items()}

IMAGENETTE_CLASSES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""Where Imagenette's ten classes, in the order of their folders, stand among ImageNet's thousand."""
