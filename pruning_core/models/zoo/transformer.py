"""A small vision transformer for small images (after Dosovitskiy et al. 2021), whose attention heads can be pruned."""

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.models.layers.attention import PrunableAttention
from pruning_core.models.zoo.base import Shape, scaled

HEAD_DIM = 8


class Block(nn.Module):
    """Attention and a perceptron with one hidden layer, each behind a layer norm and inside a shortcut.

    Input and output (N, tokens, ``size``).
    """

    is_block = True

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.self_attention = PrunableAttention(size, heads, head_dim=HEAD_DIM, batch_first=True)
        self.norm2 = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, 2 * size)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches as tokens, a learned position for each, two blocks, the mean over the tokens, a linear layer.

    Input (N, C, H, W), output (N, classes). A patch is a quarter of the height wide and high.
    """

    def __init__(self, shape: Shape, classes: int, width: float, norm: str, *, size: int, heads: int):
        super().__init__()
        channels, rows, columns = shape
        patch = max(1, rows // 4)
        if rows % patch or columns % patch:
            raise BadInput(
                f"vit_tiny cuts images into patches of {patch}x{patch} (a quarter of the height), and {rows}x{columns} "
                "is no multiple of that."
            )
        # The size of a head stays the same, so that a head means the same in every width.
        size, heads = scaled(size, width), scaled(heads, width)
        self.patches = nn.Conv2d(channels, size, patch, patch)
        self.position = nn.Parameter(torch.zeros(1, (rows // patch) * (columns // patch), size))
        self.blocks = nn.Sequential(Block(size, heads), Block(size, heads))
        self.norm = nn.LayerNorm(size)
        self.linear = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.linear(self.norm(self.blocks(x)).mean(1))
