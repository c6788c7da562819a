"""Networks on disk, without pickle: one safetensors file with the tensors, the layer sizes and how to build it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pruning_core.errors import BadInput, CorruptFile
from pruning_core.models import build
from pruning_core.models.layers.protocol import to_plain
from pruning_core.records.checkpoints import load_tensors, save_tensors


def save_network(
    model: nn.Module,
    path: str | PathLike,
    *,
    masks: Mapping[str, Tensor] | None = None,
    plain: bool = False,
    like: nn.Module | None = None,
) -> None:
    """Write ``model``, and its masks if given, to one file, atomically.

    ``like`` is the network before channels were removed (default: the same): from its ``recipe``, or from its name in
    torchvision, :func:`load_pruned` knows how to build it; any other class must be given when loading.
    ``plain`` notes that special layers were made ordinary.
    """
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tensors |= {f"mask:{name}": mask for name, mask in (masks or {}).items()}
    origin = like if like is not None else model
    recipe = getattr(origin, "recipe", None) or torchvision_recipe(origin)
    info = {"kind": "network", "class": type(origin).__qualname__, "recipe": recipe, "plain": plain}
    save_tensors(path, tensors, info)


def load_pruned(path: str | PathLike, model: nn.Module | None = None) -> nn.Module:
    """The network saved by ``PruneResult.save``, in evaluation mode; nothing is unpickled.

    Networks of build_model and of torchvision are rebuilt by name. For a class of your own give an instance as
    ``model``: a copy of it takes on the saved sizes and weights.
    Raises CorruptFile for a file that is damaged or of another kind, BadInput for a network that does not fit.
    """
    tensors, info = load_tensors(path)
    if info.get("kind") != "network":
        raise CorruptFile(f"{path} holds {info.get('kind', 'something else')!s}, not a network.")
    if model is not None:
        skeleton = copy.deepcopy(model)
    elif info.get("recipe"):
        skeleton = build.rebuild(info["recipe"])
    else:
        raise BadInput(f"{path} holds a {info['class']}, which cannot be rebuilt by name; pass an instance as model=.")
    if info.get("plain"):
        skeleton = to_plain(skeleton)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask:")}
    fit_tensors(skeleton, state, str(path))
    return skeleton.eval()


def fit_tensors(skeleton: nn.Module, state: dict[str, torch.Tensor], path: str) -> None:
    """Give every parameter and buffer the saved tensor, whatever its size, and correct the layers' sizes."""
    own = skeleton.state_dict()
    misfit = f"{path} does not fit {type(skeleton).__name__}"
    if odd := sorted(own.keys() ^ state.keys()):
        raise BadInput(f"{misfit}: {odd[0]!r} is only in one of them.")
    changed = set()
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        module = skeleton.get_submodule(owner)
        if tensor.dim() != own[name].dim():
            raise BadInput(f"{misfit}: {name!r} has {tensor.dim()} dimensions, not {own[name].dim()}.")
        if isinstance(getattr(module, leaf), nn.Parameter):
            module.register_parameter(leaf, nn.Parameter(tensor, getattr(module, leaf).requires_grad))
        else:
            setattr(module, leaf, tensor)
        changed.add(owner)
    for owner in changed:
        set_sizes(skeleton.get_submodule(owner))


def torchvision_recipe(model: nn.Module) -> dict | None:
    """How build_model rebuilds a network that was made by torchvision directly; None for any other network."""
    import torchvision.models as zoo

    source = type(model).__module__
    if not source.startswith("torchvision.models"):
        return None
    heads = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    classes = heads[-1].out_features if isinstance(heads[-1], nn.Linear) else heads[-1].out_channels
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in zoo.list_models(module=zoo):
        if zoo.get_model_builder(name).__module__ != source:
            continue
        with torch.device("meta"):
            twin = zoo.get_model(name, weights=None, num_classes=classes)
        if {key: tensor.shape for key, tensor in twin.state_dict().items()} == shapes:
            return build.recipe_for(f"torchvision/{name}", (3, 224, 224), classes)
    return None


def set_sizes(module: nn.Module) -> None:
    """Make the size attributes of a layer (in_channels, out_features, num_features, ...) agree with its tensors."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvTransposeNd) and weight is not None:
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        if weight.shape[1] == 1 and module.groups == module.in_channels == module.out_channels:
            module.groups = weight.shape[0]  # depthwise: one group a channel
        module.in_channels, module.out_channels = weight.shape[1] * module.groups, weight.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, _NormBase):
        vector = weight if weight is not None else module.running_mean
        if vector is not None:
            module.num_features = vector.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
