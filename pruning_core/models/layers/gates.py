"""Factors behind a layer, one a channel, that are trained: hard concrete gates and plain ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Real, check, checked


@checked
class HardConcreteGate(nn.Module):
    """One gate in [0, 1] a channel, random while training and deterministic afterwards (Louizos et al. 2018).

    Input (N, C, ...) and output of the same shape: channel c is multiplied by z_c. With u uniform,
    ``s = sigmoid((log u - log(1 - u) + alpha) / T)`` and ``z = clip(s (b - a) + a, 0, 1)``; in evaluation mode
    ``z = clip(sigmoid(alpha) (b - a) + a, 0, 1)``. One sample of the gates serves a whole batch.

    >>> gate = HardConcreteGate(2).eval()
    >>> gate(torch.ones(1, 2)).shape
    torch.Size([1, 2])
    """

    decays = False

    def __init__(
        self,
        channels: int,
        open_probability: float = 0.5,
        temperature: float = 2 / 3,
        limits: tuple[float, float] = (-0.1, 1.1),
    ):
        super().__init__()
        check("open_probability", open_probability, Real(above=0, below=1))
        self.temperature, self.limits, self.eps = temperature, limits, 1e-6
        mean = torch.logit(torch.tensor(open_probability))
        self.log_alpha = nn.Parameter(mean + 0.01 * torch.randn(channels))

    def open_probability(self) -> Tensor:
        """P(z > 0), shape (C,): ``1 - sigmoid(T log(-a/b) - alpha)``."""
        a, b = self.limits
        shift = self.temperature * torch.log(torch.tensor(-a / b, dtype=self.log_alpha.dtype))
        closed = torch.sigmoid(shift - self.log_alpha).clamp(self.eps, 1 - self.eps)
        return 1 - closed

    def gates(self) -> Tensor:
        """The gate values of evaluation mode, shape (C,)."""
        return self._stretched(torch.sigmoid(self.log_alpha))

    def sample(self, u: Tensor | None = None) -> Tensor:
        """One draw of the gates, shape (C,); ``u`` in (0, 1) may be given for reproduction."""
        if u is None:
            u = torch.rand_like(self.log_alpha) * (1 - 2 * self.eps) + self.eps
        return self._stretched(torch.sigmoid((torch.log(u) - torch.log1p(-u) + self.log_alpha) / self.temperature))

    def _stretched(self, s: Tensor) -> Tensor:
        a, b = self.limits
        return (s * (b - a) + a).clamp(0, 1)

    def forward(self, input: Tensor, dim: int = 1) -> Tensor:
        return _times(input, self.sample() if self.training else self.gates(), dim)

    @torch.no_grad()
    def project_(self) -> None:
        """Keep alpha in [log 0.01, log 100]: outside, the gate no longer moves."""
        self.log_alpha.clamp_(-4.605170185988092, 4.605170185988092)


@checked
class ChannelGate(nn.Module):
    """A learned factor a channel, 1 at the start: input (N, C, ...) and output of the same shape.

    >>> ChannelGate(3)(torch.ones(1, 3)).detach()
    tensor([[1., 1., 1.]])
    """

    decays = False

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def gates(self) -> Tensor:
        """The factors, shape (C,)."""
        return self.weight

    def forward(self, input: Tensor, dim: int = 1) -> Tensor:
        return _times(input, self.weight, dim)


@checked
class Gated(nn.Module):
    """A layer and the gate behind it; ``to_plain()`` folds the gate into the layer's weight and bias.

    The layer is a convolution, a linear layer, or a batch norm with a scale.

    >>> gated = Gated(nn.Linear(4, 3), ChannelGate(3))
    >>> gated.to_plain()
    Linear(in_features=4, out_features=3, bias=True)
    """

    layer: Any
    gate: HardConcreteGate | ChannelGate

    def __init__(self, layer: nn.Module, gate: HardConcreteGate | ChannelGate):
        super().__init__()
        self.layer, self.gate = layer, gate

    @property
    def output_dim(self) -> int:
        """Where the layer's weight counts its outputs: transposed convolutions store inputs first."""
        return 1 if getattr(self.layer, "transposed", False) else 0

    def forward(self, input: Tensor) -> Tensor:
        # Channels are the second dimension, but the last one behind a linear layer: of (N, T, F) for tokens.
        return self.gate(self.layer(input), -1 if isinstance(self.layer, nn.Linear) else 1)

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        z = self.gate.gates()
        weight = self.layer.weight
        groups = self.layer.groups if self.output_dim == 1 else 1  # a slice of a transposed weight serves every group
        parts = zip(weight.chunk(groups), z.chunk(groups), strict=True)
        weight.copy_(torch.cat([_times(part, factors, self.output_dim) for part, factors in parts]))
        if self.layer.bias is not None:
            self.layer.bias.mul_(z)
        return self.layer


def _times(input: Tensor, factors: Tensor, dim: int) -> Tensor:
    """``input`` with each channel, along ``dim``, multiplied by its factor."""
    shape = [1] * input.dim()
    shape[dim] = len(factors)
    return input * factors.view(shape)
