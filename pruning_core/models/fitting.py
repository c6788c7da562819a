"""What the tensors of a file must be for the layers of a network: of one precision, of sizes that agree, of values that a
training leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pruning_core.errors import BadInput
from pruning_core.models.calls import tried
from pruning_core.models.cost import values_cost_little, weightless_copy
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.modes import copied

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
"""Layers that may keep single precision where the others of a network compute in half."""
COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of floating-point numbers that layers compute in: torch only stores those of eight bits and fewer."""


def strange_type(tensor: Tensor) -> str | None:
    """The type of a tensor of floating-point or complex numbers in which no layer computes."""
    if tensor.is_complex() or tensor.is_quantized:
        return str(tensor.dtype)
    return str(tensor.dtype) if tensor.is_floating_point() and tensor.dtype not in COMPUTED else None


def check_type(
    name: str,
    found: Tensor,
    own: Tensor,
    is_norm: bool,
    types: dict[tuple[torch.dtype, bool], torch.dtype],
    misfit: str,
) -> None:
    """BadInput for numbers of another type than the network's: whole ones must be of the same; the precision may be another,
    if it is that of all layers (norms may keep their own, as networks in half precision do). ``types`` collects them."""
    if strange := strange_type(found):
        raise BadInput(f"{misfit}: {name!r} holds {strange}, a type in which no network is loaded.")
    if found.dtype.is_floating_point and own.dtype.is_floating_point:
        wanted = types.setdefault((own.dtype, is_norm), found.dtype)
    else:
        wanted = own.dtype
    if found.dtype != wanted:
        raise BadInput(f"{misfit}: {name!r} holds {found.dtype}, not {wanted}.")


def can_be_one(group: list[str], own: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of these names can be one: parameters may be tied whatever the network ties; a buffer, which
    layers write to, only with those that it is one with there."""
    are = [isinstance(own[name], nn.Parameter) for name in group]
    return all(are) or (not any(are) and len({id(own[name]) for name in group}) == 1)


def check_layer(name: str, module: nn.Module, state: Mapping[str, Tensor], misfit: str) -> None:
    """BadInput for tensors of one layer that contradict each other, or that no training leaves behind."""
    leaves = [*module._parameters, *module._buffers]
    held = {leaf: tensor for leaf in leaves if (tensor := state.get(f"{name}.{leaf}" if name else leaf)) is not None}
    at = f"{misfit}: layer {name!r}" if name else misfit
    if isinstance(module, _NormBase):
        vectors = {leaf: tensor for leaf, tensor in held.items() if tensor.dim()}
        if len({len(tensor) for tensor in vectors.values()}) > 1:
            sizes = ", ".join(f"{len(tensor)} in {leaf}" for leaf, tensor in vectors.items())
            raise BadInput(f"{at} has different numbers of channels: {sizes}.")
        for leaf in held.keys() & {"running_var", "num_batches_tracked"}:
            if bool((held[leaf] < 0).any()):
                raise BadInput(f"{at} has a negative {leaf}.")
    elif isinstance(module, nn.Linear) and {"weight", "bias"} <= held.keys():
        if len(held["bias"]) == 1 < len(held["weight"]):  # torch adds it to all outputs; any other number it refuses
            raise BadInput(f"{at} has one bias for {len(held['weight'])} outputs.")
    elif isinstance(module, nn.modules.conv._ConvNd) and not module.transposed and "weight" in held:
        outputs, inputs = held["weight"].shape[:2]
        depthwise = inputs == 1 and module.groups == module.in_channels > 1
        if outputs % (module.out_channels // module.groups if depthwise else module.groups):
            raise BadInput(f"{at} has {outputs} outputs, which do not make whole groups.")
    elif isinstance(module, ChannelIndex) and bool((held["index"] < -1).any()):
        raise BadInput(f"{at} has an index below -1.")  # it would pick from the end


def takes_images(network: nn.Module, shape: Sequence[int]) -> bool:
    """Whether an image passes: each layer may fit a recipe, and yet read other channels than there are.

    >>> takes_images(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(3, 1, 3)), (1, 8, 8))
    False
    """
    image = torch.zeros(1, *shape)
    with_values = values_cost_little(network, image)
    # In float32, for layers and norms of half precision may have types of their own.
    trial = (copied(network) if with_values else weightless_copy(network)).float()
    try:
        with torch.inference_mode():
            tried(trial, image if with_values else image.to("meta"))
    except BadInput:
        return False
    return True


def wrapped(own: Set[str], saved: Set[str]) -> str | None:
    """What to do where the names differ by the prefix of a wrapper only; None where they differ otherwise."""
    for prefix in ("module.", "_orig_mod."):
        if own == {name.removeprefix(prefix) for name in saved}:
            return (
                f"names in the file begin with {prefix!r}, for a wrapped network was saved; give model= a network wrapped "
                "alike, as torch.nn.DataParallel(network)"
            )
        if saved == {name.removeprefix(prefix) for name in own}:
            return f"names in the network begin with {prefix!r}, for it is wrapped; give as model= what lies inside"
    return None
