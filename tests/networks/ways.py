"""Networks that do not always go the same way: by mode, by value, by what is given, by chance."""

import torch
from torch import nn

from tests.networks.case import Case, noise


class Auxiliary(nn.Module):
    """A second head in the middle, in training mode only."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 9, 3), nn.Conv2d(9, 7, 1)
        self.inside, self.auxiliary, self.head = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(7, 3)

    def forward(self, x):
        x = self.first(x).relu()
        early = self.auxiliary(self.inside(x.mean((2, 3))).relu()) if self.training else None
        x = self.head(self.last(self.second(x).relu()).relu().mean((2, 3)))
        return (x, early) if self.training else x


class OnValue(nn.Module):
    """Left or right by the sign of the mean."""

    def __init__(self):
        super().__init__()
        self.enter, self.left, self.right, self.out = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.enter(x).relu()
        h = self.left(h) if x.mean() > 0 else self.right(h)
        return self.out(h.relu())


class OnePerSample(nn.Module):
    """Every sample goes to the expert that a gate picks."""

    def __init__(self):
        super().__init__()
        self.enter, self.gate, self.out = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(6, 3)
        self.experts = nn.ModuleList([nn.Linear(8, 6) for _ in range(4)])

    def forward(self, x):
        h = self.enter(x).relu()
        chosen = self.gate(x).argmax(-1).tolist()
        return self.out(torch.stack([self.experts[i](row) for i, row in zip(chosen, h, strict=True)]).relu())


class Skipping(nn.Module):
    """Stochastic depth: in training mode blocks are left out by chance."""

    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(4, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 8)) for _ in range(3)])

    def forward(self, x):
        h = self.enter(x).relu()
        for block in self.blocks:
            if not self.training or float(torch.rand(())) > 0.3:
                h = h + block(h)
        return self.out(h)


class Conditioned(nn.Module):
    """A condition that may be given, and layers that nobody calls."""

    def __init__(self):
        super().__init__()
        self.enter, self.condition, self.out, self.spare = (
            nn.Linear(4, 8),
            nn.Linear(2, 8),
            nn.Linear(8, 3),
            nn.Linear(8, 5),
        )

    def forward(self, x, c=None):
        h = self.enter(x)
        return self.out((h if c is None else h + self.condition(c)).relu())


NEVER = "the example does not pass through it"
CASES = {
    "auxiliary head": Case(Auxiliary, (noise(3, 8, 8),), "first second last inside"),
    "by value": Case(OnValue, (noise(4),), "enter left right"),
    "one expert a sample": Case(OnePerSample, (noise(4),), "enter experts.0 experts.1 experts.2 experts.3"),
    "stochastic depth": Case(Skipping, (noise(4),), "enter blocks.0.0 blocks.2.2"),
    "without condition": Case(
        Conditioned, (noise(4),), "enter", {"channels of condition": NEVER, "channels of spare": NEVER}
    ),
    "with condition": Case(Conditioned, (noise(4), noise(2)), "enter condition", {"channels of spare": NEVER}),
}
