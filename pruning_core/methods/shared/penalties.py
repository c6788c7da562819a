"""What penalties in training share: only what is alive counts, gradients of absolute values, sums over a network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pruning_core.errors import Unprunable
from pruning_core.masks import Masks


def living(tensor: Tensor, name: str, alive: Masks) -> Tensor:
    """``tensor``, dead entries of the parameter ``name`` times zero: in a penalty they neither count nor move."""
    mask = alive.get(name)
    return tensor if mask is None else tensor * mask.to(tensor)


def survivors(tensor: Tensor, name: str, alive: Masks) -> Tensor:
    """``tensor`` without the dead entries of the parameter ``name``: a vector where there is a mask."""
    mask = alive.get(name)
    return tensor if mask is None else tensor[mask.to(tensor.device)]


@torch.no_grad()
def pull_to_zero_(named: Iterable[tuple[str, nn.Parameter]], alive: Masks, strength: float, shift: float = 0.0) -> None:
    """Add ``strength * sign(w + shift)`` to the gradients of named parameters, in place.

    That is what autograd makes of ``strength * sum |w + shift|`` over what is alive, with sign(0) = 0. Frozen parameters and
    dead entries get nothing; a parameter without a gradient gets one.

    >>> layer = nn.Linear(3, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[2.0, -1.0, 0.0]])
    >>> pull_to_zero_(layer.named_parameters(), Masks(), 0.5)
    >>> layer.weight.grad
    tensor([[ 0.5000, -0.5000,  0.0000]])
    """
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        signs = (parameter + shift).sign_() if shift else parameter.sign()
        if name in alive:
            signs.mul_(alive[name].to(signs.device))
        if parameter.grad is None:
            parameter.grad = signs.mul_(strength)
        else:
            parameter.grad.add_(signs, alpha=strength)


def summed(parts: Iterable[Tensor], otherwise: str) -> Tensor:
    """The sum of a penalty's ``parts``; raises Unprunable with the message ``otherwise`` if there are none."""
    found = list(parts)
    if not found:
        raise Unprunable(otherwise)
    return torch.stack(found).sum()
