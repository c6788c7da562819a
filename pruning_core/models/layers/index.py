"""A layer that picks channels by index: the shortcut without parameters of residual networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.checks import Whole, checked
from pruning_core.errors import BadInput


@checked
class ChannelIndex(nn.Module):
    """Picks channels by index: ``y[:, j] = x[:, index[j], ::stride, ::stride]``, and zeros where ``index[j]`` is -1.

    The parameter-free shortcut of residual networks (option A of He et al. 2016) is such a layer; as an index, and not
    as a slice with padding, it can be pruned exactly. Input (N, C, H, W), output (N, len(index), H / stride, W / stride).

    >>> ChannelIndex([2, 0])(torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]])).flatten()
    tensor([3., 1.])
    """

    index: Tensor

    def __init__(self, index: Sequence[int], stride: int = 1):
        super().__init__()
        self.stride = stride
        self.register_buffer("index", torch.as_tensor(index, dtype=torch.long))

    @classmethod
    @checked(inputs=Whole(at_least=1), outputs=Whole(at_least=1))
    def option_a(cls, inputs: int, outputs: int, stride: int) -> ChannelIndex:
        """The shortcut that widens from ``inputs`` to ``outputs`` channels: zeros before and after, odd ones after."""
        if outputs < inputs:
            raise BadInput(
                f"outputs must be at least inputs, {inputs}, not {outputs}: this shortcut only adds channels."
            )
        before = (outputs - inputs) // 2
        found = cls([], stride)
        found.index = F.pad(torch.arange(inputs), (before, outputs - inputs - before), value=-1)  # no list of millions
        return found

    def forward(self, input: Tensor) -> Tensor:
        thinned = input[:, :, :: self.stride, :: self.stride]
        padded = F.pad(thinned, (0, 0, 0, 0, 0, 1))  # the last channel is the zero that index -1 points to
        return padded[:, self.index]

    def extra_repr(self) -> str:
        return f"{len(self.index)} channels, {int((self.index < 0).sum())} of them zero, stride {self.stride}"
