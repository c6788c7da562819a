"""One epoch after the other: the Trainer, which keeps masks exact and can be stopped, saved, cut and continued.

Losses are means per sample, accuracies percent, times seconds.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import SEED, Device, Flag, OneOf, Whole, check, check_finite
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, PruningError
from pruning_core.masks.masks import Masks
from pruning_core.models.modes import modes_kept, own_random_numbers
from pruning_core.training.averaging import WeightAverage
from pruning_core.training.evaluation import PRECISIONS, CrossEntropy, check_split, evaluate, forward, like_model
from pruning_core.training.optimizers import LearningRate, Optimizer, trained_by
from pruning_core.training.trainer_state import TrainerState, lay_out

Observer = Callable[["Trainer", dict[str, Any]], None]
"""Called after each epoch with the Trainer and the epoch's row, to which it may add JSON-able numbers."""
STEPS_BETWEEN_LOOKS = 100  # looking at the loss waits for the device, so it is not done at every step


class TrainingDiverged(PruningError):
    """The loss became NaN or infinite."""


class Trainer(TrainerState):
    """Trains ``model``, in place, one epoch at a time.

    ``optimizer`` holds settings (:class:`Optimizer`); ``epochs`` is the length that the learning-rate schedule is made for.
    ``loss(outputs, labels)`` is a mean over the batch; ``penalty(model)`` a scalar tensor that is added to it and reported
    apart. Where ``pull_(model)`` adds the gradient of the penalty in place, after the backward pass, the penalty is never
    differentiated, and evaluated only at the end of each epoch. ``masks`` are kept exactly: gradients of dead weights are
    zeroed before clipping, the weights multiplied after each step. ``only(name)`` picks the parameters to train.
    ``precision="bfloat16"`` runs the forward pass under autocast (weights stay as they are); ``channels_last`` re-lays the
    weights of convolutions in memory. All random numbers (order, augmentation, dropout, noise) follow from ``seed``; the
    caller's global random state is left alone.
    ``keep="best_validation"`` remembers the weights of the epoch with the best validation accuracy (the first on ties) for
    ``restore_best()``. ``shuffle=False`` takes the samples in order, without augmentation. ``device=None`` stays where the
    model is. ``observers`` are called as ``observer(trainer, row)`` after each epoch. ``average`` in (0, 1) keeps an
    exponential moving average of all weights over the steps, which ``take_average()`` puts into the network.

    A last batch of one sample is merged into the one before it when the network has batch norm, which cannot take statistics
    from one sample; a batch size of 1 is refused then.

    Attributes: ``model``, ``optimizer`` (of torch), ``settings`` (ours), ``masks``, ``epoch`` (completed ones), ``history`` (a
    dict an epoch), ``generator``. Raises BadInput, BadType or UnknownName for arguments that cannot work.
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
        pull_: Callable[[nn.Module], None] | None = None,
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
        self.epochs = check("epochs", epochs, Whole(at_least=0))
        self.batch_size = check("batch_size", batch_size, Whole(at_least=1))
        self.seed = check("seed", seed, SEED)
        self.precision = check("precision", precision, OneOf(*PRECISIONS))
        self.keep = check("keep", keep, OneOf("last", "best_validation"))
        _check_types(model, optimizer, learning_rate)
        self.model = model if device is None else model.to(check("device", device, Device()))
        self.channels_last = check("channels_last", channels_last, Flag())
        lay_out(model, self.channels_last)
        self.settings = optimizer or Optimizer()
        self.learning_rate = learning_rate or LearningRate()
        self.loss, self.penalty, self.pull_, self.only = loss or CrossEntropy(), penalty, pull_, only
        self.shuffle = check("shuffle", shuffle, Flag())
        self.observers = tuple(observers)
        self.optimizer = self.settings.build(model, only)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.history = []
        self.average = None if average is None else WeightAverage(average)
        self.masks = Masks(masks or {})

    def steps_per_epoch(self, split: Split) -> int:
        """Optimizer steps that one epoch over ``split`` takes."""
        full, rest = divmod(len(split), self.batch_size)
        return full + (rest > 0) - self._merges_last(split)

    def train_epoch(self, split: Split, validation: Split | None = None) -> dict[str, float]:
        """Train once through ``split``; returns loss, accuracy, penalty, seconds, learning_rate (the last one used).

        With ``validation`` its loss and accuracy join the row in ``history``: epoch (from 1), train_loss, train_accuracy,
        penalty, learning_rate, seconds, validation_loss, validation_accuracy. Raises TrainingDiverged, naming epoch and step,
        soon after the loss is no longer finite, and BadInput for data that the network cannot take.
        """
        self.check(split)
        start = time.perf_counter()
        seed = int(torch.randint(2**62, (), generator=self.generator))
        with _training(self.model, self.optimizer), own_random_numbers(self.model):
            torch.manual_seed(seed)  # of dropout and noise
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

    def _pass(self, split: Split) -> dict[str, float]:
        model: nn.Module = self.model
        losses: list[Tensor] = []
        penalties: list[Tensor] = []
        sizes: list[int] = []
        correct = torch.zeros((), dtype=torch.long, device=next(model.parameters()).device)
        projecting: list[Any] = [module for module in model.modules() if hasattr(module, "project_")]
        trained = trained_by(self.optimizer)
        steps, factor = self.steps_per_epoch(split), 0.0
        for step, batch in enumerate(self._batches(split)):
            factor = self._set_rate(self.epoch * steps + step, steps)
            inputs, labels = like_model(model, *batch)
            if self.channels_last and inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            for parameter in trained:
                parameter.grad = None
            outputs = forward(model, inputs, self.precision)
            loss = self.loss(outputs, labels)
            losses.append(loss.detach())
            if self.penalty is not None and self.pull_ is None:
                penalty = _one_number(self.penalty(model))
                penalties.append(penalty.detach())
                loss = loss + penalty
            loss.backward()
            if self.pull_ is not None:
                self.pull_(model)
            self._step(trained, projecting)
            sizes.append(len(labels))
            correct += (outputs.detach().max(1).indices == labels).sum()  # argmax is five times slower
            if len(sizes) % STEPS_BETWEEN_LOOKS == 0:
                self._refuse_divergence(losses, penalties)
        if self.penalty is not None and self.pull_ is not None:
            with torch.no_grad():
                penalties = [_one_number(self.penalty(model))] * len(losses)
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

    def _set_rate(self, step: int, steps_per_epoch: int) -> float:
        factor = self.learning_rate.factor(step, steps_per_epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return factor

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
            check_finite(self.model)
        except BadInput as error:
            name = str(error).split()[0]
            raise TrainingDiverged(f"{name} became NaN or infinite at the end of epoch {self.epoch + 1}.") from error

    def check(self, split: Split) -> None:
        """Raises BadInput for weights, data or a batch size that cannot be trained on; a split is looked at once."""
        check_finite(self.model)
        if self._checked and self._checked[0] is split:
            return
        check_split(self.model, split)
        if self._has_batch_norm() and min(self.batch_size, len(split)) == 1:
            raise BadInput("batch norm cannot train on batches of one sample: use a batch size of at least 2.")
        self._checked = (split,)

    def _has_batch_norm(self) -> bool:
        return any(isinstance(module, _BatchNorm) for module in self.model.modules())

    def _merges_last(self, split: Split) -> bool:
        return len(split) > self.batch_size > 1 == len(split) % self.batch_size and self._has_batch_norm()

    def _batches(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        batches = iter(split.batches(self.batch_size, self.generator if self.shuffle else None))
        if self._merges_last(split):
            for _ in range(len(split) // self.batch_size - 1):
                yield next(batches)
            full, single = next(batches), next(batches)
            yield torch.cat([full[0], single[0]]), torch.cat([full[1], single[1]])
        yield from batches


def _check_types(model: object, optimizer: object, learning_rate: object) -> None:
    if not isinstance(model, nn.Module):
        raise BadType(f"the model must be a torch.nn.Module, not {type(model).__name__}.")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise BadType(f"optimizer holds settings, Optimizer('sgd', lr=0.1), not a {type(optimizer).__name__}.")
    if learning_rate is not None and not hasattr(learning_rate, "factor"):
        raise BadType(f"learning_rate is a schedule such as LearningRate('cosine'), not {learning_rate!r}.")


def _one_number(penalty: object) -> Tensor:
    if not isinstance(penalty, Tensor) or penalty.numel() != 1:
        raise BadInput("a penalty must return one number as a tensor.")
    return penalty.reshape(())


@contextmanager
def _training(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Training mode, gradients only for what is trained; afterwards modes and flags are as before, no gradient left."""
    trained = set(map(id, trained_by(optimizer)))
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in trained]
    with modes_kept(model):
        model.train()
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
            optimizer.zero_grad()
