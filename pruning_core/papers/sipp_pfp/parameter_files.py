"""The parameter files of SiPP's and PFP's repositories: networks, kept fractions, training (Baykal et al. 2019, baykal2019sipp;
Liebenwein et al. 2020, liebenwein2020pfp)."""

from dataclasses import dataclass
from dataclasses import replace

from pruning_core.errors import known_name
from pruning_core.papers.sipp_pfp.spacings import Fractions
from pruning_core.papers.sipp_pfp.spacings import Spacing
from pruning_core.papers.sipp_pfp.spacings import concatenate
from pruning_core.papers.sipp_pfp.spacings import in_groups


@dataclass(frozen=True)
class FileTraining:
    """How a network is trained or retrained, in the numbers of the file: batch size and rate are those of one GPU.

    ``optimizer`` is "sgd" or "adam"; the rate is multiplied by ``gamma`` at each milestone (epochs) and rises linearly
    in the first ``warmup`` epochs. ``first_epoch``: training starts there, with the rate of that epoch.
    ``gpus``: how many the file says it was run on; the official code multiplies batch size and rate by it.
    """

    epochs: int
    batch_size: int
    lr: float
    milestones: tuple[int, ...]
    gamma: float = 0.1
    warmup: int = 0
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    first_epoch: int = 0
    gpus: int = 1


@dataclass(frozen=True)
class ParameterFile:
    """One parameter file of the official repositories.

    ``network`` and ``data`` are our names, or None with the reason in ``missing``. ``retrained`` is the number of groups
    that the fractions of ``spacing`` are split into (None: each fraction is retrained). ``delta`` is the probability of
    failure from which the size of S, the sample for sensitivities, follows; ``deltas`` lists a sweep over it. ``nets``:
    how many networks are trained, from different seeds.
    """

    network: str | None
    data: str | None
    methods: tuple[str, ...]
    spacing: tuple[Spacing, ...]
    training: FileTraining
    retraining: FileTraining
    retrained: int | None = None
    mode: str = "cascade"
    delta: float = 1e-16
    deltas: tuple[float, ...] = ()
    nets: int = 3
    missing: str | None = None


_BOTH = ("PFP", "FT", "SiPP", "WT", "SNIP")
_IMAGENET = ("SiPP", "PFP", "WT", "FT")
_FILTERS = ("PFP", "FT", "SoftNet", "ThiNet")
_SIPP = ("SiPP", "SiPP-rand", "SiPP-hybrid")
_WEIGHTS = (*_SIPP, "WT", "SNIP")

_RESNET = FileTraining(182, 128, 0.1, (91, 136), warmup=5, gpus=2)
_VGG = FileTraining(300, 256, 0.05, tuple(range(30, 301, 30)), gamma=0.5, warmup=10, weight_decay=5e-4)
_DENSENET = FileTraining(300, 64, 0.1, (150, 225), warmup=10, nesterov=True)
_WRN = FileTraining(200, 128, 0.1, (60, 120, 160), gamma=0.2, warmup=5, weight_decay=5e-4, nesterov=True, gpus=2)
_LENET300 = FileTraining(40, 64, 0.01, (30, 45))
_LENET5 = FileTraining(40, 64, 0.01, (25, 35))
_LONGER = replace(_LENET300, epochs=50)  # the later repository
_CNN5 = FileTraining(60, 128, 1e-3, (50,), weight_decay=0.0, optimizer="adam")
_DEEPKNIGHT = FileTraining(100, 32, 1e-4, (50, 90), optimizer="adam")
_IMAGENET_RESNET = FileTraining(90, 256, 0.1, (30, 60, 80), warmup=5)
_IMAGENET_WRN = replace(_IMAGENET_RESNET, batch_size=128, weight_decay=5e-4, nesterov=True)
_IMAGENET_VGG = replace(_IMAGENET_RESNET, batch_size=16, lr=0.01, weight_decay=5e-4)


def _geometric(n: int, largest: float, smallest: float) -> Spacing:
    return Spacing("geometric", n, largest, smallest)


def _linear(n: int, largest: float, smallest: float) -> Spacing:
    return Spacing("linear", n, largest, smallest)


_FIRST_TWO = _geometric(2, 0.99, 0.855)
_DOWN_TO_2 = ((_FIRST_TWO, _geometric(58, 0.85, 0.02)), 20)
# Architecture of the tables on CIFAR-10 -> our name, training, (spacing, retrained).
_CIFAR = {
    "resnet20": ("resnet20_b", _RESNET, ((_FIRST_TWO, _geometric(58, 0.85, 0.15), _linear(9, 0.132, 0.02)), 23)),
    "resnet56": ("resnet56_bottleneck", _RESNET, _DOWN_TO_2),
    "resnet110": ("resnet110_bottleneck", _RESNET, _DOWN_TO_2),
    "vgg16": ("vgg16", _VGG, _DOWN_TO_2),
    "densenet22": (
        "densenet22", _DENSENET, ((_FIRST_TWO, _geometric(58, 0.85, 0.1), _linear(6, 0.0918, 0.0469)), 22),
    ),
    "wrn16_8": ("wrn16_8", _WRN, ((_FIRST_TWO, _geometric(58, 0.85, 0.1), _linear(9, 0.09182, 0.02)), 23)),
}  # fmt: skip
# Architecture on ImageNet -> name in torchvision, training, spacing.
_ON_IMAGENET = {
    "resnet18": ("resnet18", _IMAGENET_RESNET, (_geometric(12, 0.9, 0.35), _linear(6, 0.31, 0.1))),
    "resnet101": ("resnet101", _IMAGENET_RESNET, (_geometric(12, 0.9, 0.35), _linear(4, 0.31, 0.184))),
    "resnet50": ("resnet50", _IMAGENET_RESNET, (_geometric(10, 0.8, 0.1),)),
    "wrn50_2": ("wide_resnet50_2", _IMAGENET_WRN, (_geometric(10, 0.8, 0.1),)),
    "vgg11": ("vgg11_bn", _IMAGENET_VGG, (_geometric(10, 0.8, 0.1),)),
    "vgg16": ("vgg16_bn", _IMAGENET_VGG, (_geometric(10, 0.8, 0.1),)),
}
_SWEEP = (10.0, 1.0, 0.1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14, 1e-16, 1e-20, 1e-24, 1e-28, 1e-32)


def _cifar(name: str, methods: tuple[str, ...], retraining: FileTraining | None = None) -> ParameterFile:
    network, training, (spacing, retrained) = _CIFAR[name]
    return ParameterFile(network, "cifar10", methods, spacing, training, retraining or training, retrained)


def _from_random(name: str, spacing: tuple[Spacing, ...] = (_geometric(10, 0.8, 0.01),)) -> ParameterFile:
    """Pruned before any training."""
    network, training, _ = _CIFAR[name]
    return ParameterFile(network, "cifar10", _WEIGHTS, spacing, replace(training, epochs=0), training, mode="retrain")


def _imagenet(name: str, methods: tuple[str, ...]) -> ParameterFile:
    network, training, spacing = _ON_IMAGENET[name]
    return ParameterFile(f"torchvision/{network}", "imagenet", methods, spacing, training, training, nets=1)


def _small(
    network: str, data: str, methods: tuple[str, ...], block: Spacing, training: FileTraining, delta: float = 1e-16
):
    return ParameterFile(network, data, methods, (block,), training, training, delta=delta)


def _driving(methods: tuple[str, ...]) -> ParameterFile:
    return ParameterFile(
        None, None, methods, (_geometric(40, 0.1, 0.001),), _DEEPKNIGHT, replace(_DEEPKNIGHT, epochs=0),
        mode="retrain", delta=1e-32,
        missing="the driving data are not public, so neither they nor the network that steers by them is in this package",
    )  # fmt: skip


_LENET300_MNIST = _small("lenet300", "mnist", _BOTH, Spacing("harmonic", 0.8, None, 0.05), _LENET300, 1e-12)
_LENET300_LATER = _small("lenet300", "mnist", _WEIGHTS, _geometric(30, 0.8, 0.01), _LONGER)
_SIZES = replace(
    _LENET300_LATER, methods=_SIPP, spacing=(_geometric(30, 0.99, 0.3),), mode="retrain", deltas=_SWEEP,
    retraining=replace(_LONGER, epochs=0),
)  # fmt: skip
_RESNET20_SIZES = ParameterFile(
    "resnet20_b", "cifar10", _SIPP, (_geometric(30, 0.9, 0.4),), _RESNET, replace(_RESNET, epochs=0), mode="retrain"
)

PARAMETER_FILES: dict[str, ParameterFile] = {
    # The repository of both papers.
    **{f"cifar/{name}": _cifar(name, _BOTH) for name in _CIFAR if name != "vgg16"},
    "cifar/vgg16": _cifar("vgg16", _BOTH, replace(_VGG, epochs=150, warmup=5)),
    "cifar/lenet5": _small("lenet5", "cifar10", _BOTH, _geometric(8, 0.5, 0.05), _LENET5, 1e-9),
    "mnist/lenet300_100": replace(_LENET300_MNIST, retraining=replace(_LENET300, milestones=(25, 35))),
    "mnist/lenet5": _small("lenet5", "mnist", _BOTH, _geometric(15, 0.5, 0.02), _LENET5, 1e-9),
    **{f"imagenet/{name}": _imagenet(name, _IMAGENET) for name in _ON_IMAGENET},
    "driving/deepknight": _driving(("SiPP", "WT")),
    # The later repository, PFP.
    **{f"pfp/cifar/{name}": _cifar(name, _FILTERS) for name in _CIFAR if name != "vgg16"},
    "pfp/cifar/vgg16": _cifar("vgg16", _FILTERS, replace(_VGG, epochs=150)),
    "pfp/cifar/cnn5": ParameterFile(
        "cnn5", "cifar10", ("ALDS", "WT", "PFP", "FT", "ThiNet"), (_geometric(15, 0.9, 0.1),), _CNN5, _CNN5,
        mode="retrain",
    ),
    "pfp/mnist/lenet300_100": replace(_LENET300_MNIST, methods=_FILTERS, training=_LONGER, retraining=_LONGER),
    # This file names a training recipe that the later repository lacks; the one of the first is taken.
    "pfp/mnist/lenet5": _small("lenet5", "mnist", _FILTERS, _geometric(15, 0.5, 0.02), _LENET5, 1e-9),
    **{f"pfp/imagenet/{name}": _imagenet(name, _FILTERS) for name in ("resnet18", "resnet50", "resnet101")},
    "pfp/driving/deepknight": _driving(_FILTERS),
    # The later repository, SiPP.
    **{f"sipp/cifar/cascade/{name}": _cifar(name, _WEIGHTS) for name in _CIFAR if name != "vgg16"},
    "sipp/cifar/cascade/vgg16": _cifar("vgg16", _WEIGHTS, replace(_VGG, epochs=150)),
    "sipp/cifar/cascade/wrn28_2": ParameterFile(
        "wrn28_2", "cifar10", _SIPP, (_geometric(20, 0.7, 0.05),), _WRN, _WRN,
    ),
    **{f"sipp/cifar/rand/{name}_rand": _from_random(name) for name in _CIFAR if name != "resnet20"},
    "sipp/cifar/rand/resnet20_rand": _from_random("resnet20", (_geometric(10, 0.8, 0.1), _linear(4, 0.08, 0.02))),
    "sipp/cifar/sweep/resnet20_default": _RESNET20_SIZES,
    "sipp/cifar/sweep/resnet20_sizes": replace(_RESNET20_SIZES, deltas=_SWEEP),
    **{f"sipp/imagenet/{name}": _imagenet(name, _WEIGHTS) for name in ("resnet18", "resnet101")},
    "sipp/mnist/lenet300": _LENET300_LATER,
    "sipp/mnist/lenet300_sizes": _SIZES,
    "sipp/mnist/lenet300_sizes2": replace(_SIZES, retraining=replace(_LONGER, first_epoch=48)),
    "sipp/mnist/lenet5": _small("lenet5", "mnist", _WEIGHTS, _geometric(30, 0.8, 0.01), _LONGER),
    "sipp/mnist/fc_nettrim": _small("fc_nettrim", "mnist", _WEIGHTS, _geometric(30, 0.8, 0.01), _LONGER),
}  # fmt: skip
"""Name of an official parameter file -> its settings; "pfp/..." and "sipp/..." are those of the later repository."""


def parameter_file(name: str) -> ParameterFile:
    """The entry of PARAMETER_FILES. Raises UnknownName with the nearest name."""
    return PARAMETER_FILES[known_name("parameter file", name, PARAMETER_FILES)]


def kept_fractions(name: str) -> Fractions:
    """All kept fractions of a parameter file, in their order. Raises UnknownName.

    >>> len(kept_fractions("cifar/resnet20"))
    69
    """
    return concatenate(parameter_file(name).spacing)


def retrained(name: str) -> Fractions:
    """The kept fractions of a parameter file at which the network is retrained. Raises UnknownName.

    >>> [round(kept, 3) for kept in retrained("cifar/resnet20")[-4:]]
    [0.15, 0.104, 0.062, 0.02]
    """
    return tuple(group[-1] for group in in_groups(kept_fractions(name), parameter_file(name).retrained))
