"""What every family of operators does to labels; an operator without a rule fixes what goes through it, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.masks.finder import reshaping
from pruning_core.masks.finder.calls import CONSTANT, RULES, WHOLE, Call, Rule, dims_of, marks_of, rule, unknown
from pruning_core.masks.finder.labels import SHAPES, Block, Marks, all_labels


def apply(call: Call) -> Marks | list[Marks]:
    """The labels of the outputs of a call."""
    name = call.op if call.op in RULES else call.op.rstrip("_")
    if name in RULES:
        return RULES[name](call)
    if torch.Tag.pointwise in call.func.tags:
        return pointwise(call)
    return unknown(call)


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
    return call.labels.without(marks_of(tensor), dims_of(call, tensor.dim()), call.why(WHOLE), stay=True)


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


@rule("im2col")
def im2col(call: Call) -> Marks:
    """Every channel becomes as many rows as a window has places."""
    tensor, rank = call.given[0], call.given[0].dim()
    marks = call.labels.without(marks_of(tensor), {rank - 2, rank - 1}, call.why(WHOLE))
    marks, vector = call.labels.along(marks, rank - 3, call.why(WHOLE))
    if vector is None:
        return marks
    places = call.output.shape[rank - 3] // tensor.shape[rank - 3]
    return (*(block for block in marks if rank - 3 not in block.dims), Block((rank - 3,), vector.repeat(places)))


@rule("col2im")
def col2im(call: Call) -> Marks:
    """The other way round: the rows of one channel are one unit."""
    tensor, rank = call.given[0], call.given[0].dim()
    marks = call.labels.without(marks_of(tensor), {rank - 1}, call.why(WHOLE))
    marks, vector = call.labels.along(marks, rank - 2, call.why(WHOLE))
    if vector is None:
        return marks
    vector = call.labels.fold(vector.reshape(call.output.shape[rank - 2], -1), {1}, call.why())
    return (*(block for block in marks if rank - 2 not in block.dims), Block((rank - 2,), vector))


@rule("mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "var", "std", "var_mean", "std_mean", "prod",
      "any", "all", "logsumexp", "norm", "linalg_vector_norm", "nansum", "median", "mode", "aminmax")  # fmt: skip
def reduction(call: Call) -> Marks | list[Marks]:
    tensors = call.tensors()
    if len(tensors) == 2 and call.op in ("max", "min"):
        return pointwise(call)
    tensor = tensors[0]
    dims = dims_of(call, tensor.dim())
    marks = call.labels.without(marks_of(tensor), dims, call.why(WHOLE))
    if not (call.has("keepdim") and call["keepdim"]):
        marks = reshaping.drop(marks, dims)
    return [marks] * len(call.output) if isinstance(call.output, list | tuple) else marks


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
