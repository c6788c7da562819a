"""Networks for other runtimes: files of torch.export and of ONNX, written once their outputs are those of the network."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.models.calls import mapped, tensors_of, tried
from pruning_core.models.modes import copied, observing
from pruning_core.models.ready import check_values
from pruning_core.records.files import write_atomically

SUFFIXES = (".pt2", ".onnx")
NEEDED = {".pt2": (), ".onnx": ("onnx", "onnxscript", "onnxruntime")}
LARGEST = 2**31  # bytes: protobuf, in which ONNX files are written, ends there
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far outputs may be apart, as a fraction of the largest: other runtimes add in another order. Half precision: 0.03."""


@checked
def export_network(model: nn.Module, path: str | PathLike, example_input: Any) -> int | None:
    """Write ``model``, in evaluation mode, as a program that needs no class of yours: ``.pt2`` (torch.export) or ``.onnx``.

    ``example_input`` is a batch, or the tuple of the arguments of ``forward``. The file takes batches of any size (of one too)
    where the network does: then None is returned, otherwise the one size that it is bound to, the example's. Before anything
    is written the program is run on random inputs and must give the network's outputs; the network stays as it was.
    A ``.pt2`` is read by ``torch.export.load(path).module()``, an ``.onnx`` by onnxruntime and many others.

    Raises BadInput, in one sentence, for another suffix, a package that is missing, a network that the exporter cannot take
    or whose program gives other outputs, and where ``path`` cannot be written.

    >>> import tempfile
    >>> network, place = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), f"{tempfile.mkdtemp()}/small.pt2"
    >>> export_network(network, place, torch.zeros(1, 4))
    >>> torch.export.load(place).module()(torch.ones(7, 4)).shape
    torch.Size([7, 3])
    """
    suffix = _suffix(path)
    check_values(model)
    if suffix == ".onnx" and sum(p.numel() * p.element_size() for p in model.parameters()) > 0.95 * LARGEST:
        raise BadInput("an ONNX file holds at most 2 GiB of weights, and this network has more: export it as .pt2.")
    given = example_input if isinstance(example_input, tuple) else (example_input,)
    network = copied(model).eval()
    with observing(network), _quiet():
        if not tensors_of(tried(network, given)):
            raise BadInput(f"{type(model).__name__} puts out no tensor, so there is nothing to export.")
        program, bound = _traced(network, given)
        trial = mapped(partial(_like, size=None if bound else 3), given)
        run, write = (_as_onnx if suffix == ".onnx" else _as_program)(program)
        _check_outputs(network, run, trial, suffix)
        try:
            write_atomically(path, write)
        except NotImplementedError as error:  # a type that was registered without a name in files
            _refuse_dataclass(network(*given), error)
            raise
    return bound


def _suffix(path: str | PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise BadInput(f"a network is exported to a file that ends in .pt2 or .onnx, not {str(path)!r}.")
    if missing := [name for name in NEEDED[suffix] if importlib.util.find_spec(name) is None]:
        raise BadInput(f"writing {suffix} needs {' and '.join(missing)}: pip install {' '.join(missing)}.")
    return suffix


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn about their own insides, by warnings and by loggers; what concerns a user is raised."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _traced(network: nn.Module, given: tuple) -> tuple[Any, int | None]:
    """The program of the network, and the batch size it is bound to, None if it takes any.

    It is traced with two samples, as torch.export takes a size of one for a constant; where that does not give a program
    for three (a fixed size, an argument whose first dimension is no batch), with the example as it is.
    """
    doubled = mapped(partial(_like, size=2), given)
    try:
        sizes = tree_map(lambda leaf: {0: torch.export.Dim.AUTO} if _has_batch(leaf) else None, doubled)
        program = torch.export.export(network, doubled, dynamic_shapes=sizes, strict=False)
        for size in (3, 1):
            batch = mapped(partial(_like, size=size), given)
            found, wanted = tensors_of(program.module()(*batch)), tensors_of(network(*batch))
            if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
                raise ValueError("the program has another batch size built in")
        return program, None
    except Exception:  # whatever an exporter raises: the example's own size is tried next, and its error is told
        first = next(tensor for tensor in tensors_of(given))
    try:
        return torch.export.export(network, given, strict=False), len(first) if first.dim() else 1
    except Exception as error:
        _refuse_dataclass(network(*given), error)
        raise BadInput(
            f"torch.export cannot take {type(network).__name__}: {_first_line(error)}; save_network stores what needs its "
            "Python code to run."
        ) from error


def _refuse_dataclass(outputs: Any, error: Exception) -> None:
    if is_dataclass(outputs):
        kind = type(outputs).__name__
        raise BadInput(
            f"torch.export does not know {kind}, which the network puts out: call torch.export.register_dataclass({kind}, "
            f"serialized_type_name={kind!r}) before."
        ) from error


def _has_batch(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def _like(tensor: Tensor, size: int | None) -> Tensor:
    """``size`` samples (None: as many as there are) with values drawn around those of ``tensor``; whole numbers are repeated,
    for what they may be is not known."""
    if not tensor.dim() or not len(tensor):
        return tensor
    repeated = tensor if size is None else tensor[torch.arange(size, device=tensor.device) % len(tensor)]
    if not tensor.is_floating_point():
        return repeated
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(repeated.shape, generator=generator).to(repeated)
    scale = tensor.float().abs().mean().to(repeated) if bool(tensor.any()) else 1
    return repeated + 0.5 * scale * noise


def _as_program(program: Any) -> tuple[Callable, Callable[[Path], None]]:
    return program.module(), lambda place: torch.export.save(program, place)


def _as_onnx(program: Any) -> tuple[Callable, Callable[[Path], None]]:
    import onnxruntime

    try:
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
        assert converted is not None
        content = converted.model_proto.SerializeToString()
    except Exception as error:
        raise BadInput(f"the ONNX exporter cannot take this network: {_first_line(error)}; try .pt2.") from error
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadInput(
            f"onnxruntime cannot run this network on a processor: {_first_line(error)}; try a copy in float32, or .pt2."
        ) from error

    def run(*inputs: Any) -> list[Tensor]:
        arrays = [tensor.cpu().numpy() for tensor in tensors_of(inputs)]
        names = [entry.name for entry in session.get_inputs()]
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

    def write(place: Path) -> None:
        place.write_bytes(content)

    return run, write


def _check_outputs(network: nn.Module, run: Callable, trial: tuple, suffix: str) -> None:
    wanted = tensors_of(network(*trial))
    try:
        found = tensors_of(run(*trial))
    except Exception as error:
        raise BadInput(f"the exported {suffix} does not run: {_first_line(error)}") from error
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        raise BadInput(f"the exported {suffix} has outputs of other shapes than the network; nothing was written.")
    for ours, theirs in zip(wanted, found, strict=True):
        difference = float((ours.cpu().double() - theirs.cpu().double()).abs().max()) if ours.numel() else 0.0
        largest = float(ours.abs().max()) if ours.numel() else 0.0
        if not difference <= TOLERANCES.get(ours.dtype, 0.03) * max(largest, 1e-30):
            raise BadInput(
                f"the exported {suffix} differs by {difference:.2g} where outputs reach {largest:.2g}; nothing was written."
            )


def _first_line(error: Exception) -> str:
    """The first line of an error that says something: the exporters frame theirs with lines of stars and headings."""
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
