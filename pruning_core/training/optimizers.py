"""How weights are stepped: optimizers as values that know the layers' quirks, and learning-rate schedules as pure functions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pruning_core.checks import Constraints, Maybe, OneOf, Real, Several, Text, Whole, check, check_fields, checked
from pruning_core.errors import BadInput
from pruning_core.records.hashes import HASHED_UNLESS_DEFAULT

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "multistep", "cosine", "triangular")
FUSED_DTYPES = (torch.float32, torch.float64)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Optimizer:
    """Settings of an optimizer; ``build(model)`` makes the torch optimizer.

    ``lr`` is the learning rate that the schedule's factor multiplies. ``momentum`` and ``nesterov`` are SGD's; Adam keeps
    its (0.9, 0.999) and RMSprop its 0.99. ``weight_decay`` is L2 added to the gradient, except in AdamW, where it is
    decoupled; ``decay_norm_and_bias=False`` exempts biases and the parameters of normalisation layers, ``undecayed``
    whatever has one of these parts in its name: (".bn", ".bias") is the rule of i-SpaSP's code. ``clip`` bounds the L2 norm
    of the whole gradient, ``noise`` is the standard deviation of Gaussian noise added to it (before clipping); both are
    carried out by the Trainer. Raises UnknownName, BadType or BadInput.

    >>> type(Optimizer("adam", lr=1e-3).build(nn.Linear(2, 1))).__name__
    'Adam'
    """

    constraints = Constraints(
        name=OneOf(*OPTIMIZERS, kind="optimizer"),
        lr=Real(at_least=0),
        momentum=Real(at_least=0, below=1),
        weight_decay=Real(at_least=0),
        clip=Maybe(Real(above=0)),
        noise=Real(at_least=0),
        undecayed=Several(Text()),
    )

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None
    noise: float = 0.0
    decay_norm_and_bias: bool = True
    undecayed: tuple[str, ...] = field(default=(), metadata=HASHED_UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.nesterov and not (self.name == "sgd" and self.momentum > 0):
            raise BadInput("nesterov needs name='sgd' and a momentum above 0.")

    @checked
    def build(self, model: nn.Module, only: Callable[[str], bool] | None = None) -> torch.optim.Optimizer:
        """The torch optimizer over the parameters that require gradients (and whose name passes ``only``).

        The module that owns a parameter may scale its rate (``learning_rate_scale``) and exempt it from decay
        (``decays = False``); each parameter group keeps the unscheduled rate as ``base_lr``. Raises BadInput
        when no parameter is left to train.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        modules = dict(model.named_modules(remove_duplicate=False))
        for name, parameter in model.named_parameters():
            owner = modules[name.rpartition(".")[0]]
            if parameter.requires_grad and (only is None or only(name)):
                scale = float(getattr(owner, "learning_rate_scale", 1.0))
                decay = self.weight_decay if self._decays(name, owner) else 0.0
                groups.setdefault((scale, decay), []).append(parameter)
        if not groups:
            raise BadInput("there is no parameter to train: all are frozen or left out by `only`.")
        return self._torch_optimizer([
            {"params": members, "lr": self.lr * scale, "base_lr": self.lr * scale, "weight_decay": decay}
            for (scale, decay), members in groups.items()
        ])  # fmt: skip

    def _decays(self, name: str, owner: nn.Module) -> bool:
        if not getattr(owner, "decays", True):
            return False
        is_norm_or_bias = isinstance(owner, NORMS) or name.rpartition(".")[2].endswith("bias")
        return (self.decay_norm_and_bias or not is_norm_or_bias) and not any(part in name for part in self.undecayed)

    def _torch_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        # One fused kernel where torch has one, otherwise one call for all tensors instead of one a tensor.
        trained = [parameter for group in groups for parameter in group["params"]]
        fused = all(p.dtype in FUSED_DTYPES and p.device.type in ("cpu", "cuda") for p in trained)
        kernels: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, **kernels)
        if self.name == "adam":
            return torch.optim.Adam(groups, lr=self.lr, **kernels)
        if self.name == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr, **kernels)
        return torch.optim.RMSprop(groups, lr=self.lr, foreach=True)


@runtime_checkable
class Schedule(Protocol):
    """What steps a learning rate: a LearningRate, or an object of one's own with the same method."""

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The factor on the learning rate at ``step``."""


@dataclass(frozen=True)
class LearningRate:
    """The factor on the learning rate as a pure function of the step.

    ``kind``: "constant" 1; "multistep" ``gamma ** (number of milestones passed)``, milestones in completed epochs; "cosine"
    ``floor + (1 - floor) (1 + cos(pi e / E)) / 2`` in epoch e = 0 .. E - 1; "triangular" rises linearly to 1 in the middle
    of the training and falls again, ``floor + (1 - floor) (1 - |2 (e + 1) / (E + 1) - 1|)``. The first ``warmup`` epochs
    rise linearly from 0, step by step, but never above the schedule. ``per_step=True`` lets the schedule itself move with
    every step instead of every epoch (e and E are then steps). Raises UnknownName, BadType or BadInput.

    >>> LearningRate("multistep", milestones=(30, 60)).milestones
    (30, 60)
    >>> LearningRate("cosine", gamma=-1)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: gamma must be finite and at least 0, not -1.
    """

    constraints = Constraints(
        kind=OneOf(*SCHEDULES, kind="learning-rate schedule"),
        warmup=Real(at_least=0, counts=True),
        milestones=Several(Real(at_least=0, counts=True)),
        gamma=Real(at_least=0),
        floor=Real(at_least=0, at_most=1),
    )

    kind: Literal["constant", "multistep", "cosine", "triangular"] = "constant"
    warmup: float = 0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    floor: float = 0.0
    per_step: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.milestones and self.kind != "multistep":
            raise BadInput(f"milestones belong to kind='multistep', not to {self.kind!r}.")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor at ``step``, counted from 0 over the whole training of ``epochs`` epochs of ``steps_per_epoch`` steps.

        >>> LearningRate("multistep", milestones=(2, 3)).factor(25, 10, 4)
        0.1
        >>> LearningRate(warmup=2).factor(5, 10, 4)
        0.25
        """
        # Once a step of a training: what is in order is not to be looked at twice.
        given = (step, steps_per_epoch, epochs)
        if {type(n) for n in given} != {int} or min(step, epochs) < 0 or steps_per_epoch < 1:
            step = check("step", step, Whole(at_least=0))
            steps_per_epoch = check("steps_per_epoch", steps_per_epoch, Whole(at_least=1))
            epochs = check("epochs", epochs, Whole(at_least=0))
        scheduled = self._scheduled(step, steps_per_epoch, epochs)
        rising = self.warmup * steps_per_epoch
        return min(step / rising, scheduled) if step < rising else scheduled

    def _scheduled(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        if self.kind == "constant":
            return 1.0
        epoch = step / steps_per_epoch if self.per_step else step // steps_per_epoch
        if self.kind == "multistep":
            return self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        total = max(epochs * steps_per_epoch if self.per_step else epochs, 1)
        index = min(step if self.per_step else step // steps_per_epoch, total)
        if self.kind == "cosine":
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * index / total)) / 2
        return self.floor + (1 - self.floor) * (1 - abs(2 * (index + 1) / (total + 1) - 1))


def trained_by(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that ``optimizer`` steps."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Momentum, moments and step counts as {"<kind>:<parameter name>": tensor}, the tensors themselves."""
    return {
        f"{kind}:{name}": entry
        for name, parameter in model.named_parameters()
        for kind, entry in optimizer.state.get(parameter, {}).items()
        if isinstance(entry, Tensor)
    }


NEEDED: dict[type, tuple[str, ...]] = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
}
"""What an optimizer keeps of a parameter that it has stepped, and does not step it again without."""


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Replace the optimizer's state by copies of ``optimizer_state(...)``; parameters it does not train are passed over.

    Raises BadInput when an entry fits no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    trained = set(map(id, trained_by(optimizer)))
    for label, entry in state.items():
        kind, _, name = label.partition(":")
        parameter = parameters.get(name)
        shape = parameter.shape if parameter is not None and kind != "step" else torch.Size()
        if parameter is None or entry.shape != shape or not entry.is_floating_point():
            raise BadInput(f"the optimizer state {label!r} does not fit the network.")
        if bool(entry.isnan().any()):
            raise BadInput(f"the optimizer state {label!r} holds NaN values.")
        if lost := [other for other in NEEDED.get(type(optimizer), ()) if f"{other}:{name}" not in state]:
            raise BadInput(f"the optimizer state {f'{lost[0]}:{name}'!r} is missing.")
    optimizer.state.clear()
    for label, entry in state.items():
        kind, _, name = label.partition(":")
        parameter = parameters[name]
        if id(parameter) not in trained:
            continue
        if kind == "step":
            on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
            own = entry.to(parameter.device if on_device else "cpu", copy=True)
        else:  # laid out like the parameter, as fused kernels need it
            own = torch.empty_like(parameter, dtype=entry.dtype, requires_grad=False).copy_(entry)
        optimizer.state[parameter][kind] = own
