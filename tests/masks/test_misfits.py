"""Ways of channels that are hard to follow: they are cut exactly, or fixed and named, and the rest prunes exactly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc


class Upsampling(nn.Module):
    """Channels become pixels."""

    def __init__(self):
        super().__init__()
        self.first, self.wide, self.last = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 20, 3), nn.Conv2d(5, 7, 3)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = F.pixel_shuffle(F.relu(self.wide(F.relu(self.first(x)))), 2)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Decoder(nn.Module):
    """A vector becomes a small map."""

    def __init__(self):
        super().__init__()
        self.code, self.up = nn.Linear(6, 90), nn.ConvTranspose2d(10, 7, 2)
        self.last = nn.Conv2d(7, 2, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.up(F.relu(self.code(x)).view(len(x), 10, 3, 3))))


class Shuffled(nn.Module):
    """Branches whose channels are interleaved."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 1)
        self.branch = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
        self.mix, self.head = nn.Conv2d(12, 9, 1), nn.Linear(9, 3)

    def forward(self, x):
        x = self.stem(x)
        both = torch.cat([x, self.branch(x)], 1)
        both = both.view(len(x), 2, 6, *both.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(F.relu(self.mix(both)).mean((2, 3)))


class Siamese(nn.Module):
    """One encoder for both halves of the input, side by side before the head."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 6), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        return self.head(torch.cat([self.encoder(x[:, :5]), self.encoder(x[:, 5:])], 1))


class Functional(nn.Module):
    """A layer's weight is used outside of it, next to what comes before."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 6, 1)
        self.hidden, self.head = nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(F.conv2d(x, self.second.weight, self.second.bias)).mean((2, 3))
        return self.head(F.relu(self.hidden(x)))


class Unflattened(nn.Module):
    """Channels are split into heads and joined again in another order."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Linear(5, 9), nn.Linear(9, 12)
        self.hidden, self.head = nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = F.relu(self.wide(F.relu(self.first(x)))).unflatten(1, (3, 4)).transpose(1, 2).flatten(1)
        return self.head(F.relu(self.hidden(x)))


CASES = {
    "pixel shuffle": (Upsampling, (2, 12, 12)),
    "view to a transposed convolution": (Decoder, (6,)),
    "siamese": (Siamese, (10,)),
    "functional use": (Functional, (2, 8, 8)),
    "unflattened": (Unflattened, (5,)),
    "shuffled": (Shuffled, (2, 5, 5)),
}


@pytest.mark.parametrize("method", ["l1_norm", "random_channels", "weight_product"])
@pytest.mark.parametrize(("build", "shape"), CASES.values(), ids=CASES)
def test_what_is_not_followed_is_fixed_and_the_rest_is_exact(build, shape, method):
    torch.manual_seed(0)
    model, x = build().double().eval(), torch.randn(4, *shape, dtype=torch.float64)
    result = pc.prune(model, method, 0.4, across="layer", example_input=x[:1])
    small = result.shrink()
    assert result.report.removed["channels"][0] > 0
    with torch.no_grad():
        assert torch.allclose(small(x), result.model(x), rtol=0, atol=1e-12)
        assert not torch.allclose(small(x), model(x), rtol=0, atol=1e-6)


WRITTEN_OUT = "the network writes out their number or order: without some of them, "


@pytest.mark.parametrize(
    ("build", "shape", "group", "size", "reason"),
    [
        (Upsampling, (2, 12, 12), "wide", 5, None),  # the four rows that make one channel of four pixels
        (Siamese, (10,), "encoder.2", 6, None),
        (Decoder, (6,), "code", 10, WRITTEN_OUT),
        (Unflattened, (5,), "wide", 4, WRITTEN_OUT),
        (Shuffled, (2, 5, 5), "stem", 6, WRITTEN_OUT),
        (Functional, (2, 8, 8), "first", 8, "the weight of 'second' is used outside of its layer"),
    ],
)
def test_what_counts_as_one_channel_and_why_some_stay(build, shape, group, size, reason):
    found = {one.name: one for one in pc.find_groups(build(), torch.randn(1, *shape))}[group]
    assert found.size == size
    assert found.reason_fixed is None if reason is None else found.reason_fixed.startswith(reason)
