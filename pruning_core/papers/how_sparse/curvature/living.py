"""The Hessian of a pruned network: over its living weights only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.hessian import Hessian


class LivingHessian:
    """The rows and columns of a Hessian that belong to living weights: H of a pruned network, whose dead weights stay 0.

    ``alive``: parameter name -> bool tensor; a parameter without an entry is alive. ``dimension`` counts living weights, in
    the order of the whole Hessian's; ``matvec`` takes and gives (dimension,). Raises BadInput when nothing is alive.
    """

    def __init__(self, whole: Hessian, alive: Mapping[str, Tensor]):
        self.whole, self.device, self.dtype = whole, whole.device, whole.dtype
        parts = [
            alive[name].flatten().cpu() if name in alive else torch.ones(shape.numel(), dtype=torch.bool)
            for name, shape in whole.shapes.items()
        ]
        self.places = torch.cat(parts).nonzero()[:, 0].to(whole.device)
        self.dimension = len(self.places)
        if not self.dimension:
            raise BadInput("no weight is alive, so there is no curvature.")

    def matvec(self, v: Tensor) -> Tensor:
        """The living part of H v, for a v that is 0 at the dead weights."""
        padded = torch.zeros(self.whole.dimension, dtype=self.dtype, device=self.device)
        padded[self.places] = v.to(padded)
        return self.whole.matvec(padded)[self.places]

    def mean_gradient(self) -> Tensor:
        """The living part of the gradient of the mean loss, (dimension,)."""
        return self.whole.mean_gradient()[self.places]

    def weights(self) -> Tensor:
        """The living weights, (dimension,)."""
        return self.whole.weights()[self.places]
