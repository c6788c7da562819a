"""Batch norms fold exactly, and only where nothing else sees what they read."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

import pruning_core as pc
from pruning_core.models import fold_batch_norm


def lively(model: nn.Module) -> nn.Module:
    """In double precision, with statistics, scales and shifts that all matter."""
    generator = torch.Generator().manual_seed(1)
    for norm in norms(model):
        if norm.running_mean is not None:
            nn.init.normal_(norm.running_mean, std=0.5, generator=generator)
            nn.init.uniform_(norm.running_var, 0.5, 2, generator=generator)
        if norm.affine:
            nn.init.uniform_(norm.weight, -1.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    return model.double()


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def left_after_folding(model: nn.Module, *shape: int) -> int:
    """The number of norms that stay; checks that outputs are equal and that the network given is left as it was."""
    model = lively(model)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model.train(), example)
    assert model.training
    assert not any(module.training for module in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        old, new = model.eval()(example), folded(example)
    old, new = (torch.cat(out) if isinstance(out, tuple) else out for out in (old, new))
    assert (old - new).abs().max() <= 1e-12 * old.abs().max()
    return len(norms(folded))


# The norms of a DenseNet in front of its activations stay; those between the two convolutions of a layer fold.
@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("mobilenet_v2", 0), ("densenet121", 62), ("vgg16_bn", 0)])
def test_networks_of_torchvision(name, left):
    assert left_after_folding(torchvision.models.get_model(name, weights=None), 2, 3, 64, 64) == left


@pytest.mark.parametrize(
    ("name", "left"),
    [("vgg8", 0), ("resnet20", 0), ("densenet22", 12), ("wrn28_2", 12), ("lenet300_snip", 0), ("basic4", 0)],
)
def test_networks_of_the_book(name, left):
    model = pc.build_model(name, "digits" if name in ("vgg8", "lenet300_snip", "basic4") else "cifar10", width=0.25)
    assert left_after_folding(model, 3, *model.recipe["shape"]) == left


class Twice(nn.Module):
    """What the convolution gives is read by the norm and by something else."""

    def __init__(self, other):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), other

    def forward(self, x):
        made = self.conv(x)
        return self.other(made, self.norm(made))


class Norms(nn.Module):
    """One convolution for two norms, or two calls of one norm."""

    def __init__(self, first, second):
        super().__init__()
        self.conv, self.norms = nn.Conv2d(2, 2, 3, padding=1), nn.ModuleList([first, second])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x))
        return x


def shared() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    return nn.Sequential(nn.Conv2d(2, 2, 1), norm, nn.Conv2d(2, 2, 1), norm)


def squared(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, inputs, output: output.square())
    return layer


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda: Twice(torch.add), 1), (lambda: Twice(lambda made, normed: (made, normed)), 1),
        (lambda: Twice(lambda made, normed: normed), 0), (lambda: Twice(lambda made, normed: made.flatten(1)), 1),
        (lambda: Norms(nn.BatchNorm2d(2), nn.BatchNorm2d(2)), 2), (shared, 1),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 1),
        (lambda: nn.Sequential(weight_norm(nn.Conv2d(2, 4, 3)), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(squared(nn.Conv2d(2, 4, 3)), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), squared(nn.BatchNorm2d(4))), 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, groups=2), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4)), 0),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4, affine=False)), 0),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 5, bias=False), nn.BatchNorm1d(5)), 0),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 2), nn.BatchNorm1d(2)), 1),  # it norms the tokens
    ],
)  # fmt: skip
def test_a_norm_folds_only_where_it_alone_reads_a_layer(build, left):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert left_after_folding(build(), 3, 2, 8, 8) == left


def test_an_example_may_be_a_tuple_of_arguments():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

        def forward(self, x, y):
            return self.norm(self.one(x + y))

    assert norms(fold_batch_norm(Sum(), (torch.zeros(2, 3), torch.ones(2, 3)))) == []
