"""A small vision transformer for small images (after Dosovitskiy et al. 2021), whose attention heads can be pruned."""

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.models.layers.attention import PrunableAttention
from pruning_core.models.zoo.base import Shape, family, scaled
from pruning_core.models.zoo.initialisers import initialiser

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

    Input (N, C, H, W), output (N, classes).
    """

    def __init__(self, shape: Shape, classes: int, size: int, heads: int, patch: int):
        super().__init__()
        channels, height, width = shape
        self.patches = nn.Conv2d(channels, size, patch, patch)
        self.position = nn.Parameter(torch.zeros(1, (height // patch) * (width // patch), size))
        self.blocks = nn.Sequential(Block(size, heads), Block(size, heads))
        self.norm = nn.LayerNorm(size)
        self.linear = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.linear(self.norm(self.blocks(x)).mean(1))


def _vit_tiny(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    patch = max(1, shape[1] // 4)
    if shape[1] % patch or shape[2] % patch:
        raise BadInput(
            f"vit_tiny cuts images into patches of {patch}x{patch} (a quarter of the height), and {shape[1]}x{shape[2]} "
            "is no multiple of that."
        )
    # The size of a head stays the same, so that a head means the same in every width.
    return VisionTransformer(shape, classes, scaled(32, width), scaled(4, width), patch)


def _xavier(layer: nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


_layers = initialiser(linear=_xavier)


def _initialise(model: nn.Module) -> None:
    _layers(model)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, VisionTransformer):
            nn.init.normal_(module.position, std=0.02)


MODELS = family({"vit_tiny": (_vit_tiny, _initialise)})
