"""Networks whose weights depend on a seed alone, and what a method sees of them."""

import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View

DOUBLE = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that depend on the seed alone, norms that are not the identity, double precision."""
    generator = seeded(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.weight /= module.weight[0].numel() ** 0.5
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return model.double().eval()


class Branches(nn.Module):
    """A residual block, a depthwise-separable layer, a dense connection, and a linear layer behind a flatten."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.Conv2d(8, 7, 1)
        self.extra = nn.Conv2d(7, 5, 3, padding=1)
        self.join = nn.Conv2d(12, 6, 3)
        self.fc1, self.fc2 = nn.Linear(24, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        x = F.relu(self.pointwise(F.relu(self.depthwise(x))))
        x = F.relu(self.join(torch.cat([x, F.relu(self.extra(x))], 1)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 14, 3, stride=2), nn.ReLU(),
        nn.Conv2d(14, 11, 2), nn.ReLU(), nn.Flatten(), nn.Linear(44, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


NETWORKS = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 4)), (12,)),
    "chain": (chain, (2, 7, 7)),
    "branches": (Branches, (2, 8, 8)),
}  # fmt: skip


def network(kind: str, seed: int = 0):
    """A network and batches of inputs for it."""
    build, shape = NETWORKS[kind]
    with torch.random.fork_rng(devices=[]):
        model = randomised(build(), seed)
    x = torch.randn(12, *shape, generator=seeded(seed + 1), dtype=DOUBLE)
    return model, [(x[:5], torch.zeros(5, dtype=torch.long)), (x[5:], torch.zeros(7, dtype=torch.long))]


def view_of(model, batches, method, seed=0) -> View:
    """What the method is shown."""
    example = batches[0][0][:1]
    sites = find_sites(model, channels=method.unit == "channel", example_input=example, refuses=method.refuses)
    return View(model, sites, Masks(), batches, F.cross_entropy, seeded(seed), example)


def inputs_by_hand(model, names, batches) -> dict[str, torch.Tensor]:
    """What the layers are given, with hooks of our own."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda m, given, n=name: seen[n].append(given[0].detach()))
        for name in names
    ]
    with torch.no_grad():
        for x, _ in batches:
            model(x)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(maps) for name, maps in seen.items()}


def near(mean, expected, spread, samples: int, errors: float = 4.5):
    """Within so many standard errors; where nothing varies, equal."""
    noise = spread / samples**0.5
    assert (abs(mean - expected) <= errors * noise + 1e-9).all()
    return noise


CHANNEL_METHODS = ["pfp", "pfp_random", "pfp_top", "thinet"]
