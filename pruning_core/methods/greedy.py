r"""Greedy forward selection of the channels of a hidden layer by the loss of the network (Ye et al. 2020, ye2020gfs).

Of N channels, those chosen so far are used with equal weights that keep the mean: with n chosen, each is multiplied by
N / n. In a step the channel k joins with which the loss of the whole network, on the next mini-batch, is smallest.

Layers are pruned from front to back. The published code stops a layer when the accuracy is nearly the dense one's; here a
budget says how many channels stay, so that methods are compared at equal sizes.
"""

from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, Maybe, Whole
from pruning_core.errors import BadInput
from pruning_core.methods.base import View, along, register
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.layer_by_layer import LayerByLayer, rescaled
from pruning_core.models.calls import like_model, raised, tried
from pruning_core.models.modes import evaluating
from pruning_core.training.losses import loss_value


@register
class Greedy(LayerByLayer):
    """Adds, one by one, the channel that lowers the loss of the network most (greedy forward selection).

    ``candidates``: how many channels are tried in a step, drawn at random; None tries all (the version with a guarantee),
    the published code 50. ``rescale`` leaves the factor N / n in the reading layer.
    """

    name, citation = "greedy", "ye2020gfs"
    needs = "labels"
    constraints = Constraints(candidates=Maybe(Whole(at_least=1)))

    candidates: int | None = None
    rescale: bool = True

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        alive = hidden.alive.nonzero().flatten()
        kind = _at_the_end if hidden.last and isinstance(hidden.layer, nn.Linear) else _anywhere
        losses = kind(view, hidden, len(alive))
        chosen: list[int] = []
        while len(chosen) < s:
            free = alive[~torch.isin(alive, torch.tensor(chosen, dtype=torch.long))]
            if self.candidates is not None and len(free) > self.candidates:
                free = free[torch.randperm(len(free), generator=view.generator)[: self.candidates]].sort().values
            found = losses(chosen, free)
            if not bool(torch.isfinite(found).all()):
                raise BadInput("the loss of the network is NaN or infinite for these samples.")
            chosen.append(int(free[found.argmin()]))
        return torch.tensor(chosen), rescaled(hidden, len(alive) / s) if self.rescale else {}


Losses = Callable[[list[int], Tensor], Tensor]
"""(channels chosen, candidates) -> the loss with each candidate added, on the next mini-batch."""


def _at_the_end(view: View, hidden: Hidden, total: int) -> Losses:
    """When the reading layer gives the network's output: all candidates at once, from what each adds to it."""
    layer = hidden.layer
    weight: Tensor = layer.weight.detach()
    offset = 0.0 if layer.bias is None else layer.bias.detach()
    maps_of: Any = hidden.maps_of
    # One batch at a time, since batches may shuffle: maps and labels of the same one.
    batches = ((*maps_of([batch]), batch[1]) for batch in chain.from_iterable(repeat(view.batches or ())))

    @torch.no_grad()
    def losses(chosen: list[int], candidates: Tensor) -> Tensor:
        maps, labels = next(batches)
        share = total / (len(chosen) + 1)
        others = (hidden.channel_of < 0).to(maps)
        taken = torch.isin(hidden.channel_of, torch.tensor(chosen, dtype=torch.long)).to(maps)
        base = (maps * (others + taken * share)) @ weight.T
        members = (hidden.channel_of[None, :] == candidates[:, None]).to(maps)  # (candidates, inputs)
        if members.sum() == len(candidates):  # one input a channel: its column times its activation
            columns = members.argmax(1)
            added = maps[:, columns].T[:, :, None] * weight[:, columns].T[:, None, :]
        else:
            added = torch.einsum("bi,ki,oi->kbo", maps, members, weight)
        outputs = base + added * share + offset
        return torch.vmap(view.loss, in_dims=(0, None))(outputs, labels.to(outputs.device)).cpu()

    return losses


def _anywhere(view: View, hidden: Hidden, total: int) -> Losses:
    """By running the network once for each candidate, with the inputs of the reading layer scaled."""
    dim = -1 if isinstance(hidden.layer, nn.Linear) else 1
    batches = chain.from_iterable(repeat(view.batches or ()))

    def scaled(factors: Tensor):
        def hook(module, inputs, options):
            maps = inputs[0] if inputs else next(iter(options.values()))
            return (maps * along(factors, maps, dim),), {}

        return hook

    @torch.no_grad()
    def losses(chosen: list[int], candidates: Tensor) -> Tensor:
        inputs, labels = like_model(view.model, *next(batches)[:2])
        found = []
        for k in candidates.tolist():
            share = torch.zeros(hidden.size)
            share[[*chosen, k]] = total / (len(chosen) + 1)
            handle = hidden.layer.register_forward_pre_hook(scaled(hidden.per_input(share)), with_kwargs=True)
            try:
                with evaluating(view.model):
                    found.append(loss_value(view.loss, raised(tried(view.model, inputs)), labels))
            finally:
                handle.remove()
        return torch.stack(found).cpu()

    return losses
