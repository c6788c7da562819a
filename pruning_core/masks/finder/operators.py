"""What every family of operators does to labels; an operator without a rule fixes what goes through it, by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.masks.finder import reshaping
from pruning_core.masks.finder.calls import CONSTANT, RULES, WHOLE, Call, Rule, marks_of, rule
from pruning_core.masks.finder.labels import SHAPES, Block, Marks, all_labels


def apply(call: Call) -> Marks | list[Marks]:
    """The labels of the outputs of a call."""
    name = call.op if call.op in RULES else call.op.rstrip("_")
    if name in RULES:
        return RULES[name](call)
    if torch.Tag.pointwise in call.func.tags:
        return pointwise(call)
    return unknown(call)


def unknown(call: Call) -> Marks:
    """Everything that goes in is fixed."""
    call.labels.fix(all_labels(block for tensor in call.tensors() for block in marks_of(tensor)), call.why())
    return ()


@rule("hardswish", "_prelu_kernel", "prelu", "rrelu_with_noise", "log_sigmoid_forward", "native_dropout", "masked_fill",
      "where", "_to_copy", "lift_fresh", "view_dtype", "_conj", "fill", "polar", "complex")  # fmt: skip
def pointwise(call: Call) -> Marks | list[Marks]:
    """Entry by entry, with broadcasting."""
    parts = [(marks_of(tensor), tensor.shape) for tensor in call.tensors()]
    marks = reshaping.broadcast(call.labels, parts, call.why(CONSTANT))
    return [marks] * len(call.output) if isinstance(call.output, list | tuple) else marks


@rule("detach", "alias", "contiguous", "zero", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like",
      "randn_like", "bernoulli", "uniform", "normal", "exponential")  # fmt: skip
def same(call: Call) -> Marks:
    """The shape of the first argument, whatever the values."""
    return marks_of(call.given[0])


FILLERS = {kind + name for name in ("empty", "zeros", "ones", "full", "empty_strided") for kind in ("", "new_")}


@rule(*FILLERS)
def filler(call: Call) -> Marks:
    """A tensor of one value throughout: units of its own, which become those of what is written to or meets it."""
    marks = tuple(Block((dim,), call.labels.new(size)) for dim, size in enumerate(call.output.shape) if size)
    call.labels.doubt(all_labels(marks), SHAPES)
    return marks


@rule("copy")
def copy(call: Call) -> Marks:
    target, source = call.given[:2]
    parts = [(marks_of(target), target.shape), (marks_of(source), source.shape)]
    return reshaping.broadcast(call.labels, parts, call.why(CONSTANT))


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_view_copy")
def view(call: Call) -> Marks:
    if not isinstance(call.output, Tensor) or call.has("dtype"):
        return marks_of(call.given[0])
    free = call.free if call.counted else None
    why = call.why("which joins them with others")
    return reshaping.view(call.labels, marks_of(call.given[0]), call.given[0].shape, call.output.shape, why, free)


@rule("unsqueeze", "squeeze")
def unsqueeze(call: Call) -> Marks:
    return reshaping.view(
        call.labels, marks_of(call.given[0]), call.given[0].shape, call.output.shape, call.why(), None
    )


@rule("t", "transpose", "permute", "numpy_T")
def permute(call: Call) -> Marks:
    rank = call.given[0].dim()
    order = list(range(rank))
    if call.op == "permute":
        order = [dim % rank for dim in call["dims"]]
    elif call.op.rstrip("_") == "transpose":
        first, second = call["dim0"] % rank, call["dim1"] % rank
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    return reshaping.permute(marks_of(call.given[0]), order)


@rule("expand")
def expand(call: Call) -> Marks:
    marks = reshaping.expand(marks_of(call.given[0]), call.given[0].shape, call.output.shape)
    if call.counted and (call.free is None or any(set(block.dims) - call.free for block in marks)):
        call.labels.doubt(all_labels(marks), SHAPES)
    return marks


@rule("repeat")
def repeat(call: Call) -> Marks:
    return reshaping.repeat(marks_of(call.given[0]), call.given[0].shape, call["repeats"])


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


@rule("cat", "concat")
def cat(call: Call) -> Marks:
    parts = [tensor for tensor in call["tensors"] if tensor.shape != (0,)]
    shapes = [(marks_of(tensor), tensor.shape) for tensor in parts]
    return reshaping.concatenate(call.labels, shapes, call["dim"] % parts[0].dim(), call.why(CONSTANT))


@rule("stack")
def stack(call: Call) -> Marks:
    dim = call["dim"] % call.output.dim()
    shapes = [(marks_of(tensor), tensor.shape) for tensor in call["tensors"]]
    marks = reshaping.broadcast(call.labels, shapes, call.why(CONSTANT))
    return tuple(block.moved({d: d + (d >= dim) for d in block.dims}) for block in marks)


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
      "replication_pad2d", "replication_pad3d", "pad")  # fmt: skip
def pad(call: Call) -> Marks:
    tensor, widths = call.given[0], call.given[1]
    padded = {tensor.dim() - 1 - i // 2 for i, width in enumerate(widths) if width}
    return call.labels.without(marks_of(tensor), padded, call.why("which adds others beside them"))


@rule("flip")
def flip(call: Call) -> Marks:
    tensor = call.given[0]
    turned = {dim % tensor.dim() for dim in call["dims"]}
    marks: Marks = ()
    for block in marks_of(tensor):
        axes = tuple(axis for axis, dim in enumerate(block.dims) if dim in turned)
        origin = block.origin if not axes else None
        marks = (*marks, Block(block.dims, block.labels[tuple(
            slice(None, None, -1) if axis in axes else slice(None) for axis in range(len(block.dims)))], origin))  # fmt: skip
    return marks


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp")
def normalised(call: Call) -> Marks:
    """What computes every entry from all of some dimension."""
    tensor = call.given[0]
    return call.labels.without(marks_of(tensor), _dims(call, tensor.dim()), call.why(WHOLE), stay=True)


@rule("glu")
def glu(call: Call) -> Marks:
    tensor, dim = call.given[0], call["dim"] % call.given[0].dim()
    half = tensor.shape[dim] // 2
    first, second = (
        (marks, call.output.shape)
        for marks in reshaping.take(
            call.labels,
            marks_of(tensor),
            dim,
            [slice(0, half, 1), slice(half, 2 * half, 1)],
            call.why("which counts them"),
        )
    )
    return reshaping.broadcast(call.labels, [first, second], call.why(CONSTANT))


@rule("roll", "index_select", "gather", "repeat_interleave", "sort", "topk", "cummax", "unfold", "renorm", "kthvalue")
def along_a_dimension(call: Call) -> Marks | list[Marks]:
    """What mixes or picks the entries of some dimensions, which stay, and leaves the others alone."""
    tensor = call.given[0]
    dims = _dims(call, tensor.dim())
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


@rule("mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "var", "std", "var_mean", "std_mean", "prod",
      "any", "all", "logsumexp", "norm", "linalg_vector_norm", "nansum", "median", "mode", "aminmax")  # fmt: skip
def reduction(call: Call) -> Marks | list[Marks]:
    tensors = call.tensors()
    if len(tensors) == 2 and call.op in ("max", "min"):
        return pointwise(call)
    tensor = tensors[0]
    dims = _dims(call, tensor.dim())
    marks = call.labels.without(marks_of(tensor), dims, call.why(WHOLE))
    if not (call.has("keepdim") and call["keepdim"]):
        marks = reshaping.drop(marks, dims)
    return [marks] * len(call.output) if isinstance(call.output, list | tuple) else marks


def _dims(call: Call, rank: int) -> set[int]:
    for name in ("dim", "dims", "dimension"):
        if call.has(name):
            given = call[name]
            if given is None or given == []:
                break
            return {dim % max(rank, 1) for dim in ([given] if isinstance(given, int) else given)}
    return set(range(rank))


def spatial(count: int) -> Rule:
    """The rule of pooling and resizing over the last ``count`` dimensions."""

    def found(call: Call) -> Marks | list[Marks]:
        tensor = call.given[0]
        last = set(range(tensor.dim() - count, tensor.dim()))
        marks = call.labels.without(marks_of(tensor), last, call.why(WHOLE))
        return [marks] * len(call.output) if isinstance(call.output, list | tuple) else marks

    return found


for _count in (1, 2, 3):
    rule(*(name.format(_count) for name in (
        "max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_avg_pool{}d", "_adaptive_avg_pool{}d",
        "adaptive_max_pool{}d", "mkldnn_max_pool{}d", "upsample_nearest{}d", "_upsample_nearest_exact{}d",
        "fractional_max_pool{}d",
    )))(spatial(_count))  # fmt: skip
rule("upsample_linear1d")(spatial(1))
rule("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")(spatial(2))
rule("upsample_trilinear3d")(spatial(3))


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Marks:
    tensor, rank = call.given[0], call.given[0].dim()
    factor = call.given[1]
    marks = call.labels.without(marks_of(tensor), {rank - 2, rank - 1}, call.why(WHOLE))
    marks, vector = call.labels.along(marks, rank - 3, call.why(WHOLE))
    if vector is None:
        return marks
    if call.op == "pixel_shuffle":
        vector = call.labels.fold(vector.reshape(-1, factor**2), {1}, call.why())
    else:
        vector = vector.repeat(factor**2)
    return (*(block for block in marks if rank - 3 not in block.dims), Block((rank - 3,), vector))


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Marks:
    marks, vector = call.labels.along(marks_of(call.given[0]), 1, call.why())
    if vector is None:
        return marks
    parts = vector.reshape(call.given[1], -1)
    call.labels.fold(parts, {0}, call.why())
    return (*(block for block in marks if 1 not in block.dims), Block((1,), parts.T.reshape(-1)))
