"""The product of a network's Hessian with its own gradient, without ever holding the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning_core.models.modes import evaluating


def hessian_gradient(
    model: nn.Module, names: Iterable[str], losses: Callable[[], Iterator[Tensor]]
) -> dict[str, Tensor]:
    """``H g`` for the parameters ``names``, in evaluation mode; g and H are sums over the ``losses``, run through twice."""
    names = list(names)
    parameters = [model.get_parameter(name).requires_grad_(True) for name in names]
    # Fused attention has no second derivative; the plain formula does.
    with evaluating(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        gradient = _sum(torch.autograd.grad(loss, parameters, allow_unused=True) for loss in losses())
        vector = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient, strict=True)]
        product = _sum(_product(loss, parameters, vector) for loss in losses())
    return {
        name: torch.zeros_like(p) if hg is None else hg for name, p, hg in zip(names, parameters, product, strict=True)
    }


def _product(loss: Tensor, parameters: list[Tensor], vector: list[Tensor]):
    once = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    along = [(g * v).sum() for g, v in zip(once, vector, strict=True) if g is not None and g.requires_grad]
    if not along:  # the gradient is constant: the Hessian is zero
        return [None] * len(parameters)
    return torch.autograd.grad(torch.stack(along).sum(), parameters, allow_unused=True)


def _sum(rounds) -> list[Tensor | None]:
    total: list[Tensor | None] = []
    for found in rounds:
        total = list(found) if not total else [_plus(a, b) for a, b in zip(total, found, strict=True)]
    return total


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
