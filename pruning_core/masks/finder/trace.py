"""One forward pass under a dispatch mode: every operator hands labels from its arguments to its outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pruning_core.masks.finder import picking, products  # noqa: F401  (they register their rules)
from pruning_core.masks.finder.calls import Call, marks_of
from pruning_core.masks.finder.labels import VALUES, Block, Labels, Marks, Vector, all_labels
from pruning_core.masks.finder.operators import FILLERS, apply
from pruning_core.masks.finder.owners import CONVOLUTIONS, weight_of
from pruning_core.masks.finder.ways import other_ways
from pruning_core.models.calls import samples, tensors_of
from pruning_core.models.cost import counting_positions
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.modes import plain_attention

OPAQUE = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)
INEXACT = ", where removing is not exact"
GATES = "pruning_core.models.layers"
OUTPUTS = "they are outputs of the network"
LEAVING = {torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.item}
BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")
OF_ONE_SHAPE = {
    *BATCH_NORMS,
    "relu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "silu",
    "gelu",
    "sigmoid",
    "tanh",
    "leaky_relu",
}
SIZED = {  # functions that take sizes from whoever calls them, and where in their arguments they start
    torch.Tensor.view: 1, torch.Tensor.reshape: 1, torch.reshape: 1, torch.Tensor.expand: 1,
    torch.Tensor.unflatten: 2, torch.unflatten: 2, torch.broadcast_to: 1, torch.Tensor.broadcast_to: 1,
}  # fmt: skip


class Line(NamedTuple):
    """The labels of one dimension of one parameter, buffer or index layer."""

    name: str
    dim: int
    labels: Vector
    reads: bool = False


class Trace(NamedTuple):
    """What one forward pass tells: labels, lines of all tensors, positions of layers, shapes of outputs."""

    labels: Labels
    lines: list[Line]
    positions: dict[str, int]
    shapes: list[torch.Size]
    looks: bool  # whether Python looked at values, on which the way through the network may depend


def traced(twin: nn.Module, arguments: tuple) -> Trace:
    """Follow every channel of ``twin``, a copy that may be changed, through one forward pass in evaluation mode."""
    labels, modules = Labels(), dict(twin.named_modules())
    lines: list[Line] = []
    twin.eval()
    for name, tensor in [*twin.named_parameters(), *twin.named_buffers()]:
        if tensor.is_floating_point() and tensor.dim():
            labels.place = name.rpartition(".")[0]
            lines += _labelled(labels, name, tensor, modules)
    labels.place = ""
    for name, module in modules.items():
        if isinstance(module, ChannelIndex):
            rows = Line(f"{name}.index", 0, labels.new(len(module.index)))
            lines.append(rows)
            module.forward = _index_layer(labels, lines, name, module, rows.labels)  # type: ignore[method-assign]
    with ExitStack() as contexts:
        contexts.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing in the network is compiled
            contexts.enter_context(torch.compiler.set_stance("force_eager"))
        contexts.enter_context(plain_attention())
        positions = contexts.enter_context(counting_positions(twin))
        sizes = contexts.enter_context(_Sizes(labels))
        follower = _Follower(labels, sizes)
        for name, module in modules.items():
            if isinstance(module, OPAQUE):
                module.forward = follower.closed(module, name)  # type: ignore[method-assign]
            contexts.enter_context(module.register_forward_pre_hook(follower.enter(name)))
            contexts.enter_context(module.register_forward_hook(follower.leave))
        contexts.enter_context(follower)
        outputs = tensors_of(twin(*arguments))
        usual = dict(positions)
        elsewhere = other_ways(twin, arguments, lambda: _left_out(labels, lines, modules, positions), follower.stack)
    for tensor in (*outputs, *elsewhere):
        _ends(labels, tensor)
    labels.end(labels.step(()))
    labels.fix(all_labels(block for tensor in (*outputs, *elsewhere) for block in marks_of(tensor)), OUTPUTS)
    count = max(samples(arguments), 1)
    per_sample = {name: usual.get(name, 0) // count for name in positions}
    return Trace(labels, lines, per_sample, [tensor.shape for tensor in outputs], follower.looks or sizes.looks)


def _left_out(labels: Labels, lines: list[Line], modules: Mapping[str, nn.Module], called: Collection[str]) -> bool:
    """Whether some layer was neither called nor its weight used."""
    layers = (name for name, m in modules.items() if isinstance(m, (*CONVOLUTIONS, nn.Linear)) and name not in called)
    if not (missing := {f"{name}.weight" for name in layers}):
        return False
    met = labels.met(np.arange(labels.count))
    return bool(missing - {line.name for line in lines if line.name in missing and met[line.labels].any()})


def _labelled(labels: Labels, name: str, tensor: Tensor, modules: Mapping[str, nn.Module]) -> Iterator[Line]:
    """Labels for the dimensions of one tensor, which carries them from here on; kernels of convolutions have none.

    What meets a tensor of somebody's own is tried out: nobody knows what else is done with it.
    """
    owner = modules[labels.place]
    layer = weight_of(name, modules) if tensor.dim() > 1 else None
    turned = isinstance(layer, CONVOLUTIONS) and layer.transposed
    marks: Marks = ()
    for dim in range(2 if layer is not None else tensor.dim()):
        reads = layer is not None and dim == int(not turned)
        line = Line(name, dim, labels.new(tensor.shape[dim], reads), reads)
        marks = (*marks, Block((dim,), line.labels))
        if isinstance(owner, nn.Embedding) or not type(owner).__module__.startswith(("torch.nn.modules", GATES)):
            labels.doubt(line.labels, VALUES)
        yield line
    tensor._channel_labels = marks  # type: ignore[attr-defined]


def _index_layer(labels: Labels, lines: list[Line], name: str, module: ChannelIndex, rows: Vector) -> Callable:
    forward = module.forward

    def called(input: Tensor) -> Tensor:
        with torch.utils._python_dispatch._disable_current_modes():
            output = forward(input)
        step = labels.step((input._channel_step,) if hasattr(input, "_channel_step") else ())
        _, vector = labels.along(marks_of(input), 1, "")
        reads = labels.new(input.shape[1], reads=True)
        lines.append(Line(f"{name}.index", 0, reads, reads=True))
        if vector is not None:
            labels.join(vector, reads, f"they go through ChannelIndex {name!r}, which reads something of fixed size")
        _mark(output, (Block((1,), rows),), step)
        return output

    return called


class _Sizes(TorchFunctionMode):
    """Notes the sizes that the network writes out, which a reshape inside of a linear layer or a flatten does not."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels
        self.free: set[int] | None = None  # dimensions whose size follows from the tensor
        self.counted = False  # whether sizes are written out
        self.looks = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LEAVING:
            _ends(self.labels, args[0])
            self.looks = True
        first = SIZED.get(func)
        if first is None or not all(isinstance(arg, Tensor | int | tuple | list) for arg in args):
            return func(*args, **kwargs)
        sizes = args[first:] if len(args) > first else tuple(kwargs.values())[-1:]
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
        self.counted = True
        free = {position for position, size in enumerate(sizes) if size == -1}
        if first == 2:
            dim = (args[1] if len(args) > 1 else kwargs["dim"]) % args[0].dim()
            free = {dim + position for position in free} | {*range(dim)}
            free |= {*range(dim + len(sizes), args[0].dim() + len(sizes) - 1)}
        self.free = free
        try:
            return func(*args, **kwargs)
        finally:
            self.counted, self.free = False, None


class _Follower(TorchDispatchMode):
    """Runs every operator, and then its rule."""

    def __init__(self, labels: Labels, sizes: _Sizes):
        super().__init__()
        self.labels, self.sizes = labels, sizes
        self.stack: list[tuple[str, nn.Module]] = []
        self.looks = False
        self.closed_in = 0

    def enter(self, name: str) -> Callable:
        """A hook that notes which module is running."""

        def entered(module: nn.Module, inputs: Any) -> None:
            self.stack.append((name, module))
            self.labels.place = name

        return entered

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A hook at the end of a module."""
        while self.stack and self.stack.pop()[1] is not module:
            pass
        self.labels.place = self.stack[-1][0] if self.stack else ""

    def closed(self, module: nn.Module, name: str) -> Callable:
        """The forward of a layer that is one operator for us: what goes in is fixed."""
        forward = module.forward

        def called(*args: Any, **kwargs: Any) -> Any:
            self.closed_in += 1
            try:
                output = forward(*args, **kwargs)
            finally:
                self.closed_in -= 1
            given = tensors_of([*args, *kwargs.values()])
            step = self.labels.step(tuple(t._channel_step for t in given if hasattr(t, "_channel_step")))
            reason = f"they go through {type(module).__name__} {name!r}, which has no rule"
            self.labels.fix(all_labels(block for tensor in given for block in marks_of(tensor)), reason)
            if isinstance(module, nn.MultiheadAttention):  # so that the layers beside it are one group, with one reason
                rows = marks_of(module.out_proj.weight)[0]
                self.labels.fix(rows.labels, reason)
            for tensor in tensors_of(output):
                _mark(tensor, (), step)
            if isinstance(module, nn.MultiheadAttention):
                _mark(output[0], (rows.moved({0: output[0].dim() - 1}),), step)
            return output

        return called

    def place(self, op: str, what: str) -> str:
        """Words for an operator, where it was called, and what it does to channels."""
        if not self.stack:
            return f"{op}, {what}"
        name, module = self.stack[-1]
        title = f"{type(module).__name__} {name!r}" if name else f"the forward pass of {type(module).__name__}"
        return f"{title}{INEXACT}" if isinstance(module, NORMS) else f"{op} in {title}, {what}"

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds, to keep this class away from it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = _quickly(func, args)
        if output is None:
            output = func(*args, **kwargs)
        if self.closed_in:
            return output
        call = Call(self.labels, func, args, kwargs, output, self)
        given = call.tensors()
        step = self.labels.step(tuple(t._channel_step for t in given if hasattr(t, "_channel_step")))
        results = [output] if isinstance(output, Tensor) else output if isinstance(output, list | tuple) else []
        if func._schema.is_mutable or not results:  # seen by whoever holds the tensor, or by Python
            self.labels.end(step)
            self.looks |= not results
        found: Marks | list[Marks] = ()
        if call.op in FILLERS or any(marks_of(tensor) for tensor in given):
            call.counted, call.free = self.sizes.counted, self.sizes.free
            found = apply(call)
        every = found if isinstance(found, list) else [found] * isinstance(output, Tensor)
        for position, tensor in enumerate(results):
            if isinstance(tensor, Tensor):
                _mark(tensor, every[position] if position < len(every) else (), step)
        return output


def _quickly(func: Any, args: tuple) -> Any:
    """The output of some frequent operators on a tensor without values, for which torch's rules take a millisecond."""
    name = func._schema.name.split("::")[1]
    if name.rstrip("_") not in OF_ONE_SHAPE or not args[0].is_meta:
        return None
    if name in BATCH_NORMS:
        return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
    return args[0] if name.endswith("_") else torch.empty_like(args[0])


def _mark(tensor: Tensor, marks: Marks, step: int) -> None:
    tensor._channel_labels, tensor._channel_step = marks, step  # type: ignore[attr-defined]


def _ends(labels: Labels, tensor: Tensor) -> None:
    if hasattr(tensor, "_channel_step"):
        labels.end(tensor._channel_step)
