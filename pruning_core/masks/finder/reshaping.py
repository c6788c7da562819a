"""Operators that move indices and compute nothing: labels move along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pruning_core.masks.finder.labels import SHAPES, VALUES, Block, Labels, Marks, Reason, block_at


def segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Dimensions of two shapes of one size, in the smallest runs of equal products.

    >>> segments((2, 6, 5), (2, 3, 2, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    found = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        if not left or not right:  # what is left over has size one
            found.append((list(range(i, len(before))), list(range(j, len(after)))))
            break
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * before[i], i + 1
            else:
                right.append(j)
                b, j = b * after[j], j + 1
        found.append((left, right))
    return found


def view(
    labels: Labels, marks: Marks, before: Sequence[int], after: Sequence[int], reason: Reason, free: set[int] | None
) -> Marks:
    """Marks of a tensor of shape ``before`` in shape ``after``.

    ``free``: dimensions of ``after`` whose size follows from the tensor; None: all of them (a flatten).
    """
    if 0 in before:
        return ()
    runs = segments(before, after)
    of_dim = {dim: run for run in runs for dim in run[0]}
    plan: list[tuple[Block, list[tuple[list[int], list[int]]]]] = []
    taken: set[int] = set()
    for block in marks:
        touched = [run for run in runs if any(of_dim[dim] is run for dim in block.dims)]
        if taken & {id(run) for run in touched} or (
            block.labels.size == 1 and any(len(run[0]) != 1 for run in touched)
        ):
            if block.labels.size > 1:  # two kinds of units in one dimension
                labels.fix(block.labels, reason)
                plan = [entry for entry in plan if not _shared(labels, entry, touched, reason)]
            continue
        if not any(right for _, right in touched):  # a single unit along dimensions that disappear
            continue
        taken |= {id(run) for run in touched}
        plan.append((block, touched))
    return tuple(_viewed(labels, block, touched, before, after, reason, free) for block, touched in plan)


def _shared(labels: Labels, entry, touched, reason: Reason) -> bool:
    block, runs = entry
    if not {id(run) for run in runs} & {id(run) for run in touched}:
        return False
    labels.fix(block.labels, reason)
    return True


def _viewed(labels: Labels, block: Block, runs, before, after, reason: Reason, free: set[int] | None) -> Block:
    """One block, whose dimensions lie in ``runs``, in the new shape."""
    meet = [run for run in runs if sum(dim in block.dims for dim in run[0]) > 1]
    if meet:
        whole = [dim for left, _ in runs for dim in left if before[dim] > 1]
        flat = block.labels.reshape(-1)
        joined = len(runs) == len(runs[0][1]) == 1 and whole == list(block.dims)
        if joined and block.origin is not None and np.array_equal(flat, block.origin):
            return Block((runs[0][1][0],), flat)
        # In another order: one dimension must count the units, and better one that stays as it is.
        sizes = dict(zip(block.dims, block.labels.shape, strict=True))
        alone = [dim for left, right in runs for dim in left if dim in sizes and len(left) == len(right) == 1]
        block = labels.settle(block, {max(alone or block.dims, key=sizes.__getitem__)}, reason)
        runs = [run for run in runs if block.dims[0] in run[0]]
    left = [dim for run in runs for dim in run[0]]
    right = [dim for run in runs for dim in run[1]]
    axes = dict(zip(block.dims, block.labels.shape, strict=True))
    narrow = block.labels.reshape([axes.get(dim, 1) for dim in left])
    spread = np.broadcast_to(narrow, [before[dim] for dim in left]).reshape([after[dim] for dim in right])
    kept = [axis for axis in range(len(right)) if (spread != spread.take([0], axis)).any()]
    kept = kept or [int(np.argmax(spread.shape))]
    if free is not None and not all(right[axis] in free for axis in kept):
        labels.doubt(block.labels, SHAPES)
    for axis in sorted(set(range(len(right))) - set(kept), reverse=True):
        spread = spread.take(0, axis)
    origin = block.labels if len(kept) > 1 and len(left) == 1 else None
    found = Block(tuple(right[axis] for axis in kept), spread, block.origin if len(left) == len(right) else origin)
    growing = {right[axis] for axis in kept} & (free or set())
    # Of view(n, 4, -1) the second dimension has a size of its own: the units are the same in each of the four parts.
    return labels.settle(found, growing, reason) if growing else found


def permute(marks: Marks, order: Sequence[int]) -> Marks:
    """Marks of ``tensor.permute(order)``."""
    to = {dim % len(order): position for position, dim in enumerate(order)}
    return tuple(block.moved(to) for block in marks)


def expand(marks: Marks, before: Sequence[int], after: Sequence[int]) -> Marks:
    """Marks of a tensor that is broadcast to ``after``; a single unit along a dimension that grows is lost."""
    new = len(after) - len(before)
    return tuple(
        Block(tuple(dim + new for dim in block.dims), block.labels, block.origin)
        for block in marks
        if all(before[dim] == after[dim + new] for dim in block.dims)
    )


def repeat(marks: Marks, before: Sequence[int], times: Sequence[int]) -> Marks:
    """Marks of ``tensor.repeat(*times)``."""
    new = len(times) - len(before)
    return tuple(
        Block(tuple(d + new for d in block.dims), np.tile(block.labels, [times[d + new] for d in block.dims]))
        for block in marks
    )


def take(labels: Labels, marks: Marks, dim: int, indices: Sequence[slice], reason: Reason) -> list[Marks]:
    """Marks of the parts of a tensor along ``dim``. Parts of one size keep the same units, or the parts would move; of every
    second entry, or third, those that follow each other are one unit."""
    block = block_at(marks, dim)
    if block is None:
        return [marks] * len(indices)
    others = tuple(other for other in marks if other is not block)
    if len(block.dims) > 1:
        return [(*others, *labels.without((block,), {dim}, reason))] * len(indices)
    size = len(block.labels)
    if all(part == slice(0, size, 1) for part in indices):
        return [marks] * len(indices)
    step = indices[0].step
    if step > 1 and size % step == 0 and all(p.step == step and p.start < step and p.stop == size for p in indices):
        labels.fold(block.labels.reshape(-1, step), {1}, reason)
        labels.doubt(block.labels, VALUES)
        return [(*others, Block((dim,), block.labels[part])) for part in indices]
    width = indices[0].stop - indices[0].start
    even = width > 0 and size % width == 0
    if not even or any(p.stop - p.start != width or p.start % width or p.step != 1 for p in indices):
        labels.fix(block.labels, reason)
        return [others] * len(indices)
    labels.fold(block.labels.reshape(-1, width), {0}, reason)
    labels.doubt(block.labels, VALUES)
    return [(*others, Block((dim,), block.labels[part])) for part in indices]


def drop(marks: Marks, dims: set[int]) -> Marks:
    """Marks of a tensor from whose shape ``dims`` disappear; blocks along them alone do, too."""
    found = []
    for block in marks:
        if not dims & set(block.dims):
            left = tuple(dim - sum(gone < dim for gone in dims) for dim in block.dims)
            found.append(Block(left, block.labels, block.origin))
    return tuple(found)


def concatenate(labels: Labels, parts: Sequence[tuple[Marks, Sequence[int]]], dim: int, reason: Reason) -> Marks:
    """Marks of tensors with these marks and shapes, one behind the other along ``dim``."""
    vectors, others = [], []
    for marks, shape in parts:
        marks, vector = labels.along(marks, dim, reason)
        vectors.append(np.full(shape[dim], -1) if vector is None else vector)
        others.append((tuple(block for block in marks if dim not in block.dims), shape))
    found = broadcast(labels, [(marks, _one(shape, dim)) for marks, shape in others], reason)
    whole = np.concatenate(vectors)
    return (*found, Block((dim,), whole)) if (whole >= 0).any() else found


def _one(shape: Sequence[int], dim: int) -> list[int]:
    return [1 if d == dim else size for d, size in enumerate(shape)]


def broadcast(labels: Labels, parts: Sequence[tuple[Marks, Sequence[int]]], reason: Reason) -> Marks:
    """Marks of what is computed entry by entry from tensors with these marks and shapes: labels that meet are joined."""
    rank = max(len(shape) for _, shape in parts)
    full = [1] * rank
    placed: list[tuple[list[Block], list[int]]] = []
    for marks, shape in parts:
        new = rank - len(shape)
        sizes = [1] * new + list(shape)
        full = [max(a, b) for a, b in zip(full, sizes, strict=True)]
        placed.append(([Block(tuple(d + new for d in b.dims), b.labels, b.origin) for b in marks], sizes))
    found: list[Block] = []
    for blocks, sizes in placed:
        for block in blocks:
            if all(sizes[dim] == full[dim] for dim in block.dims):  # else one unit that meets many
                _merge(labels, found, block, reason)
    result: list[Block] = []
    for block in found:
        settled: Marks = (block,)
        for blocks, sizes in placed:
            marked = {dim for other in blocks for dim in other.dims}
            plain = {dim for dim in block.dims if sizes[dim] > 1 and dim not in marked}
            if plain and settled:
                settled = labels.without(settled, plain, reason)
        result += settled
    return tuple(sorted(result, key=lambda block: block.dims))


def _merge(labels: Labels, found: list[Block], block: Block, reason: Reason) -> None:
    """Join ``block`` with the ones in ``found`` that share its dimensions, in place."""
    for position, other in enumerate(found):
        common = set(other.dims) & set(block.dims)
        if not common:
            continue
        if other.dims != block.dims:
            keep = {max(common)}
            other, block = labels.settle(other, keep, reason), labels.settle(block, keep, reason)
            found[position] = other
        if other.labels is not block.labels:
            labels.join(other.labels, block.labels, reason)
        return
    found.append(block)
