"""Networks of convolutions: segmenters, gates, splits, pyramids, sequences and volumes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.case import Case, noise


def stage(before: int, after: int, act=nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), act())


class CroppingUNet(nn.Module):
    """As the first one: no padding, so what crosses over is cropped to the size of what comes up."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3)
        self.bottom, self.up2, self.up1 = nn.Conv2d(12, 16, 3), nn.ConvTranspose2d(16, 12, 2, 2), nn.Conv2d(24, 10, 3)
        self.last = nn.ConvTranspose2d(10, 8, 2, 2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        one = self.down1(x).relu()
        two = self.down2(F.max_pool2d(one, 2)).relu()
        y = self.up2(self.bottom(F.max_pool2d(two, 2)).relu())
        y = self.up1(torch.cat([self.cropped(two, y), y], 1)).relu()
        y = self.last(y)
        return self.out(torch.cat([self.cropped(one, y), y], 1))

    @staticmethod
    def cropped(x, like):
        dy, dx = (x.shape[2] - like.shape[2]) // 2, (x.shape[3] - like.shape[3]) // 2
        return x[:, :, dy : dy + like.shape[2], dx : dx + like.shape[3]]


class AttentionGate(nn.Module):
    """Two features of equal width meet, and one map of weights scales every channel of the first."""

    def __init__(self):
        super().__init__()
        self.skip, self.deep = stage(3, 8), nn.Sequential(stage(3, 12), nn.MaxPool2d(2))
        self.ask, self.key, self.psi = nn.Conv2d(12, 6, 1), nn.Conv2d(8, 6, 1, stride=2), nn.Conv2d(6, 1, 1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip, deep = self.skip(x), self.deep(x)
        weight = self.psi(F.relu(self.ask(deep) + self.key(skip), inplace=True)).sigmoid()
        return self.out(skip * F.interpolate(weight, scale_factor=2, mode="bilinear", align_corners=False))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.conv = stage(3, 16), stage(16, 16, nn.SiLU)
        self.reduce, self.expand = nn.Linear(16, 6), nn.Linear(6, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.enter(x)
        y = self.conv(x)
        b, c, _, _ = y.size()
        weight = self.expand(self.reduce(F.adaptive_avg_pool2d(y, 1).view(b, c)).relu()).sigmoid().view(b, c, 1, 1)
        x = x + y * weight.expand_as(y)
        return self.head(x.mean([2, 3]))


class BlockAttention(nn.Module):
    """CBAM: over channels by one perceptron used twice, over space by the largest and the mean of all channels."""

    def __init__(self):
        super().__init__()
        self.enter, self.inside, self.body = stage(3, 8), stage(8, 10), stage(10, 8)
        self.shared = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 8, 1, bias=False))
        self.space, self.tail, self.head = nn.Conv2d(2, 1, 3, padding=1), stage(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.body(self.inside(self.enter(x)))
        x = x * (self.shared(F.adaptive_max_pool2d(x, 1)) + self.shared(F.adaptive_avg_pool2d(x, 1))).sigmoid()
        seen = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return self.head(self.tail(x * self.space(seen).sigmoid()).mean((2, 3)))


class NeighbouringChannels(nn.Module):
    """ECA: a convolution along the channels, each of which sees those beside it."""

    def __init__(self):
        super().__init__()
        self.enter, self.body, self.after = stage(3, 8), stage(8, 9), stage(9, 7)
        self.along, self.head = nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Linear(7, 3)

    def forward(self, x):
        x = self.body(self.enter(x))
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.along(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1).sigmoid()
        return self.head(self.after(x * y.expand_as(x)).amax((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = stage(3, 8, nn.Hardswish)
        self.expand, self.expand_norm = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth, self.depth_norm = nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.project_norm = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu6(self.expand_norm(self.expand(x)))
        y = F.hardswish(self.depth_norm(self.depth(y)))
        y = self.project_norm(self.project(y))
        y += x
        x = y
        return self.head(F.avg_pool2d(x, x.size()[2:]).squeeze(-1).squeeze(-1))


class Cardinality(nn.Module):
    """Grouped convolutions between pointwise ones (ResNeXt), and one of several outputs for each input."""

    def __init__(self):
        super().__init__()
        self.enter = stage(4, 16)
        self.reduce, self.grouped, self.restore = (
            stage(16, 12),
            nn.Conv2d(12, 12, 3, 1, 1, groups=3),
            nn.Conv2d(12, 16, 1),
        )
        self.multiplied, self.head = nn.Conv2d(16, 32, 3, groups=16), nn.Linear(32, 3)

    def forward(self, x):
        x = self.enter(x)
        x = (x + self.restore(self.grouped(self.reduce(x)).relu())).relu()
        return self.head(self.multiplied(x).relu().mean((-2, -1)))


class Shuffled(nn.Module):
    """ShuffleNet's first: grouped pointwise convolutions with a shuffle between them."""

    def __init__(self, groups: int = 3):
        super().__init__()
        self.groups, self.stem = groups, stage(2, 12)
        self.squeeze = nn.Conv2d(12, 6, 1, groups=groups, bias=False)
        self.norm, self.depth = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, 1, 1, groups=6)
        self.widen, self.tail, self.head = nn.Conv2d(6, 12, 1, groups=groups), stage(12, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.norm(self.squeeze(x)))
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        x = F.relu(x + self.widen(self.depth(y)))
        return self.head(self.tail(x).mean((2, 3)))


class SubPixel(nn.Module):
    """ESPCN with a body: pixels become channels, and channels pixels again."""

    def __init__(self):
        super().__init__()
        self.down, self.first, self.second = nn.PixelUnshuffle(2), nn.Conv2d(12, 10, 3, padding=1), stage(10, 8)
        self.up, self.shuffle, self.last = (
            nn.Conv2d(8, 24, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(6, 3, 3, padding=1),
        )

    def forward(self, x):
        return x + self.last(F.leaky_relu(self.shuffle(self.up(self.second(self.first(self.down(x)).tanh()))), 0.1))


class Dense(nn.Module):
    """Every layer reads all before it through a norm of its own; a transition halves them."""

    def __init__(self, growth: int = 4, layers: int = 3):
        super().__init__()
        self.stem, width = nn.Conv2d(3, 8, 3, padding=1), 8
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers):
            self.norms.append(nn.BatchNorm2d(width))
            self.convs.append(nn.Conv2d(width, growth, 3, padding=1, bias=False))
            width += growth
        self.transition, self.head = (
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 10, 1)),
            nn.Linear(10, 3),
        )

    def forward(self, x):
        seen = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            seen.append(conv(norm(torch.cat(seen, 1)).relu()))
        return self.head(F.avg_pool2d(self.transition(torch.cat(seen, dim=1)), 2).amax((2, 3)))


@dataclass
class Found:
    scores: list[Tensor]
    boxes: list[Tensor]
    features: tuple[Tensor, ...] | None = None


class Pyramid(nn.Module):
    """Features of three sizes, added from the top down; two heads read all of them."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([stage(3, 8), stage(8, 12), stage(12, 16)])
        self.lateral = nn.ModuleDict({f"p{i}": nn.Conv2d(width, 10, 1) for i, width in enumerate((8, 12, 16))})
        self.smooth = nn.ModuleList([nn.Conv2d(10, 10, 3, padding=1) for _ in range(3)])
        self.score, self.box = (
            nn.Sequential(nn.Conv2d(10, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 2, 1)),
            nn.Conv2d(10, 4, 1),
        )

    def forward(self, x):
        seen = []
        for i, layer in enumerate(self.body):
            x = layer(x if i == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            seen.append(self.lateral[f"p{i}"](x))
        for i in (1, 0):
            seen[i] = seen[i] + F.interpolate(seen[i + 1], size=seen[i].shape[-2:], mode="nearest")
        seen = [smooth(y) for smooth, y in zip(self.smooth, seen, strict=True)]
        return Found([self.score(y) for y in seen], [self.box(y).relu() for y in seen])


class Gated(nn.Module):
    """Half of the channels says how much of the other half passes, written in the three usual ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 12, 3), nn.Conv2d(6, 14, 1)
        self.norm, self.head = nn.BatchNorm2d(14), nn.Linear(7, 3)

    def forward(self, x):
        value, gate = self.first(x).chunk(2, dim=1)
        x = F.glu(self.second(value * gate.sigmoid()), dim=1)
        x = self.norm(self.third(x))
        half = x.shape[1] // 2
        x = x[:, :half].tanh() * x[:, half:].sigmoid()
        return self.head(x.flatten(2).mean(-1))


class Unequal(nn.Module):
    """Three unequal parts go their own ways and come back in another order (written-out sizes, as most people do)."""

    def __init__(self):
        super().__init__()
        self.enter, self.one, self.two = (
            stage(3, 14),
            nn.Conv2d(4, 5, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
        )
        self.join, self.wide, self.head = nn.Conv2d(15, 9, 1), stage(9, 11), nn.Linear(11, 3)

    def forward(self, x):
        a, b, c = self.enter(x).split([4, 6, 4], dim=1)
        x = self.join(torch.cat((self.two(b), c, self.one(a)), 1))
        return self.head(self.wide(x).mean((2, 3)))


class Hierarchical(nn.Module):
    """Res2Net: four slices of equal width, each convolved after the sum with the one before."""

    def __init__(self):
        super().__init__()
        self.enter, self.tail, self.head = stage(3, 16), stage(16, 12), nn.Linear(12, 3)
        self.convs = nn.ModuleList([stage(4, 4) for _ in range(3)])

    def forward(self, x):
        parts = torch.chunk(self.enter(x), 4, 1)
        out, y = [parts[0]], 0
        for conv, part in zip(self.convs, parts[1:], strict=True):
            y = conv(part + y)
            out.append(y)
        return self.head(self.tail(torch.cat(out, 1)).amax((2, 3)))


class Ghost(nn.Module):
    """Half of the features are cheap copies by a depthwise convolution; what is too much is sliced off."""

    def __init__(self):
        super().__init__()
        self.first, self.cheap = (
            stage(3, 8),
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU()),
        )
        self.next, self.head = stage(15, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.first(x)
        x = torch.cat([x, self.cheap(x)], dim=1)[:, :15, :, :]
        return self.head(self.next(x).mean((2, 3)))


class Focus(nn.Module):
    """YOLO: four slices of the pixels become channels; pools of several sizes; anchors by view and permute."""

    def __init__(self):
        super().__init__()
        self.focus, self.reduce, self.spread = stage(12, 10, nn.SiLU), stage(10, 6), stage(24, 12)
        self.detect = nn.Conv2d(12, 3 * 7, 1)
        self.register_buffer("anchors", torch.linspace(0.5, 2, 6).view(1, 3, 1, 1, 2), persistent=False)

    def forward(self, x):
        x = self.focus(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1))
        x = self.reduce(x)
        x = self.spread(torch.cat([x] + [F.max_pool2d(x, k, 1, k // 2) for k in (3, 5, 7)], 1))
        b, _, h, w = x.shape
        y = self.detect(x).view(b, 3, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        size = (y[..., 2:4] * 2) ** 2 * self.anchors
        return torch.cat((y[..., :2], size, y[..., 4:]), -1).view(b, -1, 7)


class NonLocal(nn.Module):
    """Every place attends to every other one: queries, keys and values by 1x1 convolutions, and bmm."""

    def __init__(self):
        super().__init__()
        self.enter, self.theta, self.phi, self.g = (
            stage(3, 10),
            nn.Conv2d(10, 6, 1),
            nn.Conv2d(10, 6, 1),
            nn.Conv2d(10, 8, 1),
        )
        self.out, self.gamma, self.head = nn.Conv2d(8, 10, 1), nn.Parameter(torch.full((1,), 0.3)), nn.Linear(10, 3)

    def forward(self, x):
        x = self.enter(x)
        b, _, h, w = x.shape
        q = self.theta(x).view(b, -1, h * w).permute(0, 2, 1)
        k, v = self.phi(x).view(b, -1, h * w), self.g(x).view(b, -1, h * w)
        weight = torch.bmm(q, k).softmax(-1)
        y = torch.bmm(v, weight.transpose(1, 2)).view(b, -1, h, w)
        return self.head((x + self.gamma * self.out(y)).mean((2, 3)))


class WithCoordinates(nn.Module):
    """Two channels that say where a pixel lies are added before a convolution, made anew each time."""

    def __init__(self):
        super().__init__()
        self.enter, self.body, self.head = stage(2, 8), nn.Conv2d(10, 9, 3), nn.Conv2d(9, 2, 1)

    def forward(self, x):
        x = self.enter(x)
        b, _, h, w = x.shape
        ys = torch.linspace(-1, 1, h, dtype=x.dtype, device=x.device).view(1, 1, h, 1).expand(b, 1, h, w)
        xs = torch.linspace(-1, 1, w, dtype=x.dtype, device=x.device).view(1, 1, 1, w).expand(b, 1, h, w)
        return self.head(self.body(torch.cat([ys, x, xs], 1)).relu())


class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 24, 3), nn.Conv2d(8, 12, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x)
        x = x.view(x.size(0), -1, 3, x.size(2), x.size(3)).max(2).values
        x = self.second(x)
        x = torch.maximum(x[:, ::2], x[:, 1::2])
        return self.head(x.mean((2, 3)))


class Dilated(nn.Module):
    """A temporal network: causal padding cut off behind, weight norm, a residual of another width."""

    def __init__(self, norm=nn.utils.parametrizations.weight_norm):
        super().__init__()
        self.first = nn.ModuleList()
        for i, width in enumerate((4, 10)):
            self.first.append(norm(nn.Conv1d(width, 10, 3, padding=2 * 2**i, dilation=2**i)))
        self.second = nn.ModuleList([nn.Conv1d(10, 10, 3, padding=2 * 2**i, dilation=2**i) for i in range(2)])
        self.match, self.drop, self.head = nn.Conv1d(4, 10, 1), nn.Dropout(0.2), nn.Linear(10, 3)

    def forward(self, x):
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            y = self.drop(first(x)[..., : -(2 * 2**i)].relu())
            y = self.drop(second(y)[:, :, : -(2 * 2**i)].relu())
            x = F.relu(y + (self.match(x) if i == 0 else x))
        return self.head(x[:, :, -1])


class Wave(nn.Module):
    """WaveNet: tanh times sigmoid of two convolutions, residual and skip by one, sums of skips."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv1d(1, 8, 1)
        self.filters = nn.ModuleList([nn.Conv1d(8, 10, 2, dilation=2**i) for i in range(3)])
        self.gates = nn.ModuleList([nn.Conv1d(8, 10, 2, dilation=2**i) for i in range(3)])
        self.both = nn.ModuleList([nn.Conv1d(10, 8 + 6, 1) for _ in range(3)])
        self.end, self.out = nn.Conv1d(6, 9, 1), nn.Conv1d(9, 5, 1)

    def forward(self, x):
        x, skips = self.enter(x), 0
        for i in range(3):
            y = self.both[i](torch.tanh(self.filters[i](x)) * torch.sigmoid(self.gates[i](x)))
            rest, skip = torch.split(y, [8, 6], dim=1)
            x = x[:, :, -rest.size(2) :] + rest
            skips = skip if i == 0 else skips[:, :, -skip.size(2) :] + skip
        return self.out(self.end(skips.relu()).relu())


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.PReLU(8))
        self.down, self.grouped = nn.Conv3d(8, 12, 2, 2), nn.Conv3d(12, 12, 3, 1, 1, groups=4)
        self.up, self.out = nn.ConvTranspose3d(12, 8, 2, 2, groups=2), nn.Conv3d(16, 2, 1)
        self.norm = nn.InstanceNorm3d(12, affine=True)

    def forward(self, x):
        x = self.enter(x)
        y = self.up(F.elu(self.norm(self.grouped(self.down(x)))))
        return self.out(torch.cat([x, y], 1))


class FlattenedThree(nn.Module):
    """Convolution to linear layers: by view with -1, behind a permute, through a BatchNorm1d."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 6, 3), nn.Conv2d(2, 5, 3, stride=2)
        self.norm, self.first, self.second, self.out = (
            nn.BatchNorm1d(54),
            nn.Linear(54, 10),
            nn.Linear(20, 10),
            nn.Linear(10, 3),
        )

    def forward(self, x):
        a = F.max_pool2d(self.conv(x), 2)
        b = self.other(x).relu()[:, :, :2, :2].permute(0, 2, 3, 1)
        return self.out((self.first(self.norm(a.view(a.size(0), -1))) + self.second(b.reshape(b.shape[0], -1))).relu())


class Style(nn.Module):
    """InstanceNorm with running statistics and without, reflections, and an upsampling convolution."""

    def __init__(self):
        super().__init__()
        self.enter, self.first = (
            nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
            nn.InstanceNorm2d(8, affine=True),
        )
        self.down, self.second = nn.Conv2d(8, 12, 3, 2, 1), nn.InstanceNorm2d(12, affine=True, track_running_stats=True)
        self.inside = nn.Sequential(
            nn.Conv2d(12, 9, 3, padding=1), nn.InstanceNorm2d(9), nn.Mish(), nn.Conv2d(9, 12, 3, padding=1)
        )
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(12, 7, 3), nn.Hardtanh(-2, 2)
        )
        self.out = nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, x):
        x = self.second(self.down(self.first(self.enter(x)).relu()))
        return self.out(self.up(x + self.inside(x))).tanh()


class Blurred(nn.Module):
    """A fixed low-pass filter in a buffer, one for each channel, with the number of channels written down."""

    def __init__(self, counted: bool):
        super().__init__()
        self.counted, self.channels = counted, 10
        self.enter, self.inside, self.next, self.head = stage(3, 8), stage(8, 10), stage(10, 9), nn.Linear(9, 3)
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = (line[:, None] * line[None, :] / 16)[None, None].repeat(10, 1, 1, 1)
        self.register_buffer("kernel", kernel, persistent=counted)

    def forward(self, x):
        x = self.inside(self.enter(x))
        groups = x.shape[1] if self.counted else self.channels
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=groups)
        return self.head(self.next(x).mean((2, 3)))


class Unfolded(nn.Module):
    """A convolution by hand: unfold, a matrix product with a bare parameter, fold."""

    def __init__(self):
        super().__init__()
        self.enter, self.weight, self.tail, self.head = (
            stage(2, 6),
            nn.Parameter(torch.randn(9, 6 * 9) / 7),
            stage(9, 8, nn.SiLU),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.enter(x)
        columns = F.unfold(x, 3, padding=1)
        y = F.fold(self.weight @ columns, x.shape[-2:], 1)
        return self.head(self.tail(y).mean((2, 3)))


class UpInParts(nn.Module):
    """Down, and up again by transposed convolutions in four parts and channel by channel."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 10, 3, 2, 1), nn.ReLU(), stage(10, 16))
        self.parts = nn.Sequential(nn.ConvTranspose2d(16, 24, 4, 2, 1, groups=4), nn.BatchNorm2d(24), nn.ReLU())
        self.each, self.out = nn.ConvTranspose2d(24, 24, 3, padding=1, groups=24), nn.ConvTranspose2d(24, 3, 1)

    def forward(self, x):
        return self.out(self.each(self.parts(self.down(x))).relu())


IMAGE = (noise(3, 8, 8),)
PYRAMID = "body.0.0 body.1.0 body.2.0 lateral.p0 lateral.p1 lateral.p2 smooth.0 score.0"
MIXED = {"channels of body.0": "max in the forward pass", "channels of space": "all together"}
BESIDE = {"channels of body.0": "convolution in Conv1d 'along'"}
PLACES = {"channels of theta": "bmm", "channels of phi": "bmm"}
REMADE = "remove_parametrizations"
CASES = {
    "cropping U-Net": Case(CroppingUNet, (noise(1, 24, 24),), "down1 down2 bottom up2 up1 last"),
    "attention gate": Case(AttentionGate, IMAGE, "skip.0 deep.0.0 ask key"),
    "squeeze and excite": Case(SqueezeExcite, IMAGE, "enter.0 conv.0 reduce expand"),
    "attention over channels and space": Case(BlockAttention, IMAGE, "enter.0 inside.0 shared.0 tail.0", MIXED),
    "neighbouring channels": Case(NeighbouringChannels, IMAGE, "enter.0 after.0", BESIDE),
    "inverted residual": Case(InvertedResidual, IMAGE, "stem.0 expand depth project"),
    "cardinality": Case(Cardinality, (noise(4, 8, 8),), "enter.0 reduce.0 grouped restore multiplied"),
    "channel shuffle": Case(Shuffled, (noise(2, 8, 8),), "stem.0 tail.0"),
    "sub-pixel": Case(SubPixel, IMAGE, "first second.0 up"),
    "dense": Case(Dense, IMAGE, "stem convs.0 convs.1 convs.2 transition.2"),
    "pyramid": Case(Pyramid, (noise(3, 9, 7),), PYRAMID),
    "gated": Case(Gated, IMAGE, "first second third"),
    "unequal parts": Case(Unequal, IMAGE, "join wide.0", {"channels of enter.0": "split"}),
    "hierarchical": Case(Hierarchical, IMAGE, "enter.0 tail.0"),
    "ghost": Case(Ghost, IMAGE, "next.0", {"channels of first.0": "slice"}),
    "focus": Case(Focus, IMAGE, "focus.0 reduce.0 spread.0"),
    "non-local": Case(NonLocal, IMAGE, "enter.0 g out", PLACES),
    "coordinates": Case(WithCoordinates, (noise(2, 8, 8),), "enter.0 body"),
    "maxout": Case(Maxout, IMAGE, "first second"),
    "dilated, weight norm": Case(Dilated, (noise(4, 16),), refused=REMADE),
    "dilated": Case(lambda: Dilated(nn.Identity()), (noise(4, 16),), "first.0 second.0 second.1 match"),
    "wave": Case(Wave, (noise(1, 20),), "filters.0 gates.0 end", {"channels of both.0": "split"}),
    "volume": Case(Volume, (noise(2, 4, 4, 4),), "enter.0 down grouped up"),
    "flattened three ways": Case(FlattenedThree, (noise(2, 8, 8),), "conv other first second"),
    "style": Case(Style, IMAGE, "enter down inside.0 inside.3 up.2"),
    "blurred, counted": Case(lambda: Blurred(True), IMAGE, "enter.0 next.0"),
    "blurred, written down": Case(lambda: Blurred(False), IMAGE, "enter.0 next.0"),
    "up in parts": Case(UpInParts, (noise(2, 8, 8),), "down.0 down.2.0 parts.0 each"),
    "unfolded": Case(Unfolded, (noise(2, 8, 8),), "tail.0"),
}
