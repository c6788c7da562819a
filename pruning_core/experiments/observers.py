"""What can be watched while a network trains: sign flips, elasticities and the drift of its weights.

An observer is called as ``observer(trainer, row)`` after each epoch, ``row`` being the epoch's dict in the history, to
which it may add JSON-able numbers: ``fit(model, data, epochs=5, observers=[SignFlips(model)])``. The weights watched are
the parameters with two or more dimensions; dead ones do not count. Source: verdenius2020snipit, as implemented.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.methods.shared.elasticities import loss_gradients, weight_elasticities
from pruning_core.models.ready import check_numbers
from pruning_core.training.trainer import Trainer


def watched_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> a copy of the weight, for the parameters with two or more dimensions; BadInput when there is none."""
    check_numbers(model)
    found = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.dim() >= 2}
    if not found:
        raise BadInput("there is no parameter with two or more dimensions whose weights could be watched.")
    return found


def _living(values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([v[masks[n].to(v.device)] if n in masks else v.flatten() for n, v in values.items()])


def _same_shapes(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in other.items()}


@checked
class SignFlips:
    """Fraction of the living weights, in [0, 1], whose sign is another than before.

    Adds ``sign_flips`` (since the last epoch) and ``sign_flips_from_start`` (since the observer was made, from the weights
    that ``model`` had then, or from those of ``start``, a state_dict) to each row. After channels were removed, both start
    anew from the smaller network.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> history = pc.fit(network, digits, epochs=1, observers=[SignFlips(network)], progress=False)
    >>> 0 < history[0]["sign_flips"] < 0.5
    True
    """

    def __init__(self, model: nn.Module, start: Mapping[str, Tensor] | None = None):
        self._previous = self._signs(model)
        self._start = self._previous
        if start is not None:
            if missing := self._previous.keys() - start.keys():
                raise BadInput(f"start has no weights of {sorted(missing)[0]!r}, which the network has.")
            self._start = {name: start[name].to(signs.device) < 0 for name, signs in self._previous.items()}

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        now = self._signs(trainer.model)
        if not _same_shapes(now, self._start):
            self._start = self._previous = now
        for column, before in (("sign_flips", self._previous), ("sign_flips_from_start", self._start)):
            flipped = _living({name: signs != before[name] for name, signs in now.items()}, trainer.masks)
            row[column] = int(flipped.sum()) / max(len(flipped), 1)
        self._previous = now

    @staticmethod
    def _signs(model: nn.Module) -> dict[str, Tensor]:
        return {name: weight < 0 for name, weight in watched_weights(model).items()}


@checked
class Elasticities:
    """Keeps the sorted elasticities ``|w dL/dw / L|`` of the living weights, as quantiles, after chosen epochs.

    ``batches`` (inputs, labels) are what they are computed on; ``every`` says after how many epochs. ``curves`` holds a
    dict an epoch: epoch, quantiles (largest first, ``points`` of them), zeros (share of living weights without any).
    Adds the median to the row. An epoch at which no weight lives any more leaves neither.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> observer = Elasticities(list(digits.score.batches(64)), points=3)
    >>> history = pc.fit(network, digits, epochs=1, observers=[observer], progress=False)
    >>> sorted(observer.curves[0])
    ['epoch', 'quantiles', 'zeros']
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
        gradients, loss = loss_gradients(model, list(watched_weights(model)), self.batches, trainer.loss)
        living = _living(weight_elasticities(model, gradients, loss), trainer.masks).cpu()
        if not len(living):
            return
        ordered = living.sort(descending=True).values
        places = torch.linspace(0, len(ordered) - 1, min(self.points, len(ordered))).round().long()
        zeros = float((living == 0).double().mean())
        self.curves.append({"epoch": row["epoch"], "quantiles": ordered[places].tolist(), "zeros": zeros})
        row["median_elasticity"] = float(ordered[len(ordered) // 2])


@checked
class WeightStatistics:
    """Running mean and variance of every weight over the epochs (Welford's update), in ``mean`` and ``variance``.

    Starts anew when channels were removed: a weight of the smaller network is not the one of that place before. Adds
    ``weight_deviation`` to the row: the root of the mean variance of the weights that live, None when none does.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> statistics = WeightStatistics()
    >>> history = pc.fit(network, digits, epochs=2, observers=[statistics], progress=False)
    >>> statistics.mean["fc1.weight"].shape
    torch.Size([30, 64])
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    @property
    def variance(self) -> dict[str, Tensor]:
        """Unbiased variance a weight; zeros before the second epoch."""
        return {name: squares / max(self.count - 1, 1) for name, squares in self._squares.items()}

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        now = watched_weights(trainer.model)
        if not _same_shapes(now, self.mean):
            self.count = 0
            self.mean, self._squares = ({n: torch.zeros_like(weight) for n, weight in now.items()} for _ in range(2))
        self.count += 1
        for name, weight in now.items():
            away = weight - self.mean[name]
            self.mean[name] += away / self.count
            self._squares[name] += away * (weight - self.mean[name])
        living = _living(self.variance, trainer.masks)
        row["weight_deviation"] = float(living.mean().sqrt()) if len(living) else None
