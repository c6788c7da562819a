"""The numbers of a training in TensorBoard: an observer."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pruning_core.checks import A, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.records.places import check_folder
from pruning_core.training.trainer import Trainer


def summary_writer() -> Any:
    """torch's SummaryWriter. Raises BadInput when the package tensorboard is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadInput("TensorBoard is not installed: pip install 'pruning-core[sweep]' brings it.") from error
    if threading.excepthook is not _but_writers:
        _others.append(threading.excepthook)
        threading.excepthook = _but_writers
    return SummaryWriter


_others: list[Callable[[Any], Any]] = []


def _but_writers(ended: Any) -> None:
    """What a thread that fails prints; nothing of the one that writes for TensorBoard, which hands its error on besides."""
    if type(ended.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
        _others[-1](ended)


@checked
class TensorBoard:
    """Writes every number of a row as a scalar to ``folder``, at the row's epoch.

    ``also(trainer)`` may return further numbers by name. ``purge_step``: what the folder holds of this epoch and later ones
    is replaced, as when a run goes on. Raises BadInput when the package tensorboard is not there.

    >>> import pruning_core as pc
    >>> import tempfile
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = pc.fit(network, digits, epochs=1, observers=[TensorBoard(folder)], progress=False)
    ...     print(len(list(Path(folder).iterdir())))
    1
    """

    def __init__(
        self,
        folder: str | Path,
        also: Callable[[Trainer], dict[str, float]] | None = None,
        purge_step: int | None = None,
    ):
        self.also, self._folder = also, check_folder("folder", folder)
        with self._writing():
            self._writer = summary_writer()(str(self._folder), purge_step=purge_step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What is written within the block is on the disk behind it; BadInput where that cannot be."""
        try:
            yield
            if hasattr(self, "_writer"):
                self._writer.flush()
        except OSError as error:
            why = error.strerror or "its file could not be written before"
            raise BadInput(f"cannot write for TensorBoard into {self._folder}: {why}.") from error

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.add_numbers(row | (self.also(trainer) if self.also is not None else {}), row["epoch"])

    @checked(step=Whole(at_least=0))
    def add_numbers(self, numbers: Mapping[str, Any], step: int) -> None:
        """Write what of ``numbers`` is a number, but no column "epoch", which is the step."""
        with self._writing():
            for name, value in numbers.items():
                if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(name, float(value), step)

    @checked(step=Whole(at_least=0))
    def add_histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Write how the finite ones of ``values`` are spread; nothing where there are none."""
        values = values.detach().float()
        if (finite := values[values.isfinite()]).numel():
            with self._writing():
                self._writer.add_histogram(tag, finite.cpu(), step)

    @checked(epoch=Whole(at_least=0))
    def add_picture(self, tag: str, figure: Any, epoch: int) -> None:
        """Write a matplotlib figure under ``tag`` (an elasticity curve), or a tensor (1 or 3, rows, columns), values in [0, 1]
        (a confusion matrix, weights, saliency maps)."""
        from matplotlib.figure import Figure

        if isinstance(figure, Tensor):
            if figure.dim() != 3 or len(figure) not in (1, 3) or not figure.numel():
                raise BadInput(f"a picture has the shape (1 or 3, rows, columns), not {tuple(figure.shape)}.")
            picture = figure.detach().float().clamp(0, 1).cpu()
            with self._writing():
                self._writer.add_image(tag, picture, epoch)
            return
        check("figure", figure, A(Figure, "a figure of matplotlib, or a tensor"))
        with self._writing():
            self._writer.add_figure(tag, figure, epoch, close=False)

    @checked(step=Whole(at_least=0))
    def add_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, its lines as they are."""
        with self._writing():
            self._writer.add_text(tag, "".join(f"    {line}\n" for line in text.splitlines()), step)  # Markdown's code

    def close(self) -> None:
        """Finish the file; until then each epoch is already on disk."""
        with self._writing():
            self._writer.close()
