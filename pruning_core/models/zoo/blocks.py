"""Small networks made of one kind of residual block, in which only widths inside a block are pruned (i-SpaSP's chapter)."""

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import ModelInfo, Shape, he_fan_in, he_fan_out, initialiser, norm2d, scaled
from pruning_core.models.zoo.resnet import BasicBlock, _conv


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation (Sandler et al. 2018).

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride); the input is added where shapes allow.
    """

    is_block = True

    def __init__(self, inputs: int, outputs: int, expanded: int, stride: int, norm: str):
        super().__init__()
        bias = norm == "none"
        self.expand, self.bn1 = nn.Conv2d(inputs, expanded, 1, bias=bias), norm2d(norm, expanded)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded, bias=bias)
        self.bn2 = norm2d(norm, expanded)
        self.project, self.bn3 = nn.Conv2d(expanded, outputs, 1, bias=bias), norm2d(norm, outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self.bn1(self.expand(x)))
        hidden = F.relu6(self.bn2(self.depthwise(hidden)))
        out = self.bn3(self.project(hidden))
        return x + out if self.skip else out


class BlockNet(nn.Module):
    """Stem, blocks, average pool, classifier: (N, C, H, W) -> (N, classes)."""

    def __init__(self, stem: nn.Conv2d, norm: nn.Module, blocks: list[nn.Module], features: int, classes: int):
        super().__init__()
        self.conv1, self.bn1 = stem, norm
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _basic4(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Four basic blocks of 32 channels at full resolution."""
    channels = scaled(32, width)
    blocks: list[nn.Module] = [BasicBlock(channels, channels, 1, "B", norm) for _ in range(4)]
    return BlockNet(_conv(shape[0], channels, 3, 1, norm), norm2d(norm, channels), blocks, channels, classes)


def _inverted4(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Four inverted residuals with expansion 6: 16 channels, then 24 at half the resolution."""
    small, large = scaled(16, width), scaled(24, width)
    sizes = ((small, small, 1), (small, large, 2), (large, large, 1), (large, large, 1))
    blocks: list[nn.Module] = [InvertedResidual(i, o, scaled(6 * i, 1.0), stride, norm) for i, o, stride in sizes]
    return BlockNet(_conv(shape[0], small, 3, 1, norm), norm2d(norm, small), blocks, large, classes)


MODELS = {
    "basic4": ModelInfo(
        build=_basic4,
        initialise=initialiser(conv=he_fan_in),
        paper="wolfe2022ispasp",
        about="a stem and four basic blocks of 32 channels; ours, for i-SpaSP's chapter",
        parameters=74_922,
        shape=(1, 8, 8),
    ),
    "inverted4": ModelInfo(
        build=_inverted4,
        initialise=initialiser(conv=he_fan_out),
        paper="wolfe2022ispasp",
        about="a stem and four inverted residuals with expansion 6; ours, for i-SpaSP's chapter",
        parameters=27_578,
        shape=(1, 8, 8),
    ),
}
