"""Batches as users have them: a DataLoader, a list, a generator; pairs, dicts, several inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pruning_core.errors import BadInput, BadType, named_failures

LABELS = ("labels", "label", "targets", "target", "y")
"""Under which of these names a batch that is a dict has its labels: the first that it holds."""


class Feed:
    """Batches of (inputs, labels), in the order and the sizes that their source gives, again and again.

    ``source``: a DataLoader, a list of batches or another iterable; one that can be read only once is held in memory. A
    batch is a pair (more entries are left out), inputs alone, or a dict with its labels under one of ``LABELS``. Inputs
    become a tensor, or the tuple of the positional arguments of ``model.forward``, whose names a dict's entries bear; labels
    that are whole numbers become int64, arrays of numpy tensors, and labels that are not there None. Raises BadType or
    BadInput for what is no batch.

    >>> feed = Feed([{"x": np.zeros((2, 3)), "labels": torch.ones(2, dtype=torch.int32)}])
    >>> [(inputs.shape, labels.dtype) for inputs, labels in feed]
    [(torch.Size([2, 3]), torch.int64)]
    """

    def __init__(self, source: Any, model: Any = None):
        if isinstance(source, Dataset):
            kind = type(source).__name__
            raise BadType(
                f"batches are needed, not {kind}, whose entries are single samples: give DataLoader({kind}(...))."
            )
        if not isinstance(source, Iterable) or isinstance(source, str | bytes | Mapping | Tensor):
            remedy = "; put a single batch into a list" if isinstance(source, Mapping | Tensor) else ""
            raise BadType(f"batches must be an iterable of (inputs, labels), not {type(source).__name__}{remedy}.")
        if _is_one_pair(source):
            raise BadType(
                "batches is one pair of inputs and labels, not a list of such pairs: give [(inputs, labels)]."
            )
        self.source = list(_read(source)) if isinstance(source, Iterator) else source
        self.model = model

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for number, batch in enumerate(_read(self.source), 1):
            inputs, labels = self._pair(batch)
            if any(len(part) == 0 for part in _parts(inputs) if isinstance(part, Tensor) and part.dim()):
                raise BadInput(f"batch {number} holds no sample.")
            yield inputs, labels

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Any, Any]]:
        """What a Split has; here size and order are those of the source, whatever is asked."""
        return iter(self)

    def steps(self) -> int | None:
        """The number of batches; None where the source does not know it."""
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:
            return None

    def first(self) -> tuple[Any, Any]:
        """The first batch; raises BadInput where there is none, or it holds no sample."""
        found = next(iter(self), None)
        if found is None:
            raise BadInput("batches is empty: there is no sample to work with.")
        return found

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        inputs, labels = batch, None
        if isinstance(batch, Mapping):
            key = next((name for name in LABELS if name in batch), None)
            labels = None if key is None else batch[key]
            inputs = {name: entry for name, entry in batch.items() if name != key}
        elif isinstance(batch, tuple | list) and len(batch) > 1:
            inputs, labels = batch[0], batch[1]
        elif isinstance(batch, tuple | list) and len(batch) == 1:
            inputs = batch[0]
        if isinstance(inputs, Mapping):
            inputs = _in_order(self.model, inputs)
        inputs = tuple(map(_tensor, inputs)) if isinstance(inputs, tuple | list) else _tensor(inputs)
        if not any(isinstance(part, Tensor) for part in _parts(inputs)):
            raise BadType(f"batches must yield pairs (inputs, labels) of tensors, not {type(batch).__name__}.")
        labels = _tensor(labels)
        if isinstance(labels, Tensor) and labels.layout is not torch.strided:
            raise BadType(f"the labels of a batch must be a dense tensor, not one with the layout {labels.layout}.")
        whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
        return inputs, labels.long() if whole and labels.dtype != torch.bool else labels


def _read(source: Iterable[Any]) -> Iterator[Any]:
    """What a source gives, one after the other; BadInput for what its own code, such as a data set's, raises meanwhile."""
    with named_failures("the source of the batches"):
        rest = iter(source)
    while True:
        with named_failures("the source of the batches"):
            try:
                batch = next(rest)
            except StopIteration:
                return
        yield batch


def _is_one_pair(source: Any) -> bool:
    """Whether two tensors or arrays stand there of one length, of which only the second holds whole numbers, one a sample:
    as batches of inputs alone they would not be alike."""
    if type(source) not in (tuple, list) or len(source) != 2 or not all(hasattr(part, "shape") for part in source):
        return False
    inputs, labels = map(_tensor, source)
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor) or not inputs.dim() or not labels.dim():
        return False
    return len(inputs) == len(labels) and inputs.is_floating_point() and not labels.is_floating_point()


def _parts(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _tensor(value: Any) -> Any:
    """An array as a tensor, anything else as it is; BadType for what holds no numbers, or samples of many shapes."""
    if isinstance(value, Tensor) and value.is_nested:
        raise BadType("a batch holds a nested tensor, whose samples have shapes of their own: pad them to one.")
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return value
    if value.dtype.kind not in "biufc":
        raise BadType(f"batches must hold numbers, not an array of {value.dtype}.")
    try:
        return torch.from_numpy(value)
    except (
        TypeError,
        ValueError,
    ):  # read backwards, as images[::-1], with the bytes of another machine, or a long double
        kind = np.dtype(float) if value.dtype == np.longdouble else value.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(value, dtype=kind, order="C"))


def _in_order(model: Any, named: Mapping[str, Any]) -> Any:
    """Inputs by name as positional arguments of ``model.forward``; one alone may bear any name."""
    if model is not None:
        signature = inspect.signature(model.forward)
        places = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if named and named.keys() <= set(places):
            try:
                bound = signature.bind(**named)
            except TypeError as error:
                raise BadInput(f"a batch has the inputs {list(named)}, but the network's forward: {error}.") from error
            bound.apply_defaults()
            last = max(places.index(name) for name in named)
            found = tuple(bound.arguments[name] for name in places[: last + 1])
            return found if len(found) > 1 else found[0]
    if len(named) == 1:
        return next(iter(named.values()))
    takes = "" if model is None else f"; the network's forward takes {', '.join(places)}"
    raise BadInput(f"a batch has the inputs {list(named)}, which are not those of the network{takes}.")
