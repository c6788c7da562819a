"""The image sets of the book: ``load_data(name)`` gives four fixed splits, normalised, on one device."""

from pruning_core.data.feeds import Feed
from pruning_core.data.loading import Data, data_root, load_data
from pruning_core.data.own import register_data
from pruning_core.data.sets import (
    AUGMENTATIONS,
    DATASETS,
    IMAGENETTE_CLASSES,
    NORMALISATIONS,
    Augmentation,
    DatasetInfo,
    Normalisation,
)
from pruning_core.data.splits import Split

__all__ = [
    "AUGMENTATIONS", "DATASETS", "IMAGENETTE_CLASSES", "NORMALISATIONS", "Augmentation", "Data", "DatasetInfo",
    "Feed", "Normalisation", "Split", "data_root", "load_data",
    "register_data",
]  # fmt: skip
