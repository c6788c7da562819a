"""Whether a network's weights are there, as parameters of its layers; otherwise one sentence that says what to do."""

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pruning_core.checks import Dense, check
from pruning_core.errors import BadInput, BadType, Unprunable

HOOKS = {
    BasePruningMethod: ("torch.nn.utils.prune", "torch.nn.utils.prune.remove(layer, name)"),
    WeightNorm: ("weight_norm", "remove_weight_norm(layer)"),
    SpectralNorm: ("spectral_norm", "remove_spectral_norm(layer)"),
}
"""Hooks of torch that compute a weight anew before each forward pass: where they are from, and what takes them off."""


def check_shapes(model: nn.Module) -> None:
    """Raise BadInput for a lazy layer that has not seen an input, BadType for what is no network."""
    if not isinstance(model, nn.Module):
        raise BadType(f"the network must be a torch.nn.Module, not {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise BadInput(
                f"layer {name!r} ({type(module).__name__}) has no weights yet: run one batch through the network."
            )


def check_values(model: nn.Module) -> None:
    """The same, and BadInput for weights on the meta device, which have shapes but no values."""
    check_shapes(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise BadInput(
                f"{name!r} lies on the meta device and has no values: call model.to_empty(device='cpu') and load a state."
            )


def check_numbers(model: nn.Module) -> None:
    """The same, and BadType for parameters whose numbers cannot be computed with: sparse, complex, of eight bits."""
    check_values(model)
    for name, parameter in model.named_parameters():
        check(repr(name), parameter, Dense())


def check_open(model: nn.Module, *, traced: bool = False) -> None:
    """Raise BadInput for TorchScript, of which hooks and replaced layers show or change nothing; ``traced``: what
    torch.jit.trace has made passes, which takes hooks although it calls none but the first."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and not (traced and isinstance(module, torch.jit.TracedModule)):
            where = f"layer {name!r} is TorchScript" if name else "the network is TorchScript"
            raise BadInput(f"{where}, which cannot be looked into: give the module that it was made of.")


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a network by name, those that are shared under each of their names. BadInput as of
    :func:`check_values`, and for what else its state holds.

    >>> list(state_tensors(nn.Linear(2, 1)))
    ['weight', 'bias']
    """
    check_values(model)
    state = model.state_dict(keep_vars=True)
    if strange := [name for name, entry in state.items() if not isinstance(entry, Tensor)]:
        kind = type(state[strange[0]]).__name__
        raise BadInput(
            f"{strange[0]!r} in the state of the network is no tensor but a {kind}, as quantised layers have it; save and "
            "measure the network before it is quantised."
        )
    for name, entry in state.items():
        if entry.layout != torch.strided:
            raise BadType(f"{name} is stored as {entry.layout}; only dense (strided) tensors can be saved.")
    return state


def check_plain(model: nn.Module) -> None:
    """The same, and Unprunable for TorchScript, and layers whose weights are quantised, or computed by a hook of torch."""
    if isinstance(model, torch.jit.ScriptModule):
        raise Unprunable(
            "a TorchScript network cannot be cut: prune the module that it was made of, then script or trace that."
        )
    check_values(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise Unprunable(
                f"layer {name!r} is TorchScript, which cannot be cut: put the module there that it was made of."
            )
        if ".quantized." in type(module).__module__:
            kind = type(module).__name__
            raise Unprunable(f"layer {name!r} is quantised ({kind}): prune the network before it is quantised.")
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1 and not parameter.numel():
                shape = tuple(parameter.shape)
                raise Unprunable(f"the {leaf} of layer {name!r} has shape {shape}, so no number: leave that layer out.")
        if (found := computing_hook(module)) is not None:
            where, remedy = found
            raise Unprunable(
                f"layer {name!r} is under {where}, whose hook computes its weight: call {remedy} first, which keeps the "
                "values."
            )


def computing_hook(module: nn.Module) -> tuple[str, str] | None:
    """The hook of torch that computes the weight of a layer before each forward pass, and what takes it off."""
    hooks = module._forward_pre_hooks.values()
    return next((words for hook in hooks for kind, words in HOOKS.items() if isinstance(hook, kind)), None)
