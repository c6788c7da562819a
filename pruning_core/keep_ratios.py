"""The fractions of weights that SiPP and PFP keep, in their own spacings, and the parameter files they stand in.

A *kept* fraction lies in (0, 1]; what our experiments call sparsity is one minus it. Blocks of spacings are put one behind
the other and split into groups, as even as possible and the longer ones first; a network is retrained at the last fraction
of each group and only compressed at the others. Sources: the official code of Baykal et al. 2019 (baykal2019sipp) and
Liebenwein et al. 2020 (liebenwein2020pfp), whose tables of settings are PARAMETER_FILES below.

>>> [round(kept, 3) for kept in geometric(4, 0.8, 0.1)]
[0.8, 0.4, 0.2, 0.1]
>>> groups([0.9, 0.8, 0.7, 0.6, 0.5], 2)
((0.9, 0.8, 0.7), (0.6, 0.5))
>>> compressed_before([0.9, 0.8, 0.7, 0.6, 0.5], 2, mode="retrain")
((0.9, 0.8), (0.9, 0.8, 0.6))
"""

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import pairwise

from pruning_core.checks import Real
from pruning_core.checks import Several
from pruning_core.checks import Whole
from pruning_core.checks import check
from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import known_name

MODES = {
    "train": "the dense network only",
    "retrain": "each fraction from the weights of the dense network, compressed step by step, then trained",
    "cascade": "each fraction from the network retrained at the one before",
    "cascade-random": "as cascade, but what is left starts from new random weights and is trained in full",
    "cascade-rewind": "as cascade, but what is left goes back to its weights of an earlier epoch",
}
"""What happens between two kept fractions."""

Fractions = tuple[float, ...]
KEPT = Real(above=0, at_most=1)


def _check_range(n: int, largest: float, smallest: float) -> None:
    check("the number of kept fractions", n, Whole(at_least=1))
    if check("largest", largest, KEPT) < check("smallest", smallest, KEPT):
        raise BadInput(f"kept fractions go down from the largest to the smallest, not from {largest} to {smallest}.")


def _between(n: int, largest: float, smallest: float, curve: Callable[[float], float]) -> Fractions:
    """``curve(i / (n - 1))`` with both ends exact; a single fraction is the largest."""
    inner = tuple(curve(i / (n - 1)) for i in range(1, n - 1))
    return (float(largest), *inner, float(smallest))[:n]


def geometric(n: int, largest: float, smallest: float) -> Fractions:
    """``n`` fractions from ``largest`` to ``smallest`` with equal ratios. Raises BadInput or BadType."""
    _check_range(n, largest, smallest)
    return _between(n, largest, smallest, lambda t: largest * (smallest / largest) ** t)


def linear(n: int, largest: float, smallest: float) -> Fractions:
    """``n`` fractions from ``largest`` to ``smallest`` with equal differences. Raises BadInput or BadType."""
    _check_range(n, largest, smallest)
    return _between(n, largest, smallest, lambda t: largest + (smallest - largest) * t)


def cubic(n: int, largest: float, smallest: float) -> Fractions:
    """``smallest + (largest - smallest) (1 - i / (n - 1))^3`` for i = 0 .. n - 1. Raises BadInput or BadType."""
    _check_range(n, largest, smallest)
    return _between(n, largest, smallest, lambda t: smallest + (largest - smallest) * (1 - t) ** 3)


def harmonic(n: float, smallest: float) -> Fractions:
    """``(i + 1) ** -p`` for i = 1, 2, ... down to ``smallest``, with p such that i = ``n`` would keep one half.

    ``p = ln 2 / ln(1 + n)``; n need not be a whole number. There are ``max(1, floor(smallest ** (-1 / p)))`` fractions, as
    in the official code, so that the last one may lie a little below ``smallest``. Raises BadInput or BadType.

    >>> [round(kept, 4) for kept in harmonic(0.8, 0.2)]
    [0.4416, 0.2738, 0.195]
    """
    check("the number of intervals to one half", n, Real(above=0))
    smallest = check("smallest", smallest, KEPT)
    power = math.log(2) / math.log(1 + n)
    count = max(1, int(smallest ** (-1.0 / power)))
    return tuple((i + 1) ** -power for i in range(1, count + 1))


def harmonic2(n: int, largest: float, smallest: float) -> Fractions:
    """``largest i ** -p`` for i = 1 .. n, with ``p = ln(largest / smallest) / ln n``. Raises BadInput or BadType."""
    _check_range(n, largest, smallest)
    if n == 1:
        return (largest,)
    power = math.log(largest / smallest) / math.log(n)
    return tuple(largest * i**-power for i in range(1, n)) + (smallest,)


def manual(values: Iterable[float]) -> Fractions:
    """The fractions as given, in their order. Raises BadInput when there is none or one lies outside (0, 1]."""
    return tuple(map(float, check("kept fractions", values, Several(KEPT, at_least=1))))


SPACINGS: dict[str, Callable[..., Fractions]] = {
    function.__name__: function for function in (geometric, linear, cubic, harmonic, harmonic2, manual)
}
"""Name of a spacing -> function to its kept fractions."""


@dataclass(frozen=True)
class Block:
    """One spacing with its numbers: ``kind`` of SPACINGS, the arguments of that function, ``fractions()`` calls it.

    ``n`` is the number of fractions, for "harmonic" the intervals down to one half; "manual" has ``values`` only.
    """

    kind: str
    n: float | None = None
    largest: float | None = None
    smallest: float | None = None
    values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        known_name("spacing", self.kind, SPACINGS)
        needed = {"harmonic": {"n", "smallest"}, "manual": {"values"}}.get(self.kind, {"n", "largest", "smallest"})
        given = {field for field in ("n", "largest", "smallest", "values") if getattr(self, field) is not None}
        if given != needed:
            raise BadInput(f"a {self.kind} spacing takes exactly {', '.join(sorted(needed))}, not {sorted(given)}.")
        self.fractions()  # refuses what lies outside (0, 1]

    def fractions(self) -> Fractions:
        """The kept fractions of this block, the largest first (in the order given for "manual")."""
        given = {field: getattr(self, field) for field in ("n", "largest", "smallest", "values")}
        return SPACINGS[self.kind](**{field: value for field, value in given.items() if value is not None})


def concatenate(blocks: Iterable[Block]) -> Fractions:
    """The fractions of all blocks, one block behind the other. Raises BadInput when there is no block."""
    blocks = tuple(blocks)
    for block in blocks:
        if not isinstance(block, Block):
            raise BadType(f"kept fractions are made of Block(...), not {block!r}.")
    if not blocks:
        raise BadInput("there must be at least one block of kept fractions.")
    return tuple(fraction for block in blocks for fraction in block.fractions())


def groups(fractions: Sequence[float], count: int | None = None) -> tuple[Fractions, ...]:
    """``fractions`` in ``count`` groups whose sizes differ by at most one, the longer ones first; None: one each.

    The network is retrained at the last fraction of each group. Raises BadInput for more groups than fractions.
    """
    fractions = manual(fractions)
    count = len(fractions) if count is None else count
    count = check("the number of groups", count, Whole(at_least=1, at_most=len(fractions)))
    size, longer = divmod(len(fractions), count)
    ends = [size * g + min(g, longer) for g in range(count + 1)]
    return tuple(fractions[start:end] for start, end in pairwise(ends))


def compressed_before(
    fractions: Sequence[float], count: int | None = None, mode: str = "cascade"
) -> tuple[Fractions, ...]:
    """For each retrained fraction, the fractions that are only compressed on the way to it.

    In a cascade these are the others of its group. Every other mode starts again from the dense network, so the
    compress-only fractions of the groups before come first. Raises UnknownName or BadInput.
    """
    known_name("mode", mode, MODES)
    own = [group[:-1] for group in groups(fractions, count)]
    if mode.startswith("cascade"):
        return tuple(own)
    return tuple(tuple(fraction for group in own[: i + 1] for fraction in group) for i in range(len(own)))


@dataclass(frozen=True)
class Training:
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
    spacing: tuple[Block, ...]
    training: Training
    retraining: Training
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

_RESNET = Training(182, 128, 0.1, (91, 136), warmup=5, gpus=2)
_VGG = Training(300, 256, 0.05, tuple(range(30, 301, 30)), gamma=0.5, warmup=10, weight_decay=5e-4)
_DENSENET = Training(300, 64, 0.1, (150, 225), warmup=10, nesterov=True)
_WRN = Training(200, 128, 0.1, (60, 120, 160), gamma=0.2, warmup=5, weight_decay=5e-4, nesterov=True, gpus=2)
_LENET300 = Training(40, 64, 0.01, (30, 45))
_LENET5 = Training(40, 64, 0.01, (25, 35))
_LONGER = replace(_LENET300, epochs=50)  # the later repository
_CNN5 = Training(60, 128, 1e-3, (50,), weight_decay=0.0, optimizer="adam")
_DEEPKNIGHT = Training(100, 32, 1e-4, (50, 90), optimizer="adam")
_IMAGENET_RESNET = Training(90, 256, 0.1, (30, 60, 80), warmup=5)
_IMAGENET_WRN = replace(_IMAGENET_RESNET, batch_size=128, weight_decay=5e-4, nesterov=True)
_IMAGENET_VGG = replace(_IMAGENET_RESNET, batch_size=16, lr=0.01, weight_decay=5e-4)


def _geometric(n: int, largest: float, smallest: float) -> Block:
    return Block("geometric", n, largest, smallest)


def _linear(n: int, largest: float, smallest: float) -> Block:
    return Block("linear", n, largest, smallest)


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


def _cifar(name: str, methods: tuple[str, ...], retraining: Training | None = None) -> ParameterFile:
    network, training, (spacing, retrained) = _CIFAR[name]
    return ParameterFile(network, "cifar10", methods, spacing, training, retraining or training, retrained)


def _from_random(name: str, spacing: tuple[Block, ...] = (_geometric(10, 0.8, 0.01),)) -> ParameterFile:
    """Pruned before any training."""
    network, training, _ = _CIFAR[name]
    return ParameterFile(network, "cifar10", _WEIGHTS, spacing, replace(training, epochs=0), training, mode="retrain")


def _imagenet(name: str, methods: tuple[str, ...]) -> ParameterFile:
    network, training, spacing = _ON_IMAGENET[name]
    return ParameterFile(f"torchvision/{network}", "imagenet", methods, spacing, training, training, nets=1)


def _small(network: str, data: str, methods: tuple[str, ...], block: Block, training: Training, delta: float = 1e-16):
    return ParameterFile(network, data, methods, (block,), training, training, delta=delta)


def _driving(methods: tuple[str, ...]) -> ParameterFile:
    return ParameterFile(
        None, None, methods, (_geometric(40, 0.1, 0.001),), _DEEPKNIGHT, replace(_DEEPKNIGHT, epochs=0),
        mode="retrain", delta=1e-32,
        missing="the driving data are not public, so neither they nor the network that steers by them is in this package",
    )  # fmt: skip


_LENET300_MNIST = _small("lenet300", "mnist", _BOTH, Block("harmonic", 0.8, None, 0.05), _LENET300, 1e-12)
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
    return tuple(group[-1] for group in groups(kept_fractions(name), parameter_file(name).retrained))
