r"""Hoyer-Square: a penalty that does not care how large weights are, only how unequal (Yang et al. 2020, yang2020deephoyer).

    HS(W) = (sum |w|)^2 / sum w^2        between 1 (one weight) and the number of weights (all equal in size)

    Group-HS(W) = [ (sum_i ||W[:, i]||_2)^2 + (sum_o ||W[o]||_2)^2 ] / ||W||_2^2

i runs over the inputs of a layer, o over its outputs; the kernel entries of a convolution belong to both. A network is
trained with the sum over its layers as a penalty, then everything that has become small is cut: ``Budget(below=1e-3)``.
How sparse it becomes follows from the strength of the penalty; a target sparsity by size works as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruning_core.masks import Masks, Scores
from pruning_core.methods.base import Method, View, register
from pruning_core.methods.shared.penalties import living, summed

TRIM = 1e-3  # weights at most this large go after training, in the official code


@register
class HoyerSquare(Method):
    """Trained with the Hoyer-Square penalty, the weights that have become small go."""

    name, citation = "hoyer_square", "yang2020deephoyer"

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum over layers of (sum |w|)^2 / sum w^2; a layer of zeros counts nothing."""
        return _summed(model, alive, lambda weight: _ratio(weight.abs().sum() ** 2, weight))

    def score(self, view: View) -> Scores:
        return Scores({name: weight.abs() for name, weight in view.weights().items()})


@register
class GroupHoyerSquare(Method):
    """Trained with the group form of the penalty, the channels go whose weights have all become small.

    A channel's score is its largest absolute weight; ``combine`` says how producers of one channel are combined.
    """

    name, citation = "group_hoyer_square", "yang2020deephoyer"
    unit, needs = "channel", "shape"
    combine: str = "max"

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum over layers of the squared sums of column norms and of row norms, over the squared norm of all."""

        def group_hoyer(weight: Tensor) -> Tensor:
            inputs = torch.linalg.vector_norm(weight.transpose(0, 1).flatten(1), dim=1).sum()
            outputs = torch.linalg.vector_norm(weight.flatten(1), dim=1).sum()
            return _ratio(inputs**2 + outputs**2, weight)

        return _summed(model, alive, group_hoyer)

    def score(self, view: View) -> Scores:
        return view.per_channel(lambda rows: rows.abs().amax(1), self.combine)


def _summed(model: nn.Module, alive: Masks, penalty: Callable[[Tensor], Tensor]) -> Tensor:
    """The penalties of all weights with two or more dimensions, of what is alive in them."""
    parts = (penalty(living(p, name, alive)) for name, p in model.named_parameters() if p.dim() >= 2)
    return summed(parts, f"{type(model).__name__} has no weight matrix that could be penalised.")


def _ratio(above: Tensor, weight: Tensor) -> Tensor:
    """``above`` over the squared norm of ``weight``, and 0 where that vanishes."""
    squares = (weight**2).sum()
    return torch.where(squares > 0, above / torch.where(squares > 0, squares, torch.ones_like(squares)), 0.0)
