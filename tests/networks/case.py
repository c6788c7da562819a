"""A case: a network, the inputs it takes, which of its layers must become narrower, and which must not, with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Source = Callable[[int, int], Tensor]
"""Inputs for a batch of so many samples, from a seed."""


def noise(*shape: int) -> Source:
    return lambda n, seed: torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed)).double()


def whole(high: int, *shape: int) -> Source:
    return lambda n, seed: torch.randint(high, (n, *shape), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Case:
    """``cut``: layers that lose outputs when half of the channels go; ``fixed``: what the report says of others.

    ``fixed`` maps "channels of LAYER" to words of the reason. ``refused``: words of the one sentence in which the whole
    network is refused.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Source, ...]
    cut: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None

    def batch(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        return tuple(source(n, seed + 100 * i) for i, source in enumerate(self.inputs))
