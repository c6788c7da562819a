"""What can be watched while a network trains: sign flips of its weights, and any numbers in TensorBoard.

An observer is anything that is called as ``observer(trainer, row)`` after each epoch: ``trainer`` is the
Trainer as it stands, ``row`` the epoch's dict in its history, to which the observer may add JSON-able
numbers.

    fit(model, data, epochs=5, observers=[SignFlips(model), TensorBoard("runs/first")])
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.trainer import Trainer


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


class TensorBoard:
    """Writes every number of a row as a scalar to ``folder``, at the row's epoch.

    ``also(trainer)`` may return further numbers by name. Raises BadInput when the package tensorboard is not
    there.
    """

    def __init__(self, folder: str | Path, also: Callable[[Trainer], dict[str, float]] | None = None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadInput("TensorBoard is not installed: pip install 'pruning-core[sweep]' brings it.") from error
        self.also = also
        self._writer = SummaryWriter(str(folder))

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        numbers = row | (self.also(trainer) if self.also is not None else {})
        for name, value in _numbers(numbers.items()):
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file; until then each epoch is already on disk."""
        self._writer.close()


def _numbers(items: Iterable[tuple[str, Any]]) -> list[tuple[str, float]]:
    return [
        (name, float(value))
        for name, value in items
        if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
    ]
