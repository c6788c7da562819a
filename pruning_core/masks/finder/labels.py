"""Labels: which unit every index of a dimension belongs to, what belongs together, and what must stay.

A label is a whole number, one for every index of every dimension of every parameter; -1 stands for an index that belongs to
no unit. Operators join labels (channel 3 of two summands) or fix them (channels of a layer norm).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import numpy as np

Vector = np.ndarray
Reason = str | Callable[[], str]
SHAPES, VALUES = 1, 2  # what a trial must look at, where sizes were written out and where dimensions were split


class Block(NamedTuple):
    """The labels of some dimensions of a tensor: an array with one axis for each of ``dims``, in ascending order.

    Several dimensions share a block when one dimension was split into them and nobody yet asked which of them counts
    units; ``origin`` is the vector from before the split, to which joining them again in the same order leads back.
    """

    dims: tuple[int, ...]
    labels: Vector
    origin: Vector | None = None

    def moved(self, to: dict[int, int]) -> Block:
        """The same block where dimension d of the tensor has become dimension ``to[d]``."""
        order = sorted(range(len(self.dims)), key=lambda axis: to[self.dims[axis]])
        return Block(tuple(to[self.dims[a]] for a in order), self.labels.transpose(order), self.origin)


Marks = tuple[Block, ...]


def block_at(marks: Marks, dim: int) -> Block | None:
    """The block that ``dim`` is part of."""
    return next((block for block in marks if dim in block.dims), None)


class Labels:
    """All labels of a network, what was joined and fixed, and what a trial must try.

    >>> labels = Labels()
    >>> a, b = labels.new(3), labels.new(3)
    >>> labels.join(a, b, "they are added to a constant")
    >>> labels.fix(b[:1], "they are outputs of the network")
    >>> labels.classes()
    array([0, 1, 2, 0, 1, 2])
    >>> labels.reasons(labels.classes())
    {0: 'they are outputs of the network'}
    """

    def __init__(self) -> None:
        self.count = 0
        self._joined: list[tuple[Vector, Vector]] = []
        self._fixed: list[tuple[Vector, str, int]] = []
        self._leads: list[tuple[int, ...]] = []  # step -> the steps whose results it reads
        self._ends: list[int] = []
        self._tried: list[tuple[Vector, int, str]] = []
        self.place = ""  # the module that is running
        self._readers: list[tuple[int, int]] = []

    def new(self, size: int, reads: bool = False) -> Vector:
        """Labels of their own for ``size`` indices; ``reads``: of columns, whose masks silence what they read."""
        start, self.count = self.count, self.count + size
        if reads:
            self._readers.append((start, self.count))
        return np.arange(start, self.count)

    def reads(self, vector: Vector) -> bool:
        """Whether these are the columns of one layer."""
        first, last = int(vector.min()), int(vector.max())
        return any(start <= first and last < end for start, end in self._readers)

    def join(self, first: Vector, second: Vector, reason: Reason) -> None:
        """Index by index the same unit; where one belongs to no unit, the other is fixed for ``reason``."""
        if first is second:
            return
        first, second = (array.reshape(-1) for array in np.broadcast_arrays(first, second))
        if int(first.min()) < 0 or int(second.min()) < 0:
            none = (first < 0) | (second < 0)
            self.fix(np.concatenate([first[none], second[none]]), reason)
            first, second = first[~none], second[~none]
        self._joined.append((first, second))

    def fix(self, labels: Vector, reason: Reason) -> None:
        """These units cannot be removed; the first reason counts."""
        labels = labels[labels >= 0]
        if labels.size:
            self._fixed.append((labels, reason if isinstance(reason, str) else reason(), len(self._leads) - 1))

    def step(self, reads: tuple[int, ...]) -> int:
        """Begin a step that ``reads`` what earlier steps made; what is fixed from here on is part of it."""
        self._leads.append(reads)
        return len(self._leads) - 1

    def end(self, step: int) -> None:
        """The result of this step leaves the network."""
        self._ends.append(step)

    def _live(self) -> Vector:
        """For every step whether an output depends on it; what belongs to no step (-1, the last entry) always counts."""
        live = np.zeros(len(self._leads) + 1, dtype=bool)
        live[-1] = True
        waiting = list(self._ends)
        while waiting:
            step = waiting.pop()
            if not live[step]:
                live[step] = True
                waiting += self._leads[step]
        return live

    def doubt(self, labels: Vector, what: int) -> None:
        """A trial must show that units can be removed: SHAPES, where sizes may be written out, or VALUES."""
        self._tried.append((labels[labels >= 0], what, self.place))

    def fold(self, labels: Vector, axes: Collection[int], reason: Reason) -> Vector:
        """Join along these axes, which disappear."""
        for axis in sorted(axes, reverse=True):
            first = labels.take([0], axis)
            if labels.shape[axis] > 1:
                self.join(first, labels, reason)
            labels = first.squeeze(axis)
        return labels

    def settle(self, block: Block, keep: Collection[int], reason: Reason) -> Block:
        """The block with units along the dimensions ``keep`` only."""
        if set(block.dims) <= set(keep):
            return block
        self.doubt(block.labels, VALUES)
        axes = [axis for axis, dim in enumerate(block.dims) if dim not in keep]
        return Block(tuple(d for d in block.dims if d in keep), self.fold(block.labels, axes, reason))

    def without(self, marks: Marks, dims: Collection[int], reason: Reason, stay: bool = False) -> Marks:
        """Marks in which no unit lies along ``dims``: along the other dimensions of a split one, or fixed.

        ``stay``: what is fixed keeps its labels, because the operator hands every index on in its place.
        """
        found = []
        for block in marks:
            rest = [dim for dim in block.dims if dim not in dims]
            if rest:
                found.append(self.settle(block, rest, reason))
            else:
                self.fix(block.labels, reason)
                found += [block] * stay
        return tuple(found)

    def along(self, marks: Marks, dim: int, reason: Reason) -> tuple[Marks, Vector | None]:
        """The vector of labels of ``dim``, None where it has none, and the marks with nothing else in its block."""
        block = block_at(marks, dim)
        if block is None:
            return marks, None
        settled = self.settle(block, {dim}, reason)
        return tuple(settled if other is block else other for other in marks), settled.labels

    def classes(self) -> Vector:
        """For every label the smallest one that it was joined with, directly or through others."""
        root = np.arange(self.count)
        if not self._joined:
            return root
        first, second = (np.concatenate(side) for side in zip(*self._joined, strict=True))
        while True:
            first, second = root[first], root[second]
            open_ = first != second
            if not open_.any():
                return root
            first, second = first[open_], second[open_]
            np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
            while not np.array_equal(root, further := root[root]):
                root = further

    def met(self, classes: Vector) -> Vector:
        """For every class whether the forward pass came by: one of its labels was joined or fixed."""
        found = np.zeros(self.count, dtype=bool)
        for labels in (*(side for sides in self._joined for side in sides), *(labels for labels, _, _ in self._fixed)):
            found[classes[labels]] = True
        return found

    def reasons(self, classes: Vector) -> dict[int, str]:
        """Class -> the first reason for which one of its labels was fixed by a step that an output depends on."""
        found: dict[int, str] = {}
        live = self._live()
        for labels, reason, step in reversed(self._fixed):
            if live[step]:
                found.update(dict.fromkeys(np.unique(classes[labels]).tolist(), reason))
        return found

    def doubts(self, classes: Vector) -> dict[int, tuple[int, frozenset[str]]]:
        """Class -> what a trial must look at, SHAPES or VALUES too, and the modules in which the doubts arose."""
        found: dict[int, tuple[int, frozenset[str]]] = {}
        for labels, what, place in self._tried:
            for unit in np.unique(classes[labels]).tolist():
                worst, places = found.get(unit, (0, frozenset()))
                found[unit] = max(worst, what), places | {place}
        return found


def all_labels(marks: Iterable[Block]) -> Vector:
    """Every label in these blocks."""
    arrays = [block.labels.reshape(-1) for block in marks]
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=int)
