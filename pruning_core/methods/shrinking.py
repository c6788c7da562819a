"""From masks to a smaller network: channels are cut, and the small network is compared with the masked one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.errors import PruningError
from pruning_core.masks import Masks, Sites, remove
from pruning_core.masks.comparing import compare
from pruning_core.masks.removal import Kept
from pruning_core.models.modes import copied
from pruning_core.models.storage import CARRIED


def shrunk(model: nn.Module, masks: Masks, sites: Sites, example_input=None) -> tuple[nn.Module, Kept]:
    """A smaller copy of a masked network, and the slices that made it. The two are compared before it is returned."""
    small, kept = _cut(model, masks, sites)
    # Until here the two share the tensors of which nothing was cut.
    shared = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    copies: dict[int, Tensor] = {}  # a tensor with two names, as tied embeddings have, keeps both
    for module in small.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and id(tensor) in shared:
                if (own := copies.get(id(tensor))) is None:
                    own = copies[id(tensor)] = _copy(tensor)
                setattr(module, name, own)
    if example_input is not None:
        compare(model, small, example_input, kept)
    return small, kept


def _copy(tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own


def _cut(model: nn.Module, masks: Masks, sites: Sites) -> tuple[nn.Module, Kept]:
    """The same without copies of the tensors of which nothing is cut, and without the comparison."""
    same: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    same |= {id(vars(module)[CARRIED]): {} for module in model.modules() if CARRIED in vars(module)}  # of other shapes
    small = copied(model, same)
    kept = remove(small, masks, sites.groups.values())
    kept.masks(masks).carry(small)
    return small, kept


class LivingPart(NamedTuple):
    """A network without its dead channels, which shares other tensors with the whole one, with its sites and masks."""

    model: nn.Module
    sites: Sites
    masks: Masks
    kept: Kept
    shapes: Mapping[str, torch.Size]

    def spread(self, name: str, score: Tensor) -> Tensor:
        """The score of a parameter or a group of this network as one of the whole network's; what is dead scores 0."""
        if name not in self.sites.groups:
            return self.kept.spread(name, score, self.shapes[name])
        alive = self.kept.channels[name].to(score.device)
        return score.new_zeros(len(alive)).masked_scatter_(alive, score)


def living_part(model: nn.Module, masks: Masks, sites: Sites, example_input) -> LivingPart | None:
    """What is left of a masked network when its dead channels are cut out; None where there are none, where a group has
    no others, and where the outputs would change."""
    if not masks.removed:
        return None
    try:
        small, kept = _cut(model, masks, sites)
        if not kept.slices:
            return None
        # In the network's own precision and on the example: this is done before every round, and a difference below the
        # tolerance moves scores as little as rounding does; what a user is given is compared by shrunk().
        compare(model, small, example_input, precise=False)
    except PruningError:
        return None
    shapes = {name: parameter.shape for name, parameter in small.named_parameters()}
    groups = {name: kept.group(group) for name, group in sites.groups.items()}
    return LivingPart(small, replace(sites, shapes=shapes, groups=groups), kept.masks(masks), kept, sites.shapes)
