"""The numbers of a training in TensorBoard: an observer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pruning_core.checks import A, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.training.trainer import Trainer


@checked
class TensorBoard:
    """Writes every number of a row as a scalar to ``folder``, at the row's epoch.

    ``also(trainer)`` may return further numbers by name. Raises BadInput when the package tensorboard is not there.
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
        for name, value in numbers.items():
            if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, float(value), row["epoch"])
        self._writer.flush()

    @checked(epoch=Whole(at_least=0))
    def add_picture(self, tag: str, figure: Any, epoch: int) -> None:
        """Write a matplotlib figure (a confusion matrix, saliency maps, an elasticity curve) under ``tag``."""
        from matplotlib.figure import Figure

        self._writer.add_figure(tag, check("figure", figure, A(Figure, "a figure of matplotlib")), epoch, close=False)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file; until then each epoch is already on disk."""
        self._writer.close()
