"""Small networks, masks and optimizers that the tests of training share."""

import torch
from torch import nn

from pruning_core.masks.masks import Masks
from pruning_core.training.optimizers import Optimizer


def network(seed=0, norm=False, dropout=0.0, hidden=24):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10)]
        return nn.Sequential(*layers[:2], *([nn.BatchNorm1d(hidden)] if norm else []), *layers[2:])


def convolutional(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(72, 10),
        )  # fmt: skip


def some_masks(model, alive=0.3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    return Masks({name: torch.rand(p.shape, generator=generator) < alive for name, p in weights.items()})


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


ALL = [
    Optimizer("sgd", lr=0.05, weight_decay=1e-3),
    Optimizer("sgd", lr=0.05, nesterov=True, clip=0.5, noise=0.01),
    Optimizer("adam", lr=0.005, weight_decay=1e-3, clip=1.0),
    Optimizer("adamw", lr=0.005, weight_decay=0.1),
    Optimizer("rmsprop", lr=0.002, weight_decay=1e-3),
]
