"""Networks on disk, without pickle: one safetensors file with the tensors, the layer sizes and how to build it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pruning_core.checks import Constraint, Real, Several, Whole, check, check_finite, checked
from pruning_core.errors import BadInput, CorruptFile, PruningError, shown
from pruning_core.models import build
from pruning_core.models.fitting import NORMS, can_be_one, check_layer, check_type, strange_type, takes_images, wrapped
from pruning_core.models.layers.protocol import to_plain
from pruning_core.models.modes import copied
from pruning_core.models.ready import check_open, check_shapes, state_tensors
from pruning_core.records.checkpoints import load_tensors, save_tensors

CARRIED = "pruning_masks"
"""The attribute under which a pruned network carries its masks, name -> bool tensor (see Masks.carried)."""
CUT = (nn.modules.conv._ConvNd, nn.Linear, _NormBase, nn.PReLU)
"""Layers of torch that can lose channels, beside this package's own."""
ANEW = "save the network anew, or delete the file"
USUAL_SIZE = 10**5
"""A recipe may ask for so many classes, pixels or widths, however few numbers its file holds: the rest of it was cut away."""


@checked
def save_network(
    model: nn.Module,
    path: str | PathLike,
    *,
    masks: Mapping[str, Tensor] | None = None,
    plain: bool = False,
    like: nn.Module | None = None,
) -> None:
    """Write ``model``, and its masks (default: those that it carries from ``prune``), to one file, atomically.

    ``like`` is the network before channels were removed (default: the same): from its ``recipe``, or from its name in
    torchvision, :func:`load_pruned` knows how to build it; any other class must be given when loading.
    ``plain`` notes that special layers were made ordinary. Raises BadInput for a network without weights (a lazy layer that
    has seen no input, the meta device), or with weights that are not finite, or of a type in which no layer computes.

    >>> import pruning_core as pc
    >>> import tempfile
    >>> network = pc.build_model("lenet300", "digits", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_network(network, f"{folder}/small.safetensors")
    ...     again = load_pruned(f"{folder}/small.safetensors")
    >>> torch.equal(again.fc1.weight, network.fc1.weight)
    True
    """
    for given in (model, model if like is None else like):
        check_shapes(given)
        check_open(given)
    state = state_tensors(model)
    for name, tensor in state.items():
        if strange := strange_type(tensor):
            raise BadInput(f"{name!r} holds {strange}; such a network cannot be saved.")
    if not any(tensor.is_meta for tensor in state.values()):
        check_finite(model)
    tensors = {name: tensor.detach() for name, tensor in state.items()}
    if masks is None:
        carried = getattr(model, CARRIED, {}).items()
        masks = {name: mask for name, mask in carried if name in state and state[name].shape == mask.shape}
    if wrong := [name for name, mask in masks.items() if name not in state or state[name].shape != mask.shape]:
        raise BadInput(f"the mask of {wrong[0]!r} is none of this network: it has no parameter of that name and shape.")
    tensors |= {f"mask:{name}": mask for name, mask in masks.items()}
    origin = like if like is not None else model
    recipe = getattr(origin, "recipe", None) or torchvision_recipe(origin)
    info = {
        "kind": "network",
        "class": type(origin).__qualname__,
        "recipe": recipe,
        "plain": plain,
        "tied": _shared(state),
        "whole": {
            name: list(tensor.shape)
            for name, tensor in origin.state_dict().items()
            if name in tensors and tensors[name].shape != tensor.shape and _own(origin, name)
        },
    }
    save_tensors(path, tensors, info)


@checked
def load_pruned(path: str | PathLike, model: nn.Module | None = None) -> nn.Module:
    """The network saved by ``PruneResult.save``, in evaluation mode; nothing is unpickled.

    Networks of build_model and of torchvision are rebuilt by name. For a class of your own give an instance as
    ``model``: a copy of it takes on the saved sizes and weights. Weights that were tied are tied, and the network carries
    its masks, so that ``prune`` counts what is dead; ``Masks.load`` of the same file gives them to ``fit``.
    Raises CorruptFile for a file that is damaged or of another kind, BadInput for a network that does not fit.

    >>> import pruning_core as pc
    >>> import tempfile
    >>> network = pc.build_model("lenet300", "digits", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_network(network, f"{folder}/small.safetensors")
    ...     again = load_pruned(f"{folder}/small.safetensors")
    >>> torch.equal(again.fc1.weight, network.fc1.weight)
    True
    """
    if model is not None:
        check_shapes(model)
        check_open(model)
    tensors, info = load_tensors(path)
    if (what := info.get("kind")) != "network":
        raise CorruptFile(f"{path} holds {what if isinstance(what, str) else 'something else'}, not a network.")
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask:")}
    masks = {name.removeprefix("mask:"): mask for name, mask in tensors.items() if name.startswith("mask:")}
    for name, mask in masks.items():
        if mask.dtype != torch.bool or name not in state or mask.shape != state[name].shape:
            raise CorruptFile(f"{path} is damaged: its mask of {name!r} does not fit a tensor of the network: {ANEW}.")
    skeleton = copied(model) if model is not None else _rebuilt(info, state, path)
    if info.get("plain") is True:
        skeleton = to_plain(skeleton)
    whole = info.get("whole", {})
    whole = whole if isinstance(whole, Mapping) else {}
    tied = _groups(info.get("tied", []), state, path)
    try:
        fit_tensors(skeleton, state, str(path), tied, whole)
    except BadInput as error:
        if model is not None:
            raise
        raise CorruptFile(f"{str(error).rstrip('.')}; the file contradicts its own recipe: {ANEW}.") from error
    try:
        check_finite(skeleton)
    except BadInput as error:
        raise BadInput(f"{path} cannot be used: {str(error).rstrip('.')}: {ANEW}.") from error
    setattr(skeleton, CARRIED, {name: mask for name, mask in masks.items() if not mask.all()})
    skeleton.eval()
    if model is None and not takes_images(skeleton, info["recipe"]["shape"]):
        raise CorruptFile(f"{path} is damaged: its layers do not fit each other: {ANEW}.")
    return skeleton


def _rebuilt(info: Mapping[str, Any], state: Mapping[str, Tensor], path: str | PathLike) -> nn.Module:
    """The architecture that a file names, without values: memory is taken for the tensors of the file only, however large a
    width somebody has written into it; and a network that is beyond what the file holds is not built at all."""
    if not info.get("recipe"):
        kind = info["class"] if isinstance(info.get("class"), str) else "network of some class"
        raise BadInput(f"{path} holds a {kind}, which cannot be rebuilt by name; pass an instance as model=.")
    try:
        if isinstance(recipe := info["recipe"], Mapping):
            most = max(USUAL_SIZE, sum(tensor.numel() for tensor in state.values()))
            bounds: dict[str, Constraint] = {
                "classes": Whole(1, most),
                "shape": Several(Whole(1, most)),
                "width": Real(above=0, at_most=most),
            }
            for entry in bounds.keys() & recipe.keys():
                check(f"its {entry}, of a file of so few numbers,", recipe[entry], bounds[entry])
        with torch.device("meta"):
            return build.rebuild(recipe)
    except PruningError as error:
        raise BadInput(f"{path} names a network that cannot be built: {str(error).rstrip('.')}; {ANEW}.") from error
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise CorruptFile(f"{path} names a network that cannot be built, {shown(info['recipe'])}; {ANEW}.") from error


def _groups(tied: Any, state: Mapping[str, Tensor], path: str | PathLike) -> list[list[str]]:
    """The groups of names in a file that stand for one tensor each; CorruptFile unless they are such."""
    lists = isinstance(tied, list) and all(isinstance(group, list) for group in tied)
    if not lists or not all(isinstance(name, str) and name in state for group in tied for name in group):
        raise CorruptFile(f"{path} is damaged: its groups of tied tensors are no lists of their names: {ANEW}.")
    return tied


def fit_tensors(
    skeleton: nn.Module,
    state: dict[str, torch.Tensor],
    path: str,
    tied: Iterable[list[str]] = (),
    whole: Mapping[str, list[int]] | None = None,
) -> None:
    """Give every parameter and buffer the saved tensor, with its number of channels, and correct the layers' sizes.

    What is one tensor in the skeleton, or was one when it was saved (``tied``: groups of names), is one afterwards.
    ``whole``: the shapes that embeddings and the tensors of somebody's own modules had before they were cut, which the
    skeleton must have; None where that was not noted, and they are just narrower.
    """
    own = skeleton.state_dict(keep_vars=True)
    misfit = f"{path} does not fit {type(skeleton).__name__}"
    if odd := sorted(own.keys() ^ state.keys()):
        raise BadInput(f"{misfit}: {wrapped(own.keys(), state.keys()) or f'{odd[0]!r} is only in one of them'}.")
    if torn := next((group for group in tied if not can_be_one(group, own)), None):
        raise BadInput(f"{misfit}: {', '.join(map(repr, torn))} are one tensor in the file, and cannot be one there.")
    first = {name: group[0] for group in [*tied, *_shared(own)] for name in group}
    state = {name: state[name] for name in own}  # so that the first misfit is the first in the network
    changed = set()
    types: dict[tuple[torch.dtype, bool], torch.dtype] = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        module = skeleton.get_submodule(owner)
        check_type(name, tensor, own[name], isinstance(module, NORMS), types, misfit)
        if tensor.dim() != own[name].dim():
            raise BadInput(f"{misfit}: {name!r} has {tensor.dim()} dimensions, not {own[name].dim()}.")
        if name != first.get(name, name) and not torch.equal(tensor, state[first[name]]):
            raise BadInput(f"{misfit}: {name!r} and {first[name]!r} are one tensor there, but two in the file.")
        fixed = 0 if not isinstance(module, CUT) and not type(module).__module__.startswith("pruning_core") else 2
        known = whole is None or whole.get(name) == list(own[name].shape)
        if _own(skeleton, name) and known and all(a <= b for a, b in zip(tensor.shape, own[name].shape, strict=True)):
            fixed = tensor.dim()
        if tensor.shape[fixed:] != own[name].shape[fixed:]:
            shapes = f"{tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            raise BadInput(f"{misfit}: {name!r} has shape {shapes}, and pruning changes numbers of channels only.")
        if any(a > b or a < min(b, 1) for a, b in zip(tensor.shape, own[name].shape, strict=True)):
            shapes = f"{tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            raise BadInput(f"{misfit}: {name!r} has shape {shapes}, and pruning leaves fewer channels, but some.")
        changed.add(owner)
    for owner in changed:
        check_layer(owner, skeleton.get_submodule(owner), state, misfit)
    made: dict[str, Any] = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        module = skeleton.get_submodule(owner)
        source = first.get(name, name)
        if isinstance(own[name], nn.Parameter):
            made.setdefault(source, nn.Parameter(state[source], own[source].requires_grad))
            module.register_parameter(leaf, made[source])
        else:
            setattr(module, leaf, made.setdefault(source, tensor))
    for owner in changed:
        set_sizes(skeleton.get_submodule(owner))


def _own(model: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to an embedding or to a module of somebody's own, of which any dimension may be cut."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.Embedding | nn.ParameterList | nn.ParameterDict):
        return True
    return not type(module).__module__.startswith(("torch.nn.", "pruning_core."))


def _shared(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of names that stand for one tensor."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


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
        if module.groups == module.in_channels > 1:
            module.groups = weight.shape[0]
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        if weight.shape[1] == 1 and module.groups == module.in_channels > 1:  # depthwise: one group an input channel
            module.groups = weight.shape[0] // (module.out_channels // module.groups)
        module.in_channels, module.out_channels = weight.shape[1] * module.groups, weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, _NormBase):
        vector = weight if weight is not None else module.running_mean
        if vector is not None:
            module.num_features = vector.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
