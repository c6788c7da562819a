"""Rules of the operators that pick entries of a tensor, or write to some: slices, parts, indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.masks.finder import reshaping
from pruning_core.masks.finder.calls import CONSTANT, WHOLE, Call, dims_of, marks_of, rule, unknown
from pruning_core.masks.finder.labels import SHAPES, Marks, all_labels


@rule("slice")
def slice_(call: Call) -> Marks:
    tensor, dim = call.given[0], call["dim"] % call.given[0].dim()
    size = tensor.shape[dim]
    part = slice(*slice(call["start"], call["end"]).indices(size)[:2], call["step"])
    return reshaping.take(call.labels, marks_of(tensor), dim, [part], call.why("which counts them"))[0]


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk")
def split(call: Call) -> list[Marks]:
    tensor, dim = call.given[0], call["dim"] % call.given[0].dim()
    ends, parts = 0, []
    for piece in call.output:
        parts.append(slice(ends, ends + piece.shape[dim], 1))
        ends += piece.shape[dim]
    return reshaping.take(call.labels, marks_of(tensor), dim, parts, call.why("which counts them"))


@rule("select", "unbind")
def select(call: Call) -> Marks | list[Marks]:
    dim = call["dim"] % call.given[0].dim()
    marks = call.labels.without(marks_of(call.given[0]), {dim}, call.why("which picks some of them"))
    marks = reshaping.drop(marks, {dim})
    return marks if call.op == "select" else [marks] * len(call.output)


@rule("gather")
def gather(call: Call) -> Marks:
    """Along one dimension; along the others the index says how many entries come out."""
    tensor, index = call.given[0], call.output
    shorter = {d for d in range(tensor.dim()) if index.shape[d] != tensor.shape[d]} | dims_of(call, tensor.dim())
    marks = call.labels.without(marks_of(tensor), shorter, call.why("which picks some of them"))
    call.labels.doubt(all_labels(marks), SHAPES)
    return marks


@rule("index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce")
def scattered(call: Call) -> Marks:
    """What is written or added to places along one dimension, and has the same entries along the others."""
    target, source = call.given[0], call.given[3] if len(call.given) > 3 else call.given[-1]
    dims = dims_of(call, target.dim())
    parts = [(marks_of(target), target.shape)]
    if isinstance(source, Tensor):
        parts.append((marks_of(source), source.shape))
    kept = [(call.labels.without(marks, dims, call.why("which picks some of them")), shape) for marks, shape in parts]
    narrow = [(marks, [1 if d in dims else size for d, size in enumerate(shape)]) for marks, shape in kept]
    marks = reshaping.broadcast(call.labels, narrow, call.why(CONSTANT))
    call.labels.doubt(all_labels(marks), SHAPES)
    return marks


@rule("index_put", "_index_put_impl")
def index_put(call: Call) -> Marks:
    """Rows written to places of the first dimensions, which an index names; the dimensions behind them are alike."""
    target, picked, values = call.given[:3]
    first = sum(max(1, index.dim() if index.dtype == torch.bool else 1) for index in picked if index is not None)
    if any(index is None for index in picked):
        return unknown(call)
    marks = call.labels.without(marks_of(target), set(range(first)), call.why("which picks some of them"))
    shift = target.dim() - values.dim()
    written = call.labels.without(
        marks_of(values), {d for d in range(values.dim()) if d + shift < first}, call.why("which picks some of them")
    )
    written = tuple(block.moved({d: d + shift for d in block.dims}) for block in written)
    shapes = [list(target.shape), [1] * max(shift, 0) + list(values.shape[max(-shift, 0) :])]
    narrow = [[1] * first + shape[first:] for shape in shapes]
    return reshaping.broadcast(call.labels, [(marks, narrow[0]), (written, narrow[1])], call.why(CONSTANT))


@rule("roll", "index_select", "repeat_interleave", "sort", "topk", "cummax", "unfold", "renorm", "kthvalue")
def along_a_dimension(call: Call) -> Marks | list[Marks]:
    """What mixes or picks the entries of some dimensions, which stay, and leaves the others alone."""
    tensor = call.given[0]
    dims = dims_of(call, tensor.dim())
    marks = call.labels.without(marks_of(tensor), dims, call.why(WHOLE))
    return [marks] * len(call.output) if isinstance(call.output, list | tuple) else marks


@rule("index")
def index(call: Call) -> Marks:
    tensor = call.given[0]
    picked = [i for i, chosen in enumerate(call["indices"]) if chosen is not None]
    marks = call.labels.without(marks_of(tensor), set(picked), call.why("which picks some of them"))
    if len(picked) == 1 and call["indices"][picked[0]].dim() == 1:
        return marks
    if not marks or (any(call["indices"][i].dim() != 1 for i in picked) and not _at_the_end(picked, tensor)):
        call.labels.fix(all_labels(marks), call.why("which picks some of them"))
        return ()
    shift = call.output.dim() - tensor.dim()
    first = picked[0]
    return tuple(block.moved({d: d if d < first else d + shift for d in block.dims}) for block in marks)


def _at_the_end(picked: Sequence[int], tensor: Tensor) -> bool:
    """Whether the indexed dimensions follow each other, so that what they pick stands in their place."""
    return list(picked) == list(range(picked[0], picked[-1] + 1))
