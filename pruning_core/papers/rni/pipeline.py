"""Receding neuron importances from end to end, with the two functions of its official code: train, then prune and fine-tune.

One recipe for all methods and networks (Suteu and Guo 2022): ``RECEDING_OPTIMIZER`` and ``receding_rate`` of the recipes,
cross-entropy plus the strength times the penalty; the network of the best epoch is returned, in evaluation mode, on the CPU.

What differs from the official code: the best epoch is chosen on the validation split, channels are cut to the exact fraction,
at least three staying in a layer, and the training split is 90 % of the official one. ``reference=True`` follows it in all
three; what is called validation then are training images. The network is built after the seed is set; ``root`` takes the
place of ``set_dataset_path``.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import Real, Whole, check, check_finite, checked
from pruning_core.data.loading import Data, load_data
from pruning_core.data.sets import AUGMENTATIONS, NORMALISATIONS
from pruning_core.data.splits import joined
from pruning_core.errors import BadInput, BadType, known_name
from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER, receding_rate
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.methods.base import View
from pruning_core.methods.polarization import Polarization
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.shared.batch_norm_scales import MINIMUM, SIGMOID, BatchNormScale, Thresholded
from pruning_core.methods.shrinking import shrunk
from pruning_core.methods.slimming import Slimming
from pruning_core.methods.ucs import UniformChannelScaling
from pruning_core.models.build import MODELS, build_model
from pruning_core.models.cost import count_macs, count_parameters
from pruning_core.models.layers.norms import SigmoidBatchNorm2d, is_official
from pruning_core.models.modes import copied
from pruning_core.pruning import prune_step
from pruning_core.training.evaluation import evaluate
from pruning_core.training.fit import fit
from pruning_core.training.trainer import Observer, Trainer

Logs = dict[str, Any]
Device = str | torch.device | None

NETWORKS = {"vgg16": "vgg16_rni", "resnet56": "resnet56_rni"}
"""The paper's names of networks -> ours; any other name of MODELS means itself."""

OFFICIAL_METHODS: dict[str, type[BatchNormScale]] = {
    "rni": RecedingNeurons, "l1": Slimming, "ucs": UniformChannelScaling, "polarization": Polarization,
}  # fmt: skip
"""The names of methods in the official code, and polarisation -> ours."""


@checked(method=None, arch=None, seed=None, device=None)
def train(
    dataset: str = "cifar10", arch: str = "vgg16", method: str = "rni", reg_weight: float = 1e-4, b: float = 3,
    epochs: int = 160, lr: float = 0.1, batch_size: int = 64, seed: int = 0, device: Device = None,
    *, reference: bool = False, root: str | os.PathLike | None = None, limit: int | None = None, width: float = 1.0,
    snapshots: bool = False, progress: bool = True, observers: Sequence[Observer] = (),
) -> tuple[nn.Module, Logs]:  # fmt: skip
    """Train a network with the penalty of ``method``; returns (the network of the best epoch, logs).

    Args:
        dataset: a name of DATASETS. arch: "vgg16", "resnet56", or a name of MODELS with batch norm.
        method: "rni" (sigmoid batch norms), "l1" (Network Slimming), "ucs" (no penalty) or "polarization".
        reg_weight: strength of the penalty, at least 0, which switches it off; a sum over channels, so it goes with width.
        b: shift of the penalty of "rni", finite; the others ignore it.
        lr: falls to a tenth twice. seed: governs initial weights, order and augmentation. device: None takes a GPU if any.
        reference: train on all training images and choose the best epoch on the test split, as the official code does.
        root: folder of the data set, into which it is fetched where it is missing; None: ``$PRUNING_DATA``, else the cache.
        limit: see load_data. width: factor on the number of channels. snapshots: keep all scales.
        observers: called as ``observer(trainer, row)`` after each epoch, as those of fit: ``TensorBoard(folder)``.

    ``logs`` has one entry an epoch in each list: train_loss (without penalty), penalty (times its strength), lr,
    validation_acc and test_acc (fractions), importances if ``snapshots`` (norm name -> the scale that acts, a vector on the
    CPU); and best_epoch, counted from 0, None without epochs. Raises UnknownName, BadType or BadInput for arguments that
    cannot work, TrainingDiverged when the loss is no longer finite.

    >>> train("digits", arch="lenet300", reg_weight=-1.0)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: reg_weight must be finite and at least 0, not -1.0.
    """
    known_name("method", method, OFFICIAL_METHODS)
    known_name("network", arch, {*NETWORKS, *MODELS})
    name = NETWORKS.get(arch, arch)
    reg_weight = check("reg_weight", reg_weight, Real(at_least=0))
    shift = float(check("b", b, Real()))
    seed = check("seed", seed, Whole(at_least=0))
    ours = RecedingNeurons(b=shift) if method == "rni" else OFFICIAL_METHODS[method]()
    data, place = _loaded(dataset, device, limit, root, reference)
    norm = "sigmoid" if method == "rni" and "sigmoid" in MODELS[name].norms else "batch"
    model = build_model(name, data, width=width, norm=norm, seed=seed)
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise BadInput(f"{arch} has no batch norm, whose scales {method!r} would need.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ours.prepare(model, next(iter(data.train.batches(1)))[0].cpu())
    return fit_best(
        model, data, penalty_of(ours, reg_weight), epochs, lr, batch_size, seed, place,
        reference=reference, snapshots=snapshots, progress=progress, observers=observers,
    )  # fmt: skip


@checked(method=None, prune_pc=None, seed=None, device=None)
def prune_finetune(
    model: nn.Module, dataset: str = "cifar10", method: str = "rni", prune_pc: float = 0.5,
    epochs: int = 160, lr: float = 0.1, batch_size: int = 64, seed: int = 0, device: Device = None,
    *, reference: bool = False, root: str | os.PathLike | None = None, limit: int | None = None,
    snapshots: bool = False, progress: bool = True, observers: Sequence[Observer] = (),
) -> tuple[nn.Module, Logs]:  # fmt: skip
    """Cut the least important channels out of a copy of ``model`` and fine-tune it; returns (small network, logs).

    ``prune_pc``, called a percentage in the official code, is the *fraction* in [0, 1) of the prunable channels that goes:
    of all layers together, for "ucs" of each. Channels of residual sums stay, and at least three channels of a layer.
    ``reference=True`` cuts at the official thresholds instead (methods/shared/batch_norm_scales.py), and takes 1 as well.
    Fine-tuning knows no penalty; sigmoid batch norms stay. With ``epochs=0`` the network is only cut.

    ``logs`` holds what :func:`train` logs, and: pruned_acc (test accuracy right after the cut, a fraction), kept (layer that
    makes the channels -> how many stay), removed (fraction of the prunable channels), parameters and macs of the small
    network. Raises as :func:`train` does, Unprunable for a network whose norms do not fit, BudgetError for a fraction that
    would leave fewer than three channels in some layer.

    >>> prune_finetune(nn.Linear(2, 2), "digits", prune_pc=1.5)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: prune_pc must lie in [0, 1], not 1.5.
    """
    known_name("method", method, OFFICIAL_METHODS)
    if not isinstance(model, nn.Module):
        raise BadType(f"the network must be a torch.nn.Module, not {type(model).__name__}.")
    fraction = float(check("prune_pc", prune_pc, Real(at_least=0, at_most=1)))
    if fraction == 1 and not reference:
        raise BadInput(
            "prune_pc must lie in [0, 1), as it is the fraction removed, not 1; only the official thresholds "
            "(reference=True) take that, and leave three channels a layer."
        )
    seed = check("seed", seed, Whole(at_least=0))
    check_finite(model)
    data, place = _loaded(dataset, device, limit, root, reference)
    pruned = from_official(model).to(place)
    example = next(iter(data.train.batches(1)))[0].to(next(pruned.parameters()))
    masks, sites = _cut(pruned, OFFICIAL_METHODS[method](), fraction, example, seed, reference)
    kept = {name: int(group.alive(masks).sum()) for name, group in sites.groups.items()}
    small, _ = shrunk(pruned, masks, sites, example)
    facts: Logs = {
        "pruned_acc": evaluate(small, data.test).accuracy / 100,
        "kept": kept,
        "removed": 1 - sum(kept.values()) / sum(group.size for group in sites.groups.values()),
        "parameters": count_parameters(small),
        "macs": count_macs(small, example),
    }
    tuned, logs = fit_best(
        small, data, None, epochs, lr, batch_size, seed, place,
        reference=reference, snapshots=snapshots, progress=progress, observers=observers,
    )  # fmt: skip
    return tuned, logs | facts


@checked
def from_official(model: nn.Module) -> nn.Module:
    """A copy of a network in which the sigmoid batch norms of RNI's code are this package's; its outputs are the same.

    :func:`prune_finetune` does this by itself, ``prune(from_official(model), "rni", ...)`` needs it.

    >>> network = from_official(nn.Sequential(nn.Linear(2, 2)))
    >>> network
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    found = copied(model)
    for name, module in list(found.named_modules()):
        if is_official(module):
            found.set_submodule(name, SigmoidBatchNorm2d.from_official(module))
    return found


def _cut(
    model: nn.Module, method: BatchNormScale, fraction: float, example: Tensor, seed: int, reference: bool
) -> tuple[Masks, Sites]:
    """Zero the channels that go, in place: exactly that fraction, or with ``reference`` what the official thresholds say."""
    sites = find_sites(model, channels=True, example_input=example, refuses=method.refuses)
    if not reference:
        budget = Budget(fraction, of="channels", keep_at_least=MINIMUM)  # "ucs" spreads it over the layers by itself
        return prune_step(model, method, budget, sites, Masks(), seed=seed, example_input=example).masks, sites
    if isinstance(method, Thresholded):  # its scores then have the dtype of the network, as in the official code
        method = replace(method, reference=True)
    scope = "local" if isinstance(method, UniformChannelScaling) else "global"
    view = View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example)
    masks = method.cut(view, fraction, scope).masks
    masks.apply_(model)
    return masks, sites


def penalty_of(method: BatchNormScale, strength: float) -> Callable[[nn.Module], Tensor] | None:
    """What is added to the loss: ``strength`` times the method's penalty; None where that is nothing."""
    if not strength or isinstance(method, UniformChannelScaling):
        return None
    return lambda network: strength * method.penalty(network, Masks())


@checked(data=None)  # three splits will do
def fit_best(
    model: nn.Module, data: Data, penalty: Callable[[nn.Module], Tensor] | None,
    epochs: int, lr: float, batch_size: int, seed: int, device: torch.device,
    *, reference: bool = False, snapshots: bool = False, progress: bool = True, shuffle: bool = True,
    observers: Sequence[Observer] = (),
) -> tuple[nn.Module, Logs]:  # fmt: skip
    """The one recipe: trains ``model`` in place, ends with the weights of the best epoch; see :func:`train` for the logs.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> len(fit_best(network, digits, None, 1, 0.1, 64, 0, torch.device("cpu"), progress=False))
    2
    """
    epochs = check("epochs", epochs, Whole(at_least=0))
    choosing, other = (data.test, data.validation) if reference else (data.validation, data.test)
    others: list[float] = []
    scales: list[dict[str, Tensor]] = []

    def watch(trainer: Trainer, row: dict[str, Any]) -> None:
        others.append(evaluate(trainer.model, other).accuracy / 100)
        if snapshots:
            scales.append(acting_scales(trainer.model))

    history = fit(
        model, data.train, validation=choosing, keep="best_validation", epochs=epochs, batch_size=batch_size,
        optimizer=replace(RECEDING_OPTIMIZER, lr=lr), learning_rate=receding_rate(epochs, reference), penalty=penalty,
        shuffle=shuffle, seed=seed, device=device, observers=[watch, *observers], progress=progress,
    )  # fmt: skip
    chosen = [row["validation_accuracy"] / 100 for row in history]
    validation, test = (others, chosen) if reference else (chosen, others)
    columns = {"train_loss": "train_loss", "penalty": "penalty", "lr": "learning_rate"}
    logs: Logs = {ours: [row[column] for row in history] for ours, column in columns.items()}
    logs |= {"validation_acc": validation, "test_acc": test} | ({"importances": scales} if snapshots else {})
    return model.cpu().eval(), logs | {"best_epoch": None if history.best_epoch is None else history.best_epoch - 1}


def acting_scales(model: nn.Module) -> dict[str, Tensor]:
    """Norm name -> the scale that acts on each channel, a vector on the CPU: sigma(g) of sigmoid batch norms, |gamma| of
    ordinary ones; norms without a scale are left out."""
    norms = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.weight is not None}
    scales = {name: norm.weight.detach().cpu() for name, norm in norms.items()}
    return {n: torch.sigmoid(s) if isinstance(norms[n], SIGMOID) else s.abs() for n, s in scales.items()}


def _loaded(
    dataset: str, device: Device, limit: int | None, root: str | os.PathLike | None, reference: bool
) -> tuple[Data, torch.device]:
    """The data set with the constants of the paper, where it has some, and its device; whole with ``reference``."""
    try:
        place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"torch knows no device {device!r}; 'cpu' and 'cuda' are usual.") from error
    recipe = f"{dataset}/rni"
    normalise, augment = (recipe if recipe in known else None for known in (NORMALISATIONS, AUGMENTATIONS))
    data = load_data(dataset, root=root, device=place, normalise=normalise, augment=augment, limit=limit)
    return (replace(data, train=joined([data.train, data.score, data.validation])) if reference else data), place
