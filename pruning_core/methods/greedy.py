r"""Greedy selection of the channels of a hidden layer: forward selection by the loss, and imitation of the layer's output.

Of N channels, those chosen so far are used with equal weights that keep the mean: with n chosen, each is multiplied by
N / n. In a step the channel k joins that makes smallest

    GFS         the loss of the whole network               (Ye et al. 2020, ye2020gfs), on the next mini-batch
    imitation   ||U - N / (n + 1) sum_j c_j||^2             (local imitation, after Ye et al. 2020, ye2020greedy),

c_j = W1[:, j] H[j, :] being what channel j adds to the output U = sum_j c_j of the layer that reads it. Layers are pruned
from front to back. The published code stops a layer when the accuracy is nearly the dense one's; here a budget says how
many channels stay, so that methods are compared at equal sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor, nn

from ..activations import Place
from ..errors import BadInput
from ..measure import evaluating
from .base import View, register
from .hidden import Hidden, LayerByLayer


@register
@dataclass(frozen=True)
class Greedy(LayerByLayer):
    """Adds, one by one, the channel that lowers the loss of the network most (greedy forward selection).

    ``candidates``: how many channels are tried in a step, drawn at random; None tries all (the version with a guarantee),
    the published code 50. ``rescale`` leaves the factor N / n in the reading layer.
    """

    name = "greedy"
    citation = "ye2020gfs"
    needs = "labels"

    candidates: int | None = None
    rescale: bool = True

    def __post_init__(self):
        if self.candidates is not None and self.candidates < 1:
            raise BadInput(f"a greedy step tries at least one candidate, not {self.candidates}.")

    def select(self, view: View, hidden: Hidden, s: int, place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        alive = hidden.alive.nonzero().flatten()
        losses = _at_the_end if place.last and isinstance(hidden.layer, nn.Linear) else _anywhere
        tried = losses(view, hidden, len(alive))
        next(tried)
        chosen: list[int] = []
        while len(chosen) < s:
            free = alive[~torch.isin(alive, torch.tensor(chosen, dtype=torch.long))]
            if self.candidates is not None and len(free) > self.candidates:
                free = free[torch.randperm(len(free), generator=view.generator)[: self.candidates]].sort().values
            found = tried.send((chosen, free))
            chosen.append(int(free[found.argmin()]))
        tried.close()
        return torch.tensor(chosen), _rescaled(hidden, len(alive) / s) if self.rescale else {}


@register
@dataclass(frozen=True)
class Imitation(LayerByLayer):
    """Adds, one by one, the channel with which the reading layer's output comes nearest to the dense one.

    ``rescale`` leaves the factor N / n in the reading layer.
    """

    name = "imitation"
    citation = "ye2020greedy"

    rescale: bool = True

    def select(self, view: View, hidden: Hidden, s: int, place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        inner = hidden.contributions()
        alive = hidden.alive
        total = int(alive.sum())
        towards = inner @ alive.double()  # <c_k, U>
        chosen: list[int] = []
        with_chosen = torch.zeros_like(towards)  # <c_k, sum of the chosen>
        square = 0.0  # ||sum of the chosen||^2
        for n in range(s):
            factor = total / (n + 1)
            gain = factor**2 * (square + 2 * with_chosen + inner.diagonal())
            error = gain - 2 * factor * (towards[chosen].sum() + towards)
            error[~alive] = torch.inf
            error[chosen] = torch.inf
            k = int(error.argmin())
            square += float(2 * with_chosen[k] + inner[k, k])
            with_chosen += inner[k]
            chosen.append(k)
        return torch.tensor(chosen), _rescaled(hidden, total / s) if self.rescale else {}


def _rescaled(hidden: Hidden, factor: float) -> dict[str, Tensor]:
    """The reading layer's weight with the columns of the candidates multiplied by ``factor``."""
    weight: Tensor = hidden.layer.weight.detach()  # type: ignore[union-attr, assignment, operator]
    groups = getattr(hidden.layer, "groups", 1)
    # In a grouped convolution one column of the weight serves an input of every group.
    ours = hidden.channel_of[: len(hidden.channel_of) // groups] >= 0
    factors = torch.where(ours, factor, 1.0).to(weight)
    return {"weight": weight * factors.view(1, -1, *[1] * (weight.dim() - 2))}


def _at_the_end(view: View, hidden: Hidden, total: int) -> Iterator[Tensor | None]:
    """Losses of candidates when the reading layer gives the network's output: all at once, from what each adds to it."""
    layer = hidden.layer
    assert isinstance(layer, nn.Linear) and view.batches is not None
    weight = layer.weight.detach()
    labels = cycle([batch[1] for batch in view.batches])
    offset = hidden.consume(torch.zeros(1, layer.in_features).to(weight)).detach()
    scale = 1.0 if layer is hidden.consume else _slope(hidden)
    request = yield None
    while True:
        for maps, y in zip(hidden.chunks(), labels, strict=False):
            chosen, candidates = request  # type: ignore[misc]
            fixed = maps * (hidden.channel_of < 0).to(maps)
            n = len(chosen) + 1
            taken = torch.isin(hidden.channel_of, torch.tensor(chosen, dtype=torch.long)).to(maps)
            base = (fixed + maps * taken * total / n) @ weight.T
            members = torch.stack([(hidden.channel_of == k) for k in candidates]).to(maps)  # (candidates, inputs)
            if members.sum() == len(candidates):  # one input a channel: its column times its activation
                columns = members.argmax(1)
                added = maps[:, columns].T[:, :, None] * weight[:, columns].T[:, None, :]
            else:
                added = torch.einsum("bi,ki,oi->kbo", maps, members, weight)
            outputs = (base + added * total / n) * scale + offset
            y = y.to(outputs.device)
            with torch.no_grad():
                request = yield torch.vmap(view.loss, in_dims=(0, None))(outputs, y)


def _slope(hidden: Hidden) -> Tensor:
    from .hidden import _norm_scale

    return _norm_scale(hidden.exact[1]).to(hidden.layer.weight)  # type: ignore[index, arg-type, union-attr]


def _anywhere(view: View, hidden: Hidden, total: int) -> Iterator[Tensor | None]:
    """Losses of candidates by running the network once for each, with the inputs of the reading layer scaled."""
    factors = torch.ones(len(hidden.channel_of))
    dim = -1 if isinstance(hidden.layer, nn.Linear) else 1

    def scale(module, inputs):
        shape = [1] * inputs[0].dim()
        shape[dim] = -1
        return (inputs[0] * factors.to(inputs[0]).view(shape), *inputs[1:])

    request = yield None
    handle = hidden.layer.register_forward_pre_hook(scale)  # type: ignore[union-attr]
    device = next(view.model.parameters()).device
    try:
        for inputs, labels in cycle(list(view.batches or ())):
            chosen, candidates = request  # type: ignore[misc]
            losses = []
            for k in candidates.tolist():
                weights = torch.zeros(hidden.size)
                weights[[*chosen, k]] = total / (len(chosen) + 1)
                factors = torch.where(hidden.channel_of >= 0, weights[hidden.channel_of.clamp(min=0)], 1.0)
                with torch.no_grad(), evaluating(view.model):
                    losses.append(view.loss(view.model(inputs.to(device)), labels.to(device)))
            request = yield torch.stack(losses)
    finally:
        handle.remove()
