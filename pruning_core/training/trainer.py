"""One epoch after the other: the Trainer, which keeps masks exact and can be stopped, saved, cut and continued.

Losses are means per sample, accuracies percent, times seconds.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import SEED, Device, Flag, Maybe, OneOf, Whole, check, check_finite, checked
from pruning_core.data.feeds import Feed
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, PruningError, shown
from pruning_core.masks.masks import Masks
from pruning_core.models.calls import like_model, logits, mapped, samples
from pruning_core.models.modes import own_random_numbers
from pruning_core.models.ready import check_values
from pruning_core.training.averaging import WeightAverage
from pruning_core.training.epochs import channels_last, epoch_batches, steps_of, training
from pruning_core.training.evaluation import PRECISIONS, Metric, check_metric, evaluate, forward
from pruning_core.training.first_look import as_split, look
from pruning_core.training.losses import CrossEntropy, Loss, hits, loss_value
from pruning_core.training.optimizers import LearningRate, Optimizer, trained_by
from pruning_core.training.trainer_state import TrainerState, lay_out

Observer = Callable[["Trainer", dict[str, Any]], None]
"""Called after each epoch with the Trainer and the epoch's row, to which it may add JSON-able numbers."""
UNCOUNTED = 2**40  # steps of an epoch, where no schedule asks for their number
STEPS_BETWEEN_LOOKS = 100  # looking at the loss waits for the device, so it is not done at every step


class TrainingDiverged(PruningError):
    """The loss became NaN or infinite."""


@checked(optimizer=None, learning_rate=None, metric=None)
class Trainer(TrainerState):
    """Trains ``model``, in place, one epoch at a time.

    ``optimizer`` holds settings (:class:`Optimizer`); ``epochs`` is the length that the learning-rate schedule is made for.
    ``loss(outputs, labels)`` is a mean over the batch, ``metric`` what validation measures besides, both as in ``evaluate``;
    ``penalty(model)`` a scalar tensor that is added to the loss and reported apart. Where ``pull_(model)`` adds the gradient
    of the penalty in place, after the backward pass, the penalty is never differentiated, and evaluated only at the end of
    each epoch. ``masks`` (default: what a network out of ``prune`` or ``load_pruned`` carries; {} for none) are kept
    exactly: gradients of dead weights are zeroed before clipping, the weights multiplied after each step. ``only(name)``
    picks the parameters to train. ``precision="bfloat16"`` runs the forward pass under autocast (weights stay as they are);
    ``channels_last`` re-lays the weights of convolutions in memory. All random numbers (order,
    augmentation, dropout, noise) follow from ``seed``; the caller's global random state is left alone.
    ``keep="best_validation"`` remembers the weights of the epoch with the best validation accuracy, where there is none with
    the lowest validation loss (the first on ties), for ``restore_best()``. ``shuffle=False`` takes the samples of a
    split in order, without augmentation; a DataLoader or another iterable of batches has sizes and an order of its own (drawn
    from ``seed`` where the loader has no generator), of which ``steps_per_epoch`` are an epoch (None: all).
    ``device=None`` stays where the
    model is. ``observers`` are called as ``observer(trainer, row)`` after each epoch. ``average`` in (0, 1) keeps an
    exponential moving average of all weights over the steps, which ``take_average()`` puts into the network.

    A last batch of one sample is merged into the one before it when the network has batch norm, which cannot take statistics
    from one sample; a batch size of 1 is refused then. Parts in evaluation mode inside a network in training mode stay so:
    call ``norm.eval()`` after ``network.train()`` to keep the statistics of a norm.

    Attributes: ``model``, ``optimizer`` (of torch), ``settings`` (ours), ``masks``, ``epoch`` (completed ones), ``history`` (a
    dict an epoch), ``generator``. Raises BadInput, BadType or UnknownName for arguments that cannot work.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> trainer = Trainer(network, epochs=1)
    >>> sorted(trainer.train_epoch(digits.train))
    ['accuracy', 'learning_rate', 'loss', 'penalty', 'seconds']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        epochs: int,
        learning_rate: LearningRate | None = None,
        batch_size: int = 128,
        loss: Loss | None = None,
        metric: Metric = "accuracy",
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
        steps_per_epoch: int | None = None,
    ):
        self.epochs = check("epochs", epochs, Whole(at_least=0))
        self.batch_size = check("batch_size", batch_size, Whole(at_least=1))
        self.seed = check("seed", seed, SEED)
        self.precision = check("precision", precision, OneOf(*PRECISIONS))
        self.keep = check("keep", keep, OneOf("last", "best_validation"))
        check_values(model)
        _check_types(optimizer, learning_rate)
        check_metric(metric)
        self.metric, self.steps = metric, check("steps_per_epoch", steps_per_epoch, Maybe(Whole(at_least=1)))
        self.model = model if device is None else model.to(check("device", device, Device()))
        self.channels_last = check("channels_last", channels_last, Flag())
        lay_out(model, self.channels_last)
        self.settings = optimizer or Optimizer()
        self.learning_rate = learning_rate or LearningRate()
        self.loss, self.penalty, self.pull_, self.only = CrossEntropy() if loss is None else loss, penalty, pull_, only
        self.shuffle = check("shuffle", shuffle, Flag())
        self.observers = tuple(observers)
        self.optimizer = self.settings.build(model, only)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.history = []
        self.average = None if average is None else WeightAverage(average)
        self.masks = Masks.carried(model) if masks is None else Masks(masks)

    def steps_per_epoch(self, data: Any) -> int:
        """Optimizer steps that one epoch over ``data`` takes; BadInput where the learning rate needs a number not known."""
        data = as_split(data, self.model)
        known = steps_of(data, self.batch_size, self.steps, merging=has_batch_norm(self.model))
        rate = self.learning_rate
        if known is None and not (isinstance(rate, LearningRate) and not rate.warmup and not rate.per_step):
            raise BadInput(
                "this learning rate moves with every step, but the batches have no length: give steps_per_epoch=."
            )
        return known or UNCOUNTED

    def train_epoch(self, data: Any, validation: Any = None) -> dict[str, float]:
        """Train once through ``data``, a split or batches; returns loss, accuracy (NaN where labels are no classes), penalty,
        seconds, learning_rate (the last one used).

        With ``validation`` its loss and accuracy join the row in ``history``: epoch (from 1), train_loss, train_accuracy,
        penalty, learning_rate, seconds, validation_loss, validation_accuracy, validation_accuracy5 (above five classes), and
        validation_metric where there is one of one's own; accuracies are missing where labels are no classes. Raises
        TrainingDiverged, naming epoch and step, soon after the loss is no longer finite, and BadInput for data that the
        network cannot take.
        """
        split = as_split(data, self.model)
        self.check(split)
        start = time.perf_counter()
        seed = int(torch.randint(2**62, (), generator=self.generator))
        with training(self.model, trained_by(self.optimizer)), own_random_numbers(self.model):
            torch.manual_seed(seed)  # of dropout and noise, and of the order of a loader
            result = self._pass(split)
        result["seconds"] = time.perf_counter() - start
        self.epoch += 1
        renamed = {"loss": "train_loss", "accuracy": "train_accuracy"}
        row: dict[str, Any] = {"epoch": self.epoch} | {renamed.get(key, key): value for key, value in result.items()}
        if validation is not None:
            measured = evaluate(self.model, validation, loss=self.loss, precision=self.precision, metric=self.metric)
            row |= {"validation_loss": measured.loss, "validation_accuracy": measured.accuracy}
            self._remember_best(-measured.loss if math.isnan(measured.accuracy) else measured.accuracy)
            if measured.accuracy5 is not None:
                row["validation_accuracy5"] = measured.accuracy5
            if measured.metric is not None:
                row["validation_metric"] = measured.metric
        missing = [key for key in ("train_accuracy", "validation_accuracy") if math.isnan(row.get(key, 0.0))]
        self.history.append({key: value for key, value in row.items() if key not in missing})
        for observer in self.observers:
            observer(self, self.history[-1])
        return result

    def _pass(self, split: Split | Feed) -> dict[str, float]:
        model: nn.Module = self.model
        losses: list[Tensor] = []
        penalties: list[Tensor] = []
        sizes: list[int] = []
        labelled: Any = 0
        correct = torch.zeros((), dtype=torch.long, device=next(model.parameters()).device)
        order = self.generator if self.shuffle else None
        batches = epoch_batches(split, self.batch_size, order, self.steps, merging=has_batch_norm(self.model))
        projecting: list[Any] = [module for module in model.modules() if hasattr(module, "project_")]
        trained = trained_by(self.optimizer)
        steps, factor, classes = self.steps_per_epoch(split), 0.0, self._checked[1]
        for step, batch in enumerate(batches):
            factor = self._set_rate(self.epoch * steps + step, steps)
            inputs, labels = like_model(model, *batch)
            if self.channels_last:
                inputs = mapped(channels_last, inputs)
            for parameter in trained:
                parameter.grad = None
            outputs = forward(model, inputs, self.precision)
            loss = loss_value(self.loss, outputs, labels)
            losses.append(loss.detach())
            if self.penalty is not None and self.pull_ is None:
                penalty = _one_number(self.penalty(model))
                penalties.append(penalty.detach())
                loss = loss + penalty
            loss.backward()
            if self.pull_ is not None:
                self.pull_(model)
            self._step(trained, projecting)
            sizes.append(samples(inputs))
            if classes:
                right, count = hits(logits(outputs).detach(), labels, self.loss)
                correct, labelled = correct + right, labelled + count
            if len(sizes) % STEPS_BETWEEN_LOOKS == 0:
                self._refuse_divergence(losses, penalties)
        if not sizes:
            raise BadInput("the batches have run out: give batches that can be gone through again in each epoch.")
        if self.penalty is not None and self.pull_ is not None:
            with torch.no_grad():
                penalties = [_one_number(self.penalty(model))] * len(losses)
        self._refuse_divergence(losses, penalties)
        self._refuse_broken_weights()
        weights = torch.tensor(sizes, dtype=torch.float64, device=correct.device) / sum(sizes)
        return {
            "loss": float(torch.stack(losses).double() @ weights),
            "accuracy": 100 * int(correct) / int(labelled) if int(labelled) else math.nan,
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

    def check(self, split: Split | Feed) -> None:
        """Raises BadInput for weights, data or a batch size that cannot be trained on; a split is looked at once."""
        split = as_split(split, self.model)
        check_finite(self.model)
        if self._checked and self._checked[0] is getattr(split, "source", split):
            return
        found = look(self.model, self.loss, split)
        size = found.samples if isinstance(split, Feed) else min(self.batch_size, len(split))
        check_batch_norm(self.model, size)
        self.steps_per_epoch(split)
        self._checked = (getattr(split, "source", split), found.classes)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a layer normalises over the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def check_batch_norm(model: nn.Module, size: int) -> None:
    """Raise BadInput for batches of one sample, which have no variance, in a network with batch norm."""
    if size == 1 and has_batch_norm(model):
        raise BadInput("batch norm cannot train on batches of one sample: use a batch size of at least 2.")


def _check_types(optimizer: object, learning_rate: object) -> None:
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise BadType(f"optimizer holds settings, Optimizer('sgd', lr=0.1), not a {type(optimizer).__name__}.")
    if learning_rate is not None and not hasattr(learning_rate, "factor"):
        raise BadType(f"learning_rate is a schedule such as LearningRate('cosine'), not {shown(learning_rate)}.")


def _one_number(penalty: object) -> Tensor:
    if not isinstance(penalty, Tensor) or penalty.numel() != 1:
        raise BadInput("a penalty must return one number as a tensor.")
    return penalty.reshape(())
