"""Labels follow what an operator does to indices: the same operator on an image of channel numbers says where they went."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.masks.finder.calls import marks_of
from pruning_core.masks.finder.trace import traced

CHANNELS, SIDE = 12, 6

# Every one moves, repeats or picks whole channels of (N, 12, 6, 6).
MOVES = {
    "nothing": lambda y: y,
    "flatten": lambda y: y.flatten(1),
    "tokens": lambda y: y.flatten(2).transpose(1, 2),
    "tokens, flattened": lambda y: y.flatten(2).transpose(1, 2).flatten(1),
    "last and back": lambda y: y.movedim(1, -1).contiguous().permute(0, 3, 1, 2),
    "split and joined": lambda y: y.view(len(y), 3, y.shape[1] // 3, *y.shape[2:]).flatten(1, 2),
    "twice": lambda y: torch.cat([y, y], 1),
    "turned": lambda y: y.flip(1, 2),
    "turned beside itself": lambda y: torch.cat([y.flip(1), y], 1),
    "repeated": lambda y: y.repeat(2, 3, 1, 1),
    "spread": lambda y: y[:, :, None].expand(-1, -1, 4, -1, -1).flatten(1, 2),
    "batch of channels": lambda y: y.reshape(-1, 1, *y.shape[2:]),
    "batch of channels and back": lambda y: y.reshape(-1, 1, *y.shape[2:]).view(len(y), -1, *y.shape[2:]),
    "stacked in front": lambda y: torch.stack([y, y]).flatten(0, 1),
    "stacked behind": lambda y: torch.stack([y, y], 2).flatten(1, 2),
    "space to depth": lambda y: F.pixel_unshuffle(y, 2),
    "windows": lambda y: y.view(len(y), CHANNELS, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, CHANNELS),
    "window partition undone": lambda y: (
        y.view(len(y), CHANNELS, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, CHANNELS)
        .view(len(y), 2, 2, 3, 3, CHANNELS).permute(0, 5, 1, 3, 2, 4).reshape(len(y), CHANNELS, 6, 6)
    ),
    "every second pixel": lambda y: torch.cat([y[..., ::2, ::2], y[..., 1::2, 1::2]], 1),
    "pooled": lambda y: F.max_pool2d(y, 2),
    "padded around": lambda y: F.pad(y, (1, 1, 1, 1), mode="replicate"),
    "grown": lambda y: F.interpolate(y, scale_factor=2),
    "mean of pixels": lambda y: y.mean((2, 3)),
    "written into another": lambda y: torch.empty_like(y).copy_(y),
    "written into a border": lambda y: F.pad(y, (1, 1, 1, 1), mode="circular"),
    "rolled pixels": lambda y: y.roll((1, 2), (2, 3)),
    "unfolded": lambda y: F.unfold(y, (2, 3)),
    "rows added": lambda y: torch.zeros_like(y).index_add(0, torch.tensor([1, 0]), y),
    "rows scattered": lambda y: torch.zeros_like(y).scatter(0, torch.tensor([1, 0]).view(2, 1, 1, 1).expand_as(y), y),
    "rows put": lambda y: torch.zeros_like(y).index_put((torch.tensor([1, 0]),), y),
    "rows set in place": lambda y: torch.zeros_like(y).index_put_((torch.tensor([True, True]),), y),
    "rows gathered": lambda y: y.gather(0, torch.tensor([1, 0]).view(2, 1, 1, 1).expand_as(y)),
    "in place": lambda y: y.clone().mul_(1).clamp_(-1e9),
}  # fmt: skip

# These join channels: a part keeps as many as the others. The number is how many units are left.
JOINS = {
    "halves added": (lambda y: sum(y.chunk(2, 1)), 6),
    "halves multiplied": (lambda y: y[:, : y.shape[1] // 2] * y[:, y.shape[1] // 2 :], 6),
    "gated": (lambda y: F.glu(y, 1), 6),
    "shuffled": (lambda y: F.channel_shuffle(y, 3), 4),
    "shuffled by hand": (lambda y: y.view(len(y), 2, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2), 6),
    "pixels": (lambda y: F.pixel_shuffle(y, 2), 3),
    "largest of pairs": (lambda y: y.view(len(y), -1, 2, *y.shape[2:]).amax(2), 6),
    "added to itself, turned": (lambda y: y + y.flip(1), 6),
    "parts of a written number": (lambda y: y.view(len(y), 3, -1, *y.shape[2:]).flatten(1, 2), 4),
    "every second": (lambda y: y[:, ::2] * y[:, 1::2], 6),
    "every third": (lambda y: y[:, ::3] + y[:, 1::3] + y[:, 2::3], 4),
    "folded": (lambda y: F.fold(y.flatten(2)[..., :25], (6, 6), 2), 3),
    "heads": (lambda y: torch.einsum("nhdxy,nhdxy->nhxy", *[y.unflatten(1, (-1, 3))] * 2), 4),
}

# These look at all channels, or count them by number.
FIXES = {
    "softmax": lambda y: y.softmax(1), "cumulative": lambda y: y.cumsum(1), "mean": lambda y: y - y.mean(1, True),
    "rolled": lambda y: y.roll(1, 1), "picked": lambda y: y[:, [2, 0, 1]], "one": lambda y: y[:, 3],
    "uneven halves": lambda y: torch.cat(y.split([5, 7], 1)[::-1], 1), "some": lambda y: y[:, 2:],
    "padded": lambda y: F.pad(y, (0, 0, 0, 0, 1, 1)), "sorted": lambda y: y.sort(1)[0],
    "Gram": lambda y: y.flatten(2) @ y.flatten(2).mT, "norm": lambda y: F.normalize(y, dim=1),
    "group norm": lambda y: F.group_norm(y, 3), "constant": lambda y: y + torch.rand(12, 1, 1),
    "unknown": lambda y: torch.cdist(y.flatten(2), y.flatten(2)),
    "gathered": lambda y: y.gather(1, torch.zeros(2, 3, 6, 6, dtype=torch.long)),
    "first of gathered rows": lambda y: y.gather(0, torch.zeros(2, 3, 6, 6, dtype=torch.long)),
    "scattered": lambda y: torch.zeros_like(y).scatter(1, torch.arange(12).view(1, 12, 1, 1).expand_as(y), y),
    "outer product": lambda y: (y[:, :, None] * y[:, None].flip(1)).flatten(1),
    "constant matrix": lambda y: torch.rand(5, 12) @ y.flatten(2), "neighbours": lambda y: F.avg_pool3d(y[:, None], (3, 1, 1)),
}  # fmt: skip


class Through(nn.Module):
    """A convolution, and something done to what it computes."""

    def __init__(self, way):
        super().__init__()
        self.first, self.way = nn.Conv2d(2, CHANNELS, 1), way

    def forward(self, x):
        self.last = self.way(self.first(x))
        return self.last


def units(way):
    """Classes of the rows of the convolution, the class of every entry that comes out (-1: none), and the trace."""
    twin = Through(way)
    trace = traced(twin, (torch.randn(2, 2, SIDE, SIDE),))
    classes = trace.labels.classes()
    rows = next(line for line in trace.lines if line.name == "first.weight" and line.dim == 0)
    image = np.full(twin.last.shape, -1)
    for block in marks_of(twin.last):
        if not np.isin(classes[block.labels], classes[rows.labels]).any():
            continue  # pixels of a tensor that began empty
        wide = [size if dim in block.dims else 1 for dim, size in enumerate(image.shape)]
        image = np.broadcast_to(np.where(block.labels >= 0, classes[block.labels], -1).reshape(wide), image.shape)
    return classes[rows.labels], image, trace


@pytest.mark.parametrize("move", MOVES)
def test_labels_go_where_the_channels_go(move):
    rows, image, _ = units(MOVES[move])
    assert len(set(rows)) == CHANNELS
    numbers = torch.arange(CHANNELS).view(1, -1, 1, 1).expand(2, -1, SIDE, SIDE).double().contiguous()
    assert np.array_equal(image, rows[MOVES[move](numbers).long().numpy()])


@pytest.mark.parametrize("join", JOINS)
def test_channels_that_must_go_together_are_one_unit(join):
    way, count = JOINS[join]
    rows, image, _ = units(way)
    assert len(set(rows)) == count
    assert set(image.flatten()) == set(rows)


@pytest.mark.parametrize("fix", FIXES)
def test_channels_that_cannot_go_are_fixed_with_the_operator(fix):
    rows, _, trace = units(lambda y: FIXES[fix](y).sum())
    reasons = trace.labels.reasons(trace.labels.classes())
    named = {reasons[unit] for unit in rows.tolist()}
    assert len(named) == 1 and "in the forward pass of Through" in named.pop()


def test_what_no_output_depends_on_fixes_nothing():
    def way(y):
        y.softmax(1).sort(1)
        return y.mean((2, 3))

    rows, _, trace = units(way)
    reasons = trace.labels.reasons(trace.labels.classes())
    assert {reasons[unit] for unit in rows.tolist()} == {"they are outputs of the network"}
