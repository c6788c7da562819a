"""What SNIP-it's code watches while a network trains: sign flips, elasticities and drift of its weights, TensorBoard's tags.

An observer is anything that is called as ``observer(trainer, row)`` after each epoch: ``trainer`` is the
Trainer as it stands, ``row`` the epoch's dict in its history, to which the observer may add JSON-able
numbers.

    fit(model, data, epochs=5, observers=[SignFlips(model), TensorBoard("runs/first")])
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, check
from pruning_core.errors import BadInput
from pruning_core.masks.reports import dead_units
from pruning_core.methods.shared.elasticities import loss_gradients, weight_elasticities
from pruning_core.papers.snipit.counts import compressed_bits, harmonic_mean, reference_flops
from pruning_core.training.trainer import Trainer


class SignFlips:
    """Fraction of the living weights, in [0, 1], whose sign is another than before.

    Adds ``sign_flips`` (since the last epoch) and ``sign_flips_from_start`` (since the observer was made,
    from the weights that ``model`` had then) to each row. ``chosen(name)`` picks the parameters; by default
    all with two or more dimensions. Dead weights do not count. After channels were removed, both start anew
    from the smaller network.
    """

    def __init__(self, model: nn.Module, chosen: Callable[[str], bool] | None = None):
        self.chosen = chosen
        self._start = self._previous = self._signs(model)
        if not self._start:
            raise BadInput("there is no parameter whose signs could be watched.")

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        now = self._signs(trainer.model)
        if {name: signs.shape for name, signs in now.items()} != {n: s.shape for n, s in self._start.items()}:
            self._start = self._previous = now
        row["sign_flips"] = self._flipped(self._previous, now, trainer)
        row["sign_flips_from_start"] = self._flipped(self._start, now, trainer)
        self._previous = now

    def _signs(self, model: nn.Module) -> dict[str, Tensor]:
        return {
            name: parameter.detach() < 0
            for name, parameter in model.named_parameters()
            if (parameter.dim() >= 2 if self.chosen is None else self.chosen(name))
        }

    @staticmethod
    def _flipped(before: dict[str, Tensor], now: dict[str, Tensor], trainer: Trainer) -> float:
        flipped = living = 0
        for name, signs in now.items():
            alive = trainer.masks.get(name, torch.ones_like(signs)).to(signs.device)
            flipped += int(((signs != before[name]) & alive).sum())
            living += int(alive.sum())
        return flipped / max(living, 1)


class Elasticities:
    """Keeps the sorted elasticities ``|w dL/dw / L|`` of the living weights, as quantiles, after chosen epochs.

    ``batches`` (inputs, labels) are what they are computed on; ``every`` says after how many epochs. ``curves`` holds a
    dict an epoch: epoch, quantiles (largest first, ``points`` of them), zeros (share of living weights without any).
    Adds the median to the row. An epoch at which no weight lives any more leaves neither.
    Source: verdenius2020snipit, as implemented in the official code.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], every: int = 1, points: int = 200):
        self.batches, self.every = list(batches), check("every", every, Whole(at_least=1))
        self.points = check("points", points, Whole(at_least=2))
        if not self.batches:
            raise BadInput("elasticities need at least one batch.")
        self.curves: list[dict[str, Any]] = []

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if row["epoch"] % self.every:
            return
        model = trainer.model
        names = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]
        gradients, loss = loss_gradients(model, names, self.batches, trainer.loss)
        scores = weight_elasticities(model, gradients, loss)
        living = torch.cat(
            [
                (score[trainer.masks[name].to(score.device)] if name in trainer.masks else score).flatten()
                for name, score in scores.items()
            ]
        ).cpu()
        if not len(living):
            return
        ordered = living.sort(descending=True).values
        places = torch.linspace(0, len(ordered) - 1, min(self.points, len(ordered))).round().long()
        zeros = float((living == 0).double().mean())
        self.curves.append({"epoch": row["epoch"], "quantiles": ordered[places].tolist(), "zeros": zeros})
        row["median_elasticity"] = float(ordered[len(ordered) // 2])


class WeightStatistics:
    """Running mean and variance of every weight over the epochs (Welford's update), in ``mean`` and ``variance``.

    Starts anew when channels were removed: a weight of the smaller network is not the one of that place before. Adds
    ``weight_deviation`` to the row: the root of the mean variance of the weights that live, None when none does.
    """

    def __init__(self, chosen: Callable[[str], bool] | None = None):
        self.chosen, self.count = chosen, 0
        self.mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    @property
    def variance(self) -> dict[str, Tensor]:
        """Unbiased variance a weight; zeros before the second epoch."""
        return {name: squares / max(self.count - 1, 1) for name, squares in self._squares.items()}

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        now = {
            name: parameter.detach().clone()
            for name, parameter in trainer.model.named_parameters()
            if (parameter.dim() >= 2 if self.chosen is None else self.chosen(name))
        }
        if not now:
            raise BadInput("there is no parameter whose mean and variance could be followed.")
        if {n: w.shape for n, w in now.items()} != {n: w.shape for n, w in self.mean.items()}:
            self.count = 0
            self.mean = {name: torch.zeros_like(weight) for name, weight in now.items()}
            self._squares = {name: torch.zeros_like(weight) for name, weight in now.items()}
        self.count += 1
        for name, weight in now.items():
            away = weight - self.mean[name]
            self.mean[name] += away / self.count
            self._squares[name] += away * (weight - self.mean[name])
        living = torch.cat(
            [v[trainer.masks[n].to(v.device)] if n in trainer.masks else v.flatten() for n, v in self.variance.items()]
        )
        row["weight_deviation"] = float(living.mean().sqrt()) if len(living) else None


class OfficialTags:
    """The numbers that SNIP-it's code sends to TensorBoard, under its names: pass it as ``TensorBoard(also=...)``.

    acc/train, acc/test (here: of the validation split, where there is one), loss/train, loss/test, sparse/weight, sparse/node,
    sparse/hm, sparse/log_disk_size, time/batch_time, time/flops_per_sample, time/flops_log_cum, cuda/ram_footprint. FLOPs
    are those of ``statistics.reference_flops``, forward passes only. ``example``: one input; ``model``: as it starts.
    """

    def __init__(self, model: nn.Module, example: Tensor, samples: int):
        self.samples, self.cumulative = check("samples", samples, Whole(at_least=1)), 0.0
        reference_flops(model, example)  # refuses an example that cannot be counted now, not after an epoch
        self.example = example[:1]
        self._weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() >= 2)
        self._units = self._living_units(model, {})

    @staticmethod
    def _living_units(model: nn.Module, masks: Any) -> int:
        """Outputs of all layers but the last that have a living weight."""
        names = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2][:-1]
        dead = dead_units(model, masks)
        return sum(len(model.get_parameter(name)) - dead[name] for name in names)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        model, last = trainer.model, trainer.history[-1]
        flops = reference_flops(model, self.example)
        self.cumulative += flops * self.samples
        zeros = self._weights - sum(int(torch.count_nonzero(p)) for p in model.parameters() if p.dim() >= 2)
        sparsity = zeros / self._weights
        accuracy = last.get("validation_accuracy", last["train_accuracy"])
        tags = {
            "acc/train": last["train_accuracy"] / 100,
            "loss/train": last["train_loss"],
            "sparse/weight": sparsity,
            "sparse/node": 1 - self._living_units(model, trainer.masks) / self._units if self._units else 0.0,
            "sparse/hm": harmonic_mean(sparsity, accuracy),
            "sparse/log_disk_size": math.log(compressed_bits(model)),
            "time/batch_time": last["seconds"] / -(-self.samples // trainer.batch_size),
            "time/flops_per_sample": float(flops),
            "time/flops_log_cum": math.log10(self.cumulative),
        }
        if "validation_accuracy" in last:
            tags |= {"acc/test": last["validation_accuracy"] / 100, "loss/test": last["validation_loss"]}
        if next(model.parameters()).is_cuda:
            tags["cuda/ram_footprint"] = float(torch.cuda.max_memory_allocated())
        return tags
