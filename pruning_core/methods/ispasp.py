r"""i-SpaSP for a hidden layer and the linear layer that reads it (Wolfe and Kyrillidis 2022).

With H the hidden activations, W1 the consuming layer, U = W1 H, mu the sum over samples (and positions), S_0 = {}, V = U:

    y  = mu(W1^T V)                         importance of every hidden neuron for the residual
    Omega = the 2s largest entries of y     proposals
    S  = the s largest of mu(H) among Omega and S
    V  = U - W1[:, S] H[S, :]               residual

This file is the two-layer core, on which chapter 1 builds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..activations import layer_inputs
from ..budgets import Budget
from ..errors import BadInput, known_name
from ..groups import Group, expand
from .base import Choice, Method, View, channel_counts, register


class Step(NamedTuple):
    """One iteration: importance y (hidden,), proposals and support as sorted indices, squared residual before it."""

    importance: Tensor
    proposals: Tensor
    support: Tensor
    residual: float


def two_layer(
    hidden: Callable[[], Iterable[Tensor]],
    consume: Callable[[Tensor], Tensor],
    s: int,
    iterations: int = 20,
    importance: str = "signed",
) -> list[Step]:
    """The iterations of i-SpaSP; the last one's ``support`` holds the s neurons (or channels) to keep.

    ``hidden()`` gives the activations chunk by chunk, each (N, hidden, ...); ``consume`` is linear up to an offset.
    How the samples are cut into chunks does not change the result. Stops early when the support repeats, which is exact.
    """
    known_name("importance", importance, ("signed", "absolute"))
    activation = sum(_per_channel(chunk) for chunk in hidden())
    assert isinstance(activation, Tensor)
    if not 1 <= s <= len(activation):
        raise BadInput(f"i-SpaSP keeps between 1 and {len(activation)} of {len(activation)} hidden channels, not {s}.")
    keep = torch.zeros(len(activation), dtype=torch.bool)
    steps: list[Step] = []
    for iteration in range(iterations):
        y, residual = _gradient(hidden, consume, keep if iteration else None)
        score = y.abs() if importance == "absolute" else y
        proposals = _largest(score, min(2 * s, len(y)))
        candidates = keep.clone()
        candidates[proposals] = True
        # Everything outside the merged set ranks last, whatever its activation.
        support = _largest(activation.masked_fill(~candidates, -torch.inf), s)
        steps.append(Step(y, proposals.sort().values, support.sort().values, residual))
        before, keep = keep, torch.zeros_like(keep)
        keep[support] = True
        if torch.equal(before, keep):
            break
    return steps


def _gradient(hidden, consume, keep: Tensor | None) -> tuple[Tensor, float]:
    """mu(W1^T V) in float64 and ||V||^2, the residual V being that of the channels in ``keep`` (None: of nothing)."""
    y, squared = None, 0.0
    for chunk in hidden():
        leaf = chunk.detach().requires_grad_(True)
        with torch.enable_grad():
            residual = consume(leaf)
            if keep is not None:
                shape = (1, -1, *[1] * (chunk.dim() - 2))
                with torch.no_grad():
                    pruned = consume(chunk * keep.to(chunk).view(shape))
                residual = residual - pruned
            (gradient,) = torch.autograd.grad(0.5 * residual.square().sum(), leaf)
        part = _per_channel(gradient)
        y = part if y is None else y + part
        squared += float(residual.detach().double().square().sum())
    assert y is not None
    return y, squared


def _per_channel(chunk: Tensor) -> Tensor:
    """Sum over samples and positions, in float64 on the CPU: (N, C, ...) -> (C,)."""
    return chunk.detach().double().transpose(0, 1).flatten(1).sum(1).cpu()


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the largest values, the lower index first among equals."""
    return torch.sort(values, descending=True, stable=True).indices[:count]


@register
@dataclass(frozen=True)
class ISpaSP(Method):
    """Keeps the hidden channels that rebuild the next layer's output, in the manner of sparse recovery.

    ``importance`` ranks proposals by their "signed" (authors' code) or "absolute" value. Layers are pruned from front to
    back, each on what the pruned layers before it pass on.
    """

    name = "ispasp"
    citation = "wolfe2022ispasp"
    unit = "channel"
    needs = "inputs"

    iterations: int = 20
    importance: str = "signed"

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        if len({member.layer for member in group.consumes}) != 1 or group.consumes[0].is_buffer:
            return "several layers read these channels; i-SpaSP needs one"
        if len(group.consumes[0].indices) != group.size:
            return "one channel feeds several columns of the reading layer; i-SpaSP needs one each"
        return None

    def choose(self, view: View, budget: Budget) -> Choice:
        counts, remarks = channel_counts(view, budget)
        masks = view.alive
        for name, group in view.sites.groups.items():
            masks.apply_(view.model)
            keep = torch.zeros(group.size, dtype=torch.bool)
            keep[self.support(view, group, counts[name])] = True
            masks = masks & expand({name: keep & group.alive(view.alive)}, view.sites.groups, view.sites.shapes)
        return Choice(masks, remarks=remarks)

    def support(self, view: View, group: Group, s: int) -> Tensor:
        """The s channels of one group to keep, sorted."""
        reader = group.consumes[0].layer
        order = group.consumes[0].channels.argsort()

        def hidden() -> Iterable[Tensor]:
            for batch in layer_inputs(view.model, [reader], view.batches or ()):
                yield batch[reader].flatten(0, -2) if batch[reader].dim() == 3 else batch[reader]

        columns = group.consumes[0].indices[order]
        steps = two_layer(hidden, view.model.get_submodule(reader), s, self.iterations, self.importance)
        channel_of = torch.empty_like(columns)
        channel_of[columns] = torch.arange(len(columns))
        return channel_of[steps[-1].support].sort().values
