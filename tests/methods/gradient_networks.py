"""A residual and a convolutional network for the methods that rank by gradients."""

import torch
from torch import nn

import pruning_core as pc


def residual() -> nn.Module:
    """A residual network in double precision whose norms are not the identity."""
    model = pc.build_model("resnet20", "digits", width=0.25, seed=1).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.2)
    return model


def conv() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 12), nn.Tanh(),
            nn.Linear(12, 10),
        ).double()  # fmt: skip
