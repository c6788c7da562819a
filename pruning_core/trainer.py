"""One epoch after the other: the Trainer, which keeps masks exact and can be stopped, saved, cut and continued.

Losses are means per sample, accuracies percent, times seconds.
"""

import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal
from typing import Protocol

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.averaging import WeightAverage
from pruning_core.checkpoints import describe
from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import PruningError
from pruning_core.errors import known_name
from pruning_core.evaluation import PRECISIONS
from pruning_core.evaluation import CrossEntropy
from pruning_core.evaluation import check_split
from pruning_core.evaluation import check_weights
from pruning_core.evaluation import evaluate
from pruning_core.evaluation import integer_at_least
from pruning_core.evaluation import like_model
from pruning_core.evaluation import precision_of
from pruning_core.masks import Masks
from pruning_core.optimizers import LearningRate
from pruning_core.optimizers import Optimizer
from pruning_core.optimizers import load_optimizer_state
from pruning_core.optimizers import optimizer_state

if TYPE_CHECKING:
    from pruning_core.data.splits import Split

KEEP = ("last", "best_validation")
STEPS_BETWEEN_LOOKS = 100  # looking at the loss waits for the device, so it is not done at every step
FORMAT = "training 1"


class TrainingDiverged(PruningError):
    """The loss became NaN or infinite."""


class Observer(Protocol):
    """Called after each epoch with the Trainer and the epoch's row, to which it may add JSON-able numbers."""

    def __call__(self, trainer: "Trainer", row: dict[str, Any]) -> None: ...


class Trainer:
    """Trains ``model``, in place, one epoch at a time.

    ``optimizer`` holds settings (:class:`Optimizer`); ``epochs`` is the length that the learning-rate
    schedule is made for. ``loss(outputs, labels)`` is a mean over the batch; ``penalty(model)`` a scalar
    tensor that is added to it and reported apart. ``masks`` are kept exactly: gradients of dead weights are
    zeroed before clipping, the weights multiplied after each step. ``only(name)`` picks the parameters to
    train. ``precision="bfloat16"`` runs the forward pass under autocast (weights stay as they are);
    ``channels_last`` re-lays the weights of convolutions in memory. All random numbers (order, augmentation,
    dropout, noise) follow from ``seed``; the caller's global random state is left alone.
    ``keep="best_validation"`` remembers the weights of the epoch with the best validation accuracy (the first
    on ties) for ``restore_best()``. ``shuffle=False`` takes the samples in order, without augmentation.
    ``device=None`` stays where the model is. ``observers`` are called as ``observer(trainer, row)`` after
    each epoch. ``average`` in (0, 1) keeps an exponential moving average of all weights over the steps, which
    ``take_average()`` puts into the network.

    A last batch of one sample is merged into the one before it when the network has batch norm, which cannot
    take statistics from one sample; a batch size of 1 is refused then.

    Attributes: ``model``, ``optimizer`` (of torch), ``settings`` (ours), ``masks``, ``epoch`` (completed
    ones), ``history`` (a dict an epoch), ``generator``. Raises BadInput, BadType or UnknownName for arguments
    that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        epochs: int,
        learning_rate: LearningRate | None = None,
        batch_size: int = 128,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
        only: Callable[[str], bool] | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        channels_last: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        observers: Sequence[Observer] = (),
        keep: Literal["last", "best_validation"] = "last",
        shuffle: bool = True,
        average: float | None = None,
    ):
        integer_at_least("epochs", epochs, 0)
        integer_at_least("batch_size", batch_size, 1)
        integer_at_least("seed", seed, 0)
        known_name("precision", precision, PRECISIONS)
        known_name("keep", keep, KEEP)
        if not isinstance(model, nn.Module):
            raise BadType(f"the model must be a torch.nn.Module, not {type(model).__name__}.")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise BadType(f"optimizer holds settings, Optimizer('sgd', lr=0.1), not a {type(optimizer).__name__}.")
        if learning_rate is not None and not hasattr(learning_rate, "factor"):
            raise BadType(f"learning_rate is a schedule such as LearningRate('cosine'), not {learning_rate!r}.")
        if device is not None:
            model.to(device)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.settings = optimizer or Optimizer()
        self.learning_rate = learning_rate or LearningRate()
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.loss, self.penalty, self.only = loss or CrossEntropy(), penalty, only
        self.precision, self.channels_last, self.keep, self.shuffle = precision, channels_last, keep, shuffle
        self.observers = tuple(observers)
        self.optimizer = self.settings.build(model, only)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None  # {"epoch", "validation_accuracy", "state"}
        self._checked: tuple[object, ...] = ()
        self.average = None if average is None else WeightAverage(average)
        self.masks = Masks(masks or {})

    @property
    def masks(self) -> Masks:
        """What is alive; setting it zeroes the dead weights, and their momentum and moments, at once."""
        return self._masks

    @masks.setter
    def masks(self, masks: Mapping[str, Tensor]) -> None:
        masks = masks if isinstance(masks, Masks) else Masks(masks)
        masks.apply_(self.model)
        self._masks = masks
        trained = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        self._pruned: list[tuple[nn.Parameter, Tensor]] = []
        for name, parameter in self.model.named_parameters():
            if name in masks and id(parameter) in trained and not bool(masks[name].all()):
                # A factor laid out like the parameter: the fast path of _foreach_mul_ needs equal strides.
                alive = torch.empty_like(parameter, requires_grad=False).copy_(masks[name])
                self._pruned.append((parameter, alive))
                for entry in self.optimizer.state.get(parameter, {}).values():
                    if isinstance(entry, Tensor) and entry.shape == alive.shape:
                        entry.mul_(alive)

    def steps_per_epoch(self, split: "Split") -> int:
        """Optimizer steps that one epoch over ``split`` takes."""
        full, rest = divmod(len(split), self.batch_size)
        return full + (rest > 0) - self._merges_last(split)

    def train_epoch(self, split: "Split", validation: "Split | None" = None) -> dict[str, float]:
        """Train once through ``split``; returns loss, accuracy, penalty, seconds, learning_rate (the last one used).

        With ``validation`` its loss and accuracy join the row in ``history``: epoch (from 1), train_loss,
        train_accuracy, penalty, learning_rate, seconds, validation_loss, validation_accuracy. Raises
        TrainingDiverged, naming epoch and step, soon after the loss is no longer finite, and BadInput for
        data that the network cannot take.
        """
        self._check(split)
        start = time.perf_counter()
        with _training(self.model, self.optimizer), _random_numbers_of(self.generator, self.model):
            result = self._pass(split)
        result["seconds"] = time.perf_counter() - start
        self.epoch += 1
        renamed = {"loss": "train_loss", "accuracy": "train_accuracy"}
        row: dict[str, Any] = {"epoch": self.epoch} | {renamed.get(key, key): value for key, value in result.items()}
        if validation is not None:
            measured = evaluate(self.model, validation, loss=self.loss, precision=self.precision)
            row |= {"validation_loss": measured.loss, "validation_accuracy": measured.accuracy}
            self._remember_best(measured.accuracy)
        self.history.append(row)
        for observer in self.observers:
            observer(self, row)
        return result

    def restore_best(self) -> int | None:
        """Put back the weights of the best validation epoch and return it (from 1); None when none was remembered."""
        if self.best is None:
            return None
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self.best["state"][name])
        return self.best["epoch"]

    def take_average(self) -> None:
        """Put the moving average of the weights into the network, bias corrected and masked; nothing without one."""
        if self.average is not None:
            self.average.put_into(self.model)
            self._masks.apply_(self.model)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that going on needs: (tensors, JSON-able information), ready for ``checkpoints.save_tensors(path, *state)``."""
        tensors = {f"model:{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"mask:{name}": mask for name, mask in self._masks.items()}
        stepped = optimizer_state(self.model, self.optimizer)
        tensors |= {f"optimizer:{key}": tensor for key, tensor in stepped.items()}
        if self.best is not None:
            tensors |= {f"best:{name}": tensor for name, tensor in self.best["state"].items()}
        if self.average is not None:
            tensors |= {f"average:{name}": tensor for name, tensor in self.average.sums.items()}
        tensors["generator"] = self.generator.get_state()
        best = self.best and {key: self.best[key] for key in ("epoch", "validation_accuracy")}
        info = {"kind": FORMAT, "epoch": self.epoch, "history": self.history, "best": best}
        return tensors, info | {"steps_averaged": self.average.steps if self.average is not None else 0}

    def load_state_dict(self, state: tuple[Mapping[str, Tensor], Mapping[str, Any]]) -> None:
        """Go back to a state of ``state_dict()``; what follows is then the same bit for bit (on the CPU).

        Raises BadInput, before anything is changed, when the state is of another kind or does not fit the
        network.
        """
        tensors, info = state
        if info.get("kind") != FORMAT:
            raise BadInput("this is not the state of a training.")
        weights = _part(tensors, "model:")
        own = self.model.state_dict()
        for name in sorted(own.keys() | weights.keys()):
            if name not in own or name not in weights or own[name].shape != weights[name].shape:
                raise BadInput(f"the saved training is one of another network: {name} does not fit.")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        load_optimizer_state(self.model, self.optimizer, _part(tensors, "optimizer:"))
        self.masks = Masks(_part(tensors, "mask:"))
        self.generator.set_state(tensors["generator"])
        self.epoch = info["epoch"]
        self.history = [dict(row) for row in info["history"]]
        self.best = info["best"] and {**info["best"], "state": _part(tensors, "best:")}
        if self.average is not None:
            device = next(self.model.parameters()).device
            self.average.load(_part(tensors, "average:"), info["steps_averaged"], device)

    def slice_state(self, kept: Any, model: nn.Module) -> None:
        """Go on with ``model``, the smaller network that a removal of channels left: masks and optimizer state are cut alike.

        ``kept.slice(name, tensor)`` cuts a tensor of the old parameter ``name``. A remembered best epoch is
        forgotten: its weights belong to the larger network. Parameters that the old network did not have
        start with fresh state.
        """
        old = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        names = {name for name, _ in model.named_parameters() if name in old}
        stepped = {}
        for key, entry in optimizer_state(self.model, self.optimizer).items():
            name = key.partition(":")[2]
            if name in names:
                stepped[key] = kept.slice(name, entry) if entry.shape == old[name] else entry
        masks = {name: kept.slice(name, mask) for name, mask in self._masks.items() if name in names}
        if self.average is not None:
            self.average.slice(kept, names)
        self.model, self.best, self._checked = model, None, ()
        self.optimizer = self.settings.build(model, self.only)
        load_optimizer_state(model, self.optimizer, stepped)
        self.masks = Masks(masks)

    def description(self, split: "Split") -> dict[str, Any]:
        """Settings, weights and data of this run as JSON: what tells its checkpoint from another's."""
        inputs, labels = next(iter(split.batches(min(16, len(split)))))
        augmentation = describe(getattr(split, "augmentation", None))
        data = [len(split), describe(inputs), describe(getattr(split, "labels", labels)), augmentation]
        names = ["settings", "learning_rate", "epochs", "batch_size", "loss", "penalty", "only", "precision"]
        names += ["channels_last", "seed", "keep", "shuffle"]
        settings = {name: describe(getattr(self, name)) for name in names} | {
            "average": self.average.factor if self.average is not None else None
        }
        masks = describe({name: self._masks[name] for name in sorted(self._masks)})
        return settings | {"masks": masks, "initial weights": describe(self.model.state_dict()), "data": data}

    def _pass(self, split: "Split") -> dict[str, float]:
        model: nn.Module = self.model
        losses: list[Tensor] = []
        penalties: list[Tensor] = []
        sizes: list[int] = []
        correct = torch.zeros((), dtype=torch.long, device=next(model.parameters()).device)
        projecting: list[Any] = [module for module in model.modules() if hasattr(module, "project_")]
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        steps, factor = self.steps_per_epoch(split), 0.0
        for step, batch in enumerate(self._batches(split)):
            factor = self.learning_rate.factor(self.epoch * steps + step, steps, self.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            inputs, labels = like_model(model, *batch)
            if self.channels_last and inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            for parameter in trained:
                parameter.grad = None
            with precision_of(inputs, self.precision):
                outputs = model(inputs)
            outputs = outputs if self.precision == "float32" else outputs.float()
            loss = self.loss(outputs, labels)
            losses.append(loss.detach())
            if self.penalty is not None:
                penalty = self._penalty()
                penalties.append(penalty.detach())
                loss = loss + penalty
            loss.backward()
            self._step(trained, projecting)
            sizes.append(len(labels))
            correct += (outputs.detach().max(1).indices == labels).sum()  # argmax is five times slower
            if len(sizes) % STEPS_BETWEEN_LOOKS == 0:
                self._refuse_divergence(losses, penalties)
        self._refuse_divergence(losses, penalties)
        self._refuse_broken_weights()
        weights = torch.tensor(sizes, dtype=torch.float64, device=correct.device) / sum(sizes)
        return {
            "loss": float(torch.stack(losses).double() @ weights),
            "accuracy": 100 * int(correct) / sum(sizes),
            "penalty": float(torch.stack(penalties).double() @ weights) if penalties else 0.0,
            "seconds": 0.0,
            "learning_rate": self.settings.lr * factor,
        }

    def _step(self, trained: Sequence[nn.Parameter], projecting: Sequence[Any]) -> None:
        if self.settings.noise:
            for gradient in (parameter.grad for parameter in trained if parameter.grad is not None):
                gradient.add_(torch.randn_like(gradient), alpha=self.settings.noise)
        reached = [(p.grad, alive) for p, alive in self._pruned if p.grad is not None]
        if reached:
            gradients, factors = zip(*reached, strict=True)
            torch._foreach_mul_(gradients, factors)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(trained, self.settings.clip)
        self.optimizer.step()
        for module in projecting:
            module.project_()
        if self._pruned:
            with torch.no_grad():
                weights, factors = zip(*self._pruned, strict=True)
                torch._foreach_mul_(weights, factors)
        if self.average is not None:
            self.average.add(self.model)

    def _penalty(self) -> Tensor:
        value = self.penalty(self.model)  # type: ignore[misc]
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise BadInput("a penalty must return one number as a tensor.")
        return value.reshape(())

    def _refuse_divergence(self, losses: list[Tensor], penalties: list[Tensor]) -> None:
        for name, values in (("loss", losses), ("penalty", penalties)):
            finite = torch.isfinite(torch.stack(values)) if values else torch.ones(1, dtype=torch.bool)
            if not bool(finite.all()):
                step = int((~finite).nonzero()[0]) + 1
                raise TrainingDiverged(
                    f"the {name} is no longer finite in epoch {self.epoch + 1}, step {step}: "
                    f"try a lower learning rate (now {self.settings.lr:g}), warm-up or clipping."
                )

    def _refuse_broken_weights(self) -> None:
        try:
            check_weights(self.model)
        except BadInput as error:
            name = str(error).split()[0]
            raise TrainingDiverged(f"{name} became NaN or infinite at the end of epoch {self.epoch + 1}.") from error

    def _check(self, split: "Split") -> None:
        check_weights(self.model)
        if self._checked and self._checked[0] is split:
            return
        check_split(self.model, split)
        if self._has_batch_norm() and min(self.batch_size, len(split)) == 1:
            raise BadInput("batch norm cannot train on batches of one sample: use a batch size of at least 2.")
        self._checked = (split,)

    def _has_batch_norm(self) -> bool:
        return any(isinstance(module, _BatchNorm) for module in self.model.modules())

    def _merges_last(self, split: "Split") -> bool:
        return len(split) > self.batch_size > 1 == len(split) % self.batch_size and self._has_batch_norm()

    def _batches(self, split: "Split") -> Iterator[tuple[Tensor, Tensor]]:
        batches = iter(split.batches(self.batch_size, self.generator if self.shuffle else None))
        if self._merges_last(split):
            for _ in range(len(split) // self.batch_size - 1):
                yield next(batches)
            full, single = next(batches), next(batches)
            yield torch.cat([full[0], single[0]]), torch.cat([full[1], single[1]])
        yield from batches

    def _remember_best(self, accuracy: float) -> None:
        if self.keep == "best_validation" and (self.best is None or accuracy > self.best["validation_accuracy"]):
            state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {"epoch": self.epoch, "validation_accuracy": accuracy, "state": state}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def _training(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Training mode, gradients only for what is trained; afterwards modes and flags are as before, no gradient left."""
    modes = [(module, module.training) for module in model.modules()]
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in trained]
    model.train()
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training
        optimizer.zero_grad()


@contextmanager
def _random_numbers_of(generator: torch.Generator, model: nn.Module) -> Iterator[None]:
    """Dropout and noise follow from ``generator``; the global random state is left as it was."""
    seed = int(torch.randint(2**62, (), generator=generator))
    devices = {parameter.device.index or 0 for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        torch.manual_seed(seed)
        yield
