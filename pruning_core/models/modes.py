"""Contexts that work with a network and leave it as it was: training modes, gradients, tensors, random numbers; copies."""

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput, PruningError, said


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in training or in evaluation mode as before, whatever happens inside."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused attention kernel, whose matrix products no counter, no hook and no dispatch mode sees."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the modes from before afterwards; gradients can be taken."""
    with modes_kept(model):
        to_evaluation(model)
        yield


def to_evaluation(model: nn.Module) -> None:
    """Evaluation mode; BadInput for a network that has none, as a program of torch.export."""
    try:
        model.eval()
    except NotImplementedError as error:
        kind = type(model).__name__
        raise BadInput(
            f"{kind} has no evaluation mode ({said(error).rstrip('.')}): give the module that it was made of."
        ) from error


@contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Within the block: evaluation mode, no gradients, own random numbers; afterwards mode and global RNG are as before."""
    with own_random_numbers(model), torch.no_grad(), evaluating(model):
        yield


@contextmanager
def own_random_numbers(model: nn.Module) -> Iterator[None]:
    """What is drawn inside leaves torch's global random state, also of the network's GPUs, as it was."""
    devices = {parameter.device.index or 0 for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices)):
        yield


@contextmanager
def undisturbed(model: nn.Module, original: nn.Module | None = None) -> Iterator[None]:
    """Leave the network and the global random state as they were: weights, buffers, gradients, modes, requires_grad.

    ``original``: another network with the same values, from which they can be taken back without a copy made before.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    if original is not None:
        before = dict(original.named_parameters()) | dict(original.named_buffers())
    else:
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    gradients = {name: (p.grad, p.requires_grad) for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = None
    try:
        with modes_kept(model), own_random_numbers(model):
            yield
    finally:
        with torch.no_grad():
            for name, tensor in tensors.items():
                if not torch.equal(tensor, before[name]):
                    tensor.copy_(before[name])
        for name, parameter in model.named_parameters():
            parameter.grad, parameter.requires_grad = gradients[name]


def copied(model: nn.Module, memo: Mapping[int, Any] | None = None) -> Any:
    """``copy.deepcopy(model, memo)``, several times faster, and for networks that keep results of a forward pass as well.

    Every module has a dozen tables of hooks, most of them empty, that deepcopy takes apart and puts together one by one.
    Raises BadInput, with the name of the attribute, for what cannot be copied: a lock, an open file.

    >>> twin = copied(nn.Linear(2, 1))
    >>> twin.register_forward_hook(print) is not None and len(copied(twin)._forward_hooks)
    1
    """
    known: dict[Any, Any] = dict(memo or {})
    for module in model.modules():
        for attribute, value in vars(module).items():
            kind = type(value)
            if kind not in ATOMS and attribute not in TABLES and not (kind in (dict, OrderedDict) and not value):
                _detach_results(value, known)
    return _twin(model, known, "")


ATOMS = frozenset(
    (
        *(int, float, complex, bool, str, bytes, type(None), type, torch.dtype, torch.device, torch.memory_format),
        *(types.FunctionType, types.BuiltinFunctionType),
    )
)
TABLES = ("_parameters", "_buffers", "_modules")


def _detach_results(value: Any, known: dict[Any, Any]) -> None:
    """A tensor with a history, as a layer keeps that remembers what it computed, becomes one without: deepcopy takes none."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            known.setdefault(id(value), value.detach().clone())
    elif type(value) in (list, tuple, dict, OrderedDict):
        for entry in value.values() if isinstance(value, dict) else value:
            if isinstance(entry, Tensor) or type(entry) in (list, tuple, dict, OrderedDict):
                _detach_results(entry, known)


def _twin(module: Any, known: dict[Any, Any], name: str) -> Any:
    """A copy of one module and its children."""
    if id(module) in known:
        return known[id(module)]
    if not isinstance(module, nn.Module) or not _is_ordinary(type(module)):  # type: ignore[arg-type]
        return _deeply(module, known, f"layer {name!r}" if name else "it")
    twin = known[id(module)] = type(module).__new__(type(module))
    state = vars(twin)
    for attribute, value in vars(module).items():
        kind = type(value)
        if attribute == "_compiled_call_impl":  # made anew by whoever compiles the copy
            continue
        if kind in ATOMS:
            state[attribute] = value
        elif kind in (dict, OrderedDict) and id(value) not in known and (not value or attribute in TABLES):
            table = state[attribute] = known[id(value)] = kind()
            for key, entry in value.items():
                table[key] = (
                    _tensor(entry, known)
                    if isinstance(entry, Tensor)
                    else _twin(entry, known, f"{name}.{key}".strip("."))
                )
        elif kind in (tuple, set) and all(type(entry) in ATOMS for entry in value):
            state[attribute] = value if kind is tuple else known.setdefault(id(value), set(value))
        else:
            of = f" of layer {name!r}" if name else ""
            state[attribute] = _deeply(value, known, f"its attribute {attribute!r}{of}")
    return twin


@functools.cache
def _is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether a copy of such a module has a copy of every attribute, and nothing else."""
    own = {"__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__"}
    return (
        not any(name in vars(ancestor) for ancestor in kind.__mro__[:-1] for name in own)
        and all(getattr(kind, n, None) is getattr(object, n, None) for n in ("__reduce_ex__", "__reduce__", "__new__"))
        and getattr(kind, "__getstate__", None) is getattr(nn.Module, "__getstate__", None)
        and kind.__setstate__ in (nn.Module.__setstate__, nn.modules.conv._ConvNd.__setstate__)
    )


def _tensor(tensor: Tensor, known: dict[Any, Any]) -> Tensor:
    """A copy of a parameter or buffer; what shared its memory with another tensor does so again."""
    if id(tensor) in known or type(tensor) is not Tensor or tensor.requires_grad or vars(tensor) or tensor.is_sparse:
        return _deeply(tensor, known, "a tensor of it")
    storage = tensor.untyped_storage()
    memory = known.setdefault("torch", {})  # where torch's own copies look for it
    if storage._cdata in memory or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous():
        return _deeply(tensor, known, "a tensor of it")
    twin = known[id(tensor)] = tensor.clone()
    memory[storage._cdata] = twin.untyped_storage()
    return twin


def _deeply(value: Any, known: dict[Any, Any], what: str) -> Any:
    try:
        return copy.deepcopy(value, known)
    except PruningError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"the network cannot be copied, for {what} ({type(value).__name__}) cannot: {said}; take it off the network, or "
            "give its class a __deepcopy__."
        ) from error
