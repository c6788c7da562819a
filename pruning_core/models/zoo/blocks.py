"""Small networks made of one kind of residual block, in which only widths inside a block are pruned (i-SpaSP's chapter)."""

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import Shape, conv2d, family, norm2d, scaled
from pruning_core.models.zoo.initialisers import he_fan_in, he_fan_out, initialiser
from pruning_core.models.zoo.resnet import BasicBlock


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation (Sandler et al. 2018).

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride); the input is added where shapes allow.
    """

    is_block = True

    def __init__(self, inputs: int, outputs: int, expanded: int, stride: int, norm: str):
        super().__init__()
        self.expand, self.bn1 = conv2d(inputs, expanded, 1, 1, norm), norm2d(norm, expanded)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded, bias=norm == "none")
        self.bn2 = norm2d(norm, expanded)
        self.project, self.bn3 = conv2d(expanded, outputs, 1, 1, norm), norm2d(norm, outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self.bn1(self.expand(x)))
        hidden = F.relu6(self.bn2(self.depthwise(hidden)))
        out = self.bn3(self.project(hidden))
        return x + out if self.skip else out


class BlockNet(nn.Module):
    """A 3x3 stem of ``stem`` channels, blocks, average pool, classifier: (N, inputs, H, W) -> (N, classes)."""

    def __init__(self, inputs: int, stem: int, blocks: list[nn.Module], features: int, classes: int, norm: str):
        super().__init__()
        self.conv1, self.bn1 = conv2d(inputs, stem, 3, 1, norm), norm2d(norm, stem)
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _basic4(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Four basic blocks of 32 channels at full resolution."""
    channels = scaled(32, width)
    blocks: list[nn.Module] = [BasicBlock(channels, channels, 1, "B", norm) for _ in range(4)]
    return BlockNet(shape[0], channels, blocks, channels, classes, norm)


def _inverted4(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Four inverted residuals with expansion 6: 16 channels, then 24 at half the resolution."""
    small, large = scaled(16, width), scaled(24, width)
    sizes = ((small, small, 1), (small, large, 2), (large, large, 1), (large, large, 1))
    blocks: list[nn.Module] = [InvertedResidual(i, o, 6 * i, stride, norm) for i, o, stride in sizes]
    return BlockNet(shape[0], small, blocks, large, classes, norm)


MODELS = family({
    "basic4": (_basic4, initialiser(conv=he_fan_in)),
    "inverted4": (_inverted4, initialiser(conv=he_fan_out)),
})  # fmt: skip
