r"""i-SpaSP for a hidden layer and the linear layer that reads it (Wolfe and Kyrillidis 2022, wolfe2022ispasp).

With H the hidden activations, W1 the reading layer, U = W1 H, mu the sum over samples (and positions), S_0 = {}, V = U:

    y  = mu(W1^T V)                         importance of every hidden neuron for the residual
    Omega = the 2s largest entries of y     proposals
    S  = the s largest of mu(H) among Omega and S
    V  = U - W1[:, S] H[S, :]               residual

For a convolution W1 is the convolution with the batch norm right behind it, and H the map that it reads; for attention it
is the output projection, and the neurons are heads. ``shared/hidden.py`` says why one pass over the samples is enough.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, Whole, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.hidden import ACTIVATIONS, Hidden
from pruning_core.methods.shared.layer_by_layer import LayerByLayer
from pruning_core.methods.shared.least_squares import least_squares, second_moments
from pruning_core.methods.shared.reading import largest


class Step(NamedTuple):
    """One iteration: importance y (hidden,); proposals, merged set and support as sorted indices."""

    importance: Tensor
    proposals: Tensor
    merged: Tensor
    support: Tensor


class Recovery(NamedTuple):
    """What i-SpaSP chose: the support (sorted), mu(H) (hidden,), every iteration, and ||V||^2 before and after each.

    ``residuals`` is empty unless asked for: it takes a second pass over the samples.
    """

    support: Tensor
    activation: Tensor
    steps: list[Step]
    residuals: list[float]


@checked(s=None)
def two_layer(
    hidden: Tensor | Callable[[], Iterable[Tensor]] | Hidden,
    consume: Tensor | nn.Module | None = None,
    s: int = 1,
    iterations: int = 20,
    importance: str = "signed",
    activation: str = "sum",
    *,
    residuals: bool = False,
    until_repeat: bool = True,
    reference: bool = False,
) -> Recovery:
    """The iterations of i-SpaSP on one hidden layer: which ``s`` neurons (or channels) to keep.

    ``hidden``: activations (samples, hidden, ...), or a function that gives them chunk by chunk; ``consume``: weights
    (outputs, hidden), or a layer that is linear up to an offset. How the samples are cut into chunks does not change the
    result. ``until_repeat`` stops when the support repeats, which is exact, since all that follows depends on it alone.

    >>> two_layer(torch.tensor([[4.0, 3, 2, 1]]), torch.eye(4), s=1).support
    tensor([0])
    """
    known_name("importance", importance, ("signed", "absolute"))
    known_name("activation", activation, ACTIVATIONS)
    if not isinstance(hidden, Hidden):
        if consume is None:
            raise BadInput("i-SpaSP needs the layer that reads the maps: its weights (outputs, hidden), or a module.")
        hidden = Hidden.of(hidden, consume)
    alive, candidates = hidden.alive, int(hidden.alive.sum())
    s = check("s, the number of hidden channels to keep,", s, Whole(at_least=1, at_most=candidates))
    iterations = check("iterations", iterations, Whole(at_least=1))
    sizes = hidden.activations(activation).masked_fill(~alive, -torch.inf)
    keep = torch.zeros(hidden.size, dtype=torch.bool)
    keeps: list[Tensor | None] = [None]
    steps: list[Step] = []
    for iteration in range(iterations):
        y = hidden.correlation(keep if iteration else None, reference)
        steps.append(_step(y, y.abs() if importance == "absolute" else y, sizes, keep, int(s)))
        before, keep = keep, torch.isin(torch.arange(hidden.size), steps[-1].support)
        keeps.append(keep)
        if until_repeat and torch.equal(before, keep):
            break
    return Recovery(steps[-1].support, sizes, steps, hidden.squared_residuals(keeps, reference) if residuals else [])


def _step(y: Tensor, score: Tensor, sizes: Tensor, keep: Tensor, s: int) -> Step:
    """The support that follows ``keep``; dead channels have the size minus infinity."""
    alive = sizes > -torch.inf
    proposals = largest(score.masked_fill(~alive, -torch.inf), min(2 * s, int(alive.sum())))
    merged = keep.clone()
    merged[proposals] = True
    # Everything outside the merged set ranks last, whatever its activation.
    support = largest(sizes.masked_fill(~merged, -torch.inf), s)
    return Step(y, proposals.sort().values, merged.nonzero().flatten(), support.sort().values)


@register
class ISpaSP(LayerByLayer):
    """Keeps the hidden channels that rebuild the next layer's output, in the manner of sparse recovery.

    ``iterations``: steps, fewer where the support repeats itself. ``importance`` ranks proposals by their "signed"
    (authors' code) or "absolute" value; ``activation`` says how large a channel is: the "sum" of its activations (the
    paper's), of their "absolute" values, or their "norm". ``debias`` fits the reading layer to the channels that stay, by
    least squares. ``reference=True``: the batch norm behind the pruned layer takes the statistics of each batch, as the
    authors' code has it, so the batches matter.
    """

    name, citation = "ispasp", "wolfe2022ispasp"
    constraints = Constraints(
        iterations=Whole(at_least=1), importance=OneOf("signed", "absolute"), activation=OneOf(*ACTIVATIONS)
    )

    iterations: int = 20
    importance: str = "signed"
    activation: str = "sum"
    debias: bool = False
    reference: bool = False

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        found = two_layer(hidden, None, s, self.iterations, self.importance, self.activation, reference=self.reference)
        return found.support, fitted(hidden, found.support) if self.debias else {}


def fitted(hidden: Hidden, support: Tensor) -> dict[str, Tensor]:
    """Least-squares "weight" (and "bias") of the layer that reads ``hidden``, for the channels in ``support``."""
    keep = torch.isin(torch.arange(hidden.size), support)
    weight, bias = least_squares(hidden, keep, second_moments(hidden))
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
