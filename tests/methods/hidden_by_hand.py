"""Networks of many shapes, and i-SpaSP the slow way on them: all samples at once, by autograd."""

import copy
import weakref

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.methods.base import METHODS
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.models.zoo.resnet import Bottleneck

DOUBLE = torch.float64


def plain(hidden, layers, s, iterations=20, owner=None, importance="signed", activation="sum"):
    """i-SpaSP as the paper's sheet writes it down, by autograd over all samples at once.

    ``owner[i]`` is the channel of input i, -1 for inputs that always stay. Gives (y, proposals, support, ||V||^2) of every
    iteration; the residual is that *before* it.
    """
    maps, exact = hidden.detach().double(), copy.deepcopy(layers).double().eval()
    owner = np.arange(maps.shape[1]) if owner is None else np.asarray(owner)
    size = int(owner.max()) + 1

    def kept(channels):
        inputs = torch.tensor([c in channels or c < 0 for c in owner.tolist()])
        return maps * inputs.view(1, -1, *[1] * (maps.dim() - 2))

    def summed(values):
        found = np.zeros(size)
        for i, value in enumerate(values.transpose(0, 1).flatten(1).sum(1).tolist()):
            if owner[i] >= 0:
                found[owner[i]] += value
        return found

    measured = {"sum": maps, "absolute": maps.abs(), "norm": maps**2}[activation]
    h = summed(measured) ** (0.5 if activation == "norm" else 1)
    support: set[int] = set()
    steps = []
    for t in range(iterations):
        leaf = maps.clone().requires_grad_(True)
        dense = exact(leaf)
        with torch.no_grad():
            # Before the first iteration nothing is kept and nothing is put out, not even an offset.
            pruned = exact(kept(support)) - (0 if t else exact(torch.zeros_like(maps)))
        loss = 0.5 * (dense - pruned.detach()).square().sum()
        loss.backward()
        y = summed(leaf.grad)
        rank = -np.abs(y) if importance == "absolute" else -y
        proposals = sorted(range(size), key=lambda c: (rank[c], c))[: 2 * s]
        support = set(sorted(set(proposals) | support, key=lambda c: (-h[c], c))[:s])
        steps.append((y, sorted(proposals), sorted(support), 2 * loss.item()))
    return steps


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrices(seed: int, samples=9, hidden=12, outputs=4):
    """Non-negative hidden maps and weights of either sign."""
    generator = seeded(seed)
    maps = torch.randn(samples, hidden, generator=generator, dtype=DOUBLE).abs()
    # Channels of different sizes, so that the order of h is not that of the noise alone.
    maps = maps * torch.rand(hidden, generator=generator, dtype=DOUBLE)
    return maps, torch.randn(outputs, hidden, generator=generator, dtype=DOUBLE)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with norms that are not the identity, and random weights that depend on the seed alone."""
    generator = seeded(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.5)
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / fan**0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return model.double()


def conv_reader(norm=True, groups=1):
    layers = [nn.Conv2d(12, 6, 3, padding=1, groups=groups)] + ([nn.BatchNorm2d(6)] if norm else [])
    return randomised(nn.Sequential(*layers), 3).float().eval()


def prepared(chunks, layers, owner, alive=None) -> Hidden:
    owner = torch.as_tensor(owner)
    size = int(owner.max()) + 1
    alive = torch.ones(size, dtype=torch.bool) if alive is None else alive
    return Hidden(lambda: iter(chunks), layers, owner, size, alive)


def alive_channels(result) -> dict[str, list[int]]:
    return {name: g.alive(result.masks).nonzero().flatten().tolist() for name, g in result.sites.groups.items()}


@torch.no_grad()
def inputs_of_layer(model, layer: str, x) -> torch.Tensor:
    """What the layer is given, for all samples at once."""
    seen = []
    module = model.get_submodule(layer)
    handle = module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].clone()))
    model(x)
    handle.remove()
    return seen[0].flatten(0, -2) if isinstance(module, nn.Linear) else seen[0]


class Concat(nn.Module):
    """Two branches that one layer reads side by side."""

    def __init__(self, act=F.relu):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 9, 3, padding=1), nn.Conv2d(1, 7, 1)
        self.read, self.norm = nn.Conv2d(16, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head, self.act = nn.Linear(6, 4), act

    def forward(self, x):
        both = torch.cat([self.act(self.a(x)), self.act(self.b(x))], 1)
        return self.head(F.relu(self.norm(self.read(both))).mean((2, 3)))


def bottleneck():
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    return nn.Sequential(stem, Bottleneck(16, 8, 2, "B", "batch"), head)


def heads_and_mlp(block, kept_heads=1, kept_units=13):
    attention = f"blocks.{block}.self_attention"
    return [
        (f"{attention}.q", f"{attention}.out", None, np.repeat(np.arange(4), 8), kept_heads),
        (f"blocks.{block}.fc1", f"blocks.{block}.fc2", None, np.arange(64), kept_units),
    ]


NETWORKS = {
    "conv conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 11, 3, padding=1), nn.ReLU(), nn.Conv2d(11, 13, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(13, 4, 2),
            nn.Flatten(), nn.Linear(16, 4),
        ),
        # The last convolution's channels are read four columns each.
        [
            ("0", "2", None, np.arange(11), 3), ("2", "4", None, np.arange(13), 4),
            ("4", "6", None, np.repeat(np.arange(4), 4), 1),
        ],
    ),
    "conv norm pool conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(12, 14, 3, padding=1, bias=False), nn.BatchNorm2d(14), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(56, 5),
        ),
        [("0", "4", "5", np.arange(12), 3), ("4", "9", None, np.repeat(np.arange(14), 4), 4)],
    ),
    "perceptron with norms": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 16), nn.BatchNorm1d(16),
            nn.Sigmoid(), nn.Linear(16, 5),
        ),
        [("1", "4", "5", np.arange(20), 4), ("4", "7", None, np.arange(16), 3)],
    ),
    "basic blocks": (
        lambda: pc.build_model("basic4", "digits", width=0.5, seed=0),
        [(f"blocks.{i}.conv1", f"blocks.{i}.conv2", f"blocks.{i}.bn2", np.arange(16), 3 + i) for i in range(4)],
    ),
    "bottleneck": (
        bottleneck,
        [("1.conv1", "1.conv2", "1.bn2", np.arange(8), 2), ("1.conv2", "1.conv3", "1.bn3", np.arange(8), 3)],
    ),
    "inverted residuals": (
        lambda: pc.build_model("inverted4", "digits", width=0.5, seed=0),
        [
            (f"blocks.{i}.expand", f"blocks.{i}.project", f"blocks.{i}.bn3", np.arange(width), width // 4)
            for i, width in enumerate((48, 48, 72, 72))
        ],
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 10, 3, groups=2), nn.BatchNorm2d(10), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4),
        ),
        [("0", "2", "3", np.arange(12) % 6, 2), ("2", "7", None, np.arange(10) % 5, 2)],
    ),
    "concat": (
        Concat,
        [("a", "read", "norm", np.r_[np.arange(9), [-1] * 7], 2), ("b", "read", "norm", np.r_[[-1] * 9, np.arange(7)], 3)],
    ),
    "transformer": (lambda: pc.build_model("vit_tiny", "digits", seed=0), heads_and_mlp(0) + heads_and_mlp(1, 2, 20)),
}  # fmt: skip


def network(kind: str, seed: int = 5):
    build, plan = NETWORKS[kind]
    model = randomised(build(), seed)
    x = torch.randn(23, 1, 8, 8, generator=seeded(seed + 1), dtype=DOUBLE)
    return model, x, plan


def pruned(model, x, plan, method="ispasp", sizes=(10, 9, 4), seed=0, labels=None):
    sizes = [len(x)] if sizes is None else sizes
    labels = [None] * len(sizes) if labels is None else labels.split(sizes)
    widths = {group: int(max(owner)) + 1 for group, _, _, owner, _ in plan}
    removed = {group: 1 - s / widths[group] for group, _, _, _, s in plan}
    batches = list(zip(x.split(sizes), labels, strict=True))
    return pc.prune(model, method, None, across=removed, batches=batches, seed=seed)


def two_sided(act, wide=6) -> nn.Module:
    """Two branches of linear layers side by side, in front of the last layer."""

    class TwoSided(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.read = nn.Linear(4, wide), nn.Linear(4, wide), nn.Linear(2 * wide, 5)

        def forward(self, x):
            return self.read(torch.cat([act(self.a(x)), act(self.b(x))], 1))

    return TwoSided()


def last_linear(seed=0, wide=9, norm=False) -> nn.Module:
    layers = [nn.Linear(6, wide), nn.ReLU(), nn.Linear(wide, 4)]
    if norm:
        layers.append(nn.BatchNorm1d(4))
    return randomised(nn.Sequential(*layers), seed)


def labelled(seed, shape, classes=4, sizes=(7, 8)):
    generator = seeded(seed)
    xs = [torch.randn((n, *shape), generator=generator, dtype=DOUBLE) for n in sizes]
    return [(x, torch.randint(classes, (len(x),), generator=generator)) for x in xs]


class Watched:
    """Hands out chunks and counts how many of those handed out are still alive."""

    def __init__(self, shape=(4, 12, 5, 5), count=9):
        self.shape, self.count = shape, count
        self.alive: list[weakref.ref] = []
        self.most = self.passes = 0

    def __call__(self):
        self.passes += 1
        for i in range(self.count):
            chunk = torch.randn(self.shape, generator=seeded(i)).abs()
            self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(chunk)]
            self.most = max(self.most, len(self.alive))
            yield chunk
            del chunk


def never():
    raise AssertionError("the maps were computed before the arguments were looked at")
    yield


LAYERWISE = sorted(name for name in METHODS if name in ("ispasp", "activation_sum", "imitation", "greedy"))
