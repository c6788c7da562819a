"""Rules of the operators that compute sums of products: convolutions, matrix products, attention, norms, embeddings.

Where a parameter's columns are summed over, what they read can be removed: masked columns silence it. A sum over
products of two activations, or with a constant, changes with every summand that goes, so it fixes them.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pruning_core.masks.finder import reshaping
from pruning_core.masks.finder.calls import CONSTANT, WHOLE, Call, marks_of, rule, unknown
from pruning_core.masks.finder.labels import Block, Marks

INPUT = "which reads something of fixed size"
PRODUCT = "where they are multiplied with each other and summed"


def contract(call: Call, first: Marks, one: int, second: Marks, other: int) -> tuple[Marks, Marks]:
    """The marks that are left of two tensors when dimension ``one`` of the first meets ``other`` of the second in a sum."""
    labels = call.labels
    for marks, dim in ((first, one), (second, other)):
        vector = next((block.labels for block in marks if block.dims == (dim,)), None)
        if vector is not None and labels.reads(vector):
            first, a = labels.along(first, one, call.why())
            second, b = labels.along(second, other, call.why())
            if a is None or b is None:
                labels.fix(vector, call.why(INPUT))
            else:
                labels.join(a, b, call.why(INPUT))
            break
    else:
        first, second = (
            labels.without(first, {one}, call.why(PRODUCT)),
            labels.without(second, {other}, call.why(PRODUCT)),
        )
    return (
        tuple(block for block in first if one not in block.dims),
        tuple(block for block in second if other not in block.dims),
    )


def _renamed(marks: Marks, to: dict[int, int]) -> Marks:
    return tuple(block.moved(to) for block in marks)


def _with_bias(call: Call, marks: Marks, bias: Tensor | None, dim: int = -1) -> Marks:
    """The marks of ``output + bias``, with the bias along ``dim``."""
    if bias is None:
        return marks
    shape = call.output.shape
    placed = marks_of(bias)
    if bias.dim() == 1:
        placed = _renamed(placed, {0: dim % len(shape)})
        return reshaping.broadcast(
            call.labels, [(marks, shape), (placed, _only(shape, dim % len(shape)))], call.why(CONSTANT)
        )
    return reshaping.broadcast(call.labels, [(marks, shape), (placed, bias.shape)], call.why(CONSTANT))


def _only(shape, dim: int) -> list[int]:
    return [size if d == dim else 1 for d, size in enumerate(shape)]


@rule("mm", "addmm", "_addmm_activation")
def mm(call: Call) -> Marks:
    a, b = call.given[-2:] if call.op == "mm" else call.given[1:3]
    first, second = contract(call, marks_of(a), 1, marks_of(b), 0)
    marks = (*first, *second)
    return _with_bias(call, marks, None if call.op == "mm" else call.given[0])


@rule("linear")
def linear(call: Call) -> Marks:
    x, weight = call.given[:2]
    last = x.dim() - 1
    first, second = contract(call, marks_of(x), last, marks_of(weight), 1)
    return _with_bias(call, (*first, *_renamed(second, {0: last})), call["bias"])


@rule("mv", "addmv", "dot", "vdot")
def mv(call: Call) -> Marks:
    a, b = call.given[1:3] if call.op == "addmv" else call.given[:2]
    first, _ = contract(call, marks_of(a), a.dim() - 1, marks_of(b), 0)
    return _with_bias(call, first, call.given[0] if call.op == "addmv" else None)


@rule("bmm", "baddbmm")
def bmm(call: Call) -> Marks:
    a, b = call.given[:2] if call.op == "bmm" else call.given[1:3]
    first, second = contract(call, marks_of(a), 2, marks_of(b), 1)
    batch = len(a)
    parts = [(first, (batch, a.shape[1], 1)), (second, (batch, 1, b.shape[2]))]
    marks = reshaping.broadcast(call.labels, parts, call.why(CONSTANT))
    return _with_bias(call, marks, None if call.op == "bmm" else call.given[0])


@rule("convolution", "_convolution", "conv1d", "conv2d", "conv3d", "cudnn_convolution", "mkldnn_convolution")
def convolution(call: Call) -> Marks:
    x, weight = call.given[:2]
    transposed = bool(call["transposed"]) if call.has("transposed") else False
    groups, turned = call["groups"], int(transposed)
    space = set(range(2, x.dim()))
    inputs = call.labels.without(marks_of(x), space, call.why(WHOLE))
    filters = call.labels.without(marks_of(weight), space, call.why(WHOLE))
    if groups == 1:
        others, rows = contract(call, inputs, 1, filters, 1 - turned)
        marks = (*others, *_renamed(rows, {turned: 1}))
    else:
        marks = _grouped(call, inputs, filters, groups, transposed)
    return _with_bias(call, marks, call["bias"] if call.has("bias") else None, 1)


def _grouped(call: Call, inputs: Marks, filters: Marks, groups: int, transposed: bool) -> Marks:
    """Depthwise: an output lives with its input. Else every group must keep as many channels, the same in each."""
    labels, (x, weight) = call.labels, call.given[:2]
    inputs, channels = labels.along(inputs, 1, call.why())
    others = tuple(block for block in inputs if 1 not in block.dims)
    filters, rows = labels.along(filters, 0, call.why())
    filters, columns = labels.along(filters, 1, call.why())
    given = [vector for vector in (channels, rows, columns) if vector is not None]
    if rows is None:
        for vector in given:
            labels.fix(vector, call.why(PRODUCT))
        return others
    if transposed:  # what is summed over lies in dimension 0, and dimension 1 holds the outputs of one group
        if channels is None or columns is None or not labels.reads(rows):
            for vector in given:
                labels.fix(vector, call.why(INPUT))
            return others
        labels.join(channels, rows, call.why(INPUT))
        if groups == x.shape[1]:
            return (*others, Block((1,), channels.repeat(weight.shape[1])))
        labels.fold(channels.reshape(groups, -1), {0}, call.why())
        return (*others, Block((1,), np.tile(columns, groups)))
    if weight.shape[1] == 1 and groups == x.shape[1]:
        if channels is None:
            labels.fix(rows, call.why(INPUT))
            return others
        labels.join(channels[:, None], rows.reshape(groups, -1), call.why(INPUT))
        return (*others, Block((1,), rows))
    labels.fold(rows.reshape(groups, -1), {0}, call.why())
    if channels is not None and columns is not None and labels.reads(columns):
        labels.join(channels.reshape(groups, -1), columns[None], call.why(INPUT))
    else:
        for fixed in (channels, columns):
            if fixed is not None:
                labels.fix(fixed, call.why(INPUT))
    return (*others, Block((1,), rows))


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
      "batch_norm", "_batch_norm_impl_index", "_batch_norm_no_update")  # fmt: skip
def batch_norm(call: Call) -> list[Marks] | Marks:
    marks, shape = marks_of(call.given[0]), call.given[0].shape
    for vector in call.given[1:5]:
        if isinstance(vector, Tensor):
            placed = _renamed(marks_of(vector), {0: 1})
            parts = [(marks, shape), (placed, [1, shape[1], *[1] * (len(shape) - 2)])]
            marks = reshaping.broadcast(call.labels, parts, call.why(CONSTANT))
    return [marks] if isinstance(call.output, list | tuple) else marks


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm", "_fused_rms_norm_forward")
def layer_norm(call: Call) -> list[Marks] | Marks:
    x, sizes = call.given[:2]
    last = set(range(x.dim() - len(sizes), x.dim()))
    marks = call.labels.without(marks_of(x), last, call.why(WHOLE), stay=True)
    return [marks] if isinstance(call.output, list | tuple) else marks


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> list[Marks] | Marks:
    x = call.given[0]
    marks = call.labels.without(marks_of(x), set(range(1, x.dim())), call.why(WHOLE), stay=True)
    return [marks] if isinstance(call.output, list | tuple) else marks


@rule("embedding")
def embedding(call: Call) -> Marks:
    weight, picked = call.given[:2]
    columns = call.labels.without(marks_of(weight), {0}, call.why("which picks some of them"))
    return _renamed(columns, {1: picked.dim()})


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
      "_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_attention_math",
      "_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")  # fmt: skip
def attention(call: Call) -> list[Marks] | Marks:
    """softmax(q k') v, (..., tokens, size): what lies in front of the tokens, as heads, is the same in all three."""
    query, key, value = call.given[:3]
    rank = query.dim()
    inner = {rank - 2, rank - 1}
    parts: list[tuple[Marks, list[int]]] = []
    for tensor, gone in ((query, inner), (key, inner), (value, {rank - 2})):
        marks = call.labels.without(marks_of(tensor), gone, call.why(PRODUCT))
        parts.append((marks, [*tensor.shape[:-2], 1, tensor.shape[-1] if tensor is value else 1]))
    mask = next((t for t in call.tensors() if not any(t is one for one in (query, key, value))), None)
    if mask is not None:
        marks = call.labels.without(marks_of(mask), {mask.dim() - 2, mask.dim() - 1}, call.why(PRODUCT))
        parts.append((marks, [*mask.shape[:-2], 1, 1]))
    marks = reshaping.broadcast(call.labels, parts, call.why(CONSTANT))
    return [marks] if isinstance(call.output, list | tuple) else marks


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> list[Marks]:
    """A weight that torch makes of a direction and a length, which have to stay; what it reads and makes stays with them."""
    unknown(call)
    return [marks_of(call.given[0])]
