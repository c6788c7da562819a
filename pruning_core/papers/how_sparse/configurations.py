"""The official configurations of How Sparse Can We Prune (Zhang et al. 2024) as experiments, from the one table below.

What differs from the official code: training takes the 90 % of the training images that this book trains on, not all; a
sparsity p removes the nearest whole number of the N weights, where the code removes ceil(p N) and all that tie with the last
of them; at parameters that are exactly 0, as all biases are at the start, the slope of the penalty is its strength, where the
code has 0 (methods/l1.py). The tasks of the paper on Tiny ImageNet are not in its repository and not here. Of its baselines,
one-shot pruning is each training without the penalty, iterative pruning ``recipes.lottery_ticket``, Smart-Ratio
``recipes.smart_ratio`` and Rare Gems ``recipes.rare_gems``; RigL (``recipes.rigl``) and GraSP (``recipes.grasp``) are
comparisons of this book.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pruning_core.checks import Constraints, OneOf, Real, Several, Whole, check, check_fields, checked
from pruning_core.data.sets import AUGMENTATIONS
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.stages import Measure, Prune, Stage, Train
from pruning_core.masks.budgets import Budget
from pruning_core.training.optimizers import LearningRate, Optimizer

EPOCHS = 200
BATCH_SIZE = 128


@dataclass(frozen=True)
class SteppedPerIteration:
    """A schedule meant in epochs that moves with every iteration: what the official code of zhang2024howsparse does.

    ``milestones`` and the length of the training are numbers of epochs, but are counted in iterations: "multistep" has
    passed its milestones within the first epochs, and "cosine" swings between 1 and 0 with a period of ``2 epochs``
    iterations. ``warmup`` epochs rise linearly from 0 at the first iteration to 1. As torch's schedulers derive a rate from
    the last one, which the warm-up sets anew every time, a milestone inside it counts for a single iteration, and the cosine
    multiplies the line by the ratio of its neighbouring values: up to 4, so that the factor may exceed 1 until the first zero
    behind the warm-up. Raises UnknownName, BadType or BadInput.
    """

    constraints = Constraints(
        kind=OneOf("multistep", "cosine", kind="learning-rate schedule"),
        warmup=Whole(at_least=0),
        milestones=Several(Whole(at_least=1)),
        gamma=Real(at_least=0),
    )

    kind: Literal["multistep", "cosine"]
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.milestones and self.kind != "multistep":
            raise BadInput(f"milestones belong to kind='multistep', not to {self.kind!r}.")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor on the learning rate at ``step``, from 0, of a training of ``epochs`` epochs of ``steps_per_epoch`` steps.

        >>> schedule = SteppedPerIteration("multistep", warmup=2, milestones=(3, 5), gamma=0.5)
        >>> [schedule.factor(step, 2, 9) for step in range(7)]
        [0.0, 0.25, 0.5, 0.375, 1.0, 0.5, 0.5]
        """
        rising = self.warmup * steps_per_epoch
        line = min(step / rising, 1.0) if rising else 1.0
        last_set = min(step, rising)  # the last iteration whose rate came from the warm-up
        if self.kind == "multistep":
            return line * self.gamma ** sum(last_set <= milestone <= step for milestone in self.milestones)
        half_period = max(epochs, 1)

        def wave(t: int) -> float:
            return (1 + math.cos(math.pi * (t % (2 * half_period)) / half_period)) / 2

        if last_set == 0:
            return line * wave(step)
        first_zero = last_set + (half_period - last_set) % (2 * half_period)
        if first_zero < step:  # behind a zero the recursion starts anew, with the cosine itself
            return wave(step)
        if (last_set - 1 - half_period) % (2 * half_period) == 0:
            return (line + wave(last_set)) * wave(step) / wave(last_set)
        return line * wave(step) / wave(last_set - 1)


@dataclass(frozen=True)
class Configuration:
    """One of the official files: network and data, learning rate and its schedule, penalty, analysis and sweep.

    All train ``EPOCHS`` epochs in batches of ``BATCH_SIZE`` by SGD with momentum 0.9 and no weight decay. ``strength``
    multiplies the sum of the absolute values of all parameters, biases and batch norm included; ``l1`` says whether it is
    used. ``warmup`` and ``milestones`` are epochs, ``gamma`` belongs to milestones; ``lanczos_steps`` are those of the
    Hessian's spectrum, with ``probes`` probes; ``points``: the sweep goes over i / points, from 1 / points on; ``start`` and
    ``loss`` as of an Experiment.
    """

    model: str
    data: str
    rate: float
    strength: float
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    warmup: int = 0
    gamma: float = 0.1
    milestones: tuple[int, ...] = ()
    lanczos_steps: int = 128
    points: int = 1000
    l1: bool = False
    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    momentum: float = 0.9
    weight_decay: float = 0.0
    probes: int = 1
    start: str | None = None
    loss: str | None = None

    def learning_rate(self, reference: bool = False) -> LearningRate | SteppedPerIteration:
        """The schedule of the paper, which moves once an epoch; with ``reference`` that of the code, once an iteration."""
        kind: Any = SteppedPerIteration if reference and self.schedule != "constant" else LearningRate
        return kind(self.schedule, self.warmup, self.milestones, self.gamma)

    def sparsities(self) -> tuple[float, ...]:
        """The official sweep: i / points for i = 1 .. points - 1."""
        return tuple(i / self.points for i in range(1, self.points))


_WITHOUT_PENALTY = {
    "fc5_cifar10": Configuration("fc5", "cifar10", 0.01, 5e-5),
    "fc12_cifar10": Configuration("fc12", "cifar10", 0.01, 5e-5),
    "alexnet_cifar10": Configuration(
        "alexnet_how_sparse", "cifar10", 0.01, 3e-5, "multistep", 5, 0.5, (60, 120, 160), lanczos_steps=96
    ),
    "vgg16_cifar10": Configuration("vgg16_how_sparse", "cifar10", 0.01, 1e-4, warmup=5, points=100),
    "resnet18_cifar100": Configuration("resnet18_how_sparse", "cifar100", 0.1, 5e-5, "cosine", 5),
    "resnet50_cifar100": Configuration("resnet50_how_sparse", "cifar100", 0.1, 2e-5, "cosine", 5),
}

CONFIGURATIONS: dict[str, Configuration] = _WITHOUT_PENALTY | {
    f"{name}_l1": replace(entry, l1=True, points=1000) for name, entry in _WITHOUT_PENALTY.items()
}
"""Name -> official file; "_l1" is the twin with the penalty. Files that switch their schedule off have "constant" here."""

FILES = {
    "fc5_cifar10": "FC_CIFAR10", "fc12_cifar10": "FC12_CIFAR10", "alexnet_cifar10": "AlexNet_CIFAR10",
    "vgg16_cifar10": "VGG16_CIFAR10", "resnet18_cifar100": "ResNet18_CIFAR100", "resnet50_cifar100": "ResNet50_CIFAR100",
}  # fmt: skip
"""Name -> how the official file without a penalty is called; with it, "_l1" follows."""


@checked
def configured_experiments(
    name: str,
    *,
    sparsities: Sequence[float] | None = None,
    seeds: int = 1,
    device: str = "cpu",
    reference: bool = False,
) -> Iterator[Experiment]:
    """The experiments of one configuration, at profile "paper": one a seed, 0 to ``seeds`` - 1.

    Train; Measure("dense"); then for each of the rising ``sparsities`` in (0, 1) a global cut by magnitude and
    Measure("pruned"). Nothing is trained in between, so that every cut is the one of the dense network; a layer may lose
    all its weights, as in the official code. None: the official sweep, up to 999 cuts. ``reference=True`` takes the
    learning rates that the official code really used, where they differ from the paper's. Tags: ``file``, ``strength``
    (0 without penalty). Raises UnknownName, BadInput or BadType, when the first experiment is asked for.

    >>> experiment = next(configured_experiments("fc5_cifar10"))
    >>> experiment.model, experiment.profile
    ('fc5', 'paper')
    """
    entry = CONFIGURATIONS[known_name("configuration", name, CONFIGURATIONS)]
    yield from experiments_of(name, entry, sparsities=sparsities, seeds=seeds, device=device, reference=reference)


def experiments_of(
    name: str,
    entry: Configuration,
    *,
    sparsities: Sequence[float] | None = None,
    seeds: int = 1,
    device: str = "cpu",
    reference: bool = False,
) -> Iterator[Experiment]:
    """The experiments of ``entry``, which a file of that name holds; as :func:`configured_experiments`."""
    seeds = check("seeds", seeds, Whole(at_least=1))
    rising = Several(Real(above=0, below=1), at_least=1, rising=True)
    sweep = entry.sparsities() if sparsities is None else check("sparsities", sparsities, rising)
    train = Train(entry.epochs, penalty=("l1", entry.strength) if entry.l1 else None)
    timeline: list[Stage] = [train, Measure("dense")]
    for sparsity in sweep:
        timeline += [Prune("magnitude", Budget(sparsity, keep_at_least=0)), Measure("pruned")]
    images = f"{entry.data}/how_sparse"
    optimizer = Optimizer("sgd", entry.rate, momentum=entry.momentum, weight_decay=entry.weight_decay)
    chosen: dict[str, Any] = {k: v for k in ("start", "loss") if (v := getattr(entry, k)) is not None}
    for seed in range(seeds):
        yield Experiment(
            entry.model, entry.data, list(timeline), seed=seed, profile="paper", device=device,
            batch_size=entry.batch_size, optimizer=optimizer, learning_rate=entry.learning_rate(reference),
            normalise=images, augment=images if images in AUGMENTATIONS else None,
            tags={"file": name, "strength": entry.strength if entry.l1 else 0.0}, **chosen,
        )  # fmt: skip
