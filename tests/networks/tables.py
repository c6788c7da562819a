"""Points, graphs, tables, fields and rays; channels by index; layers that most people never see."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from tests.networks.case import Case, noise, whole


class Points(nn.Module):
    """PointNet: an alignment by bmm, shared layers over points, the largest of all, and it beside each point."""

    def __init__(self):
        super().__init__()
        self.align1, self.align2 = nn.Conv1d(3, 8, 1), nn.Linear(8, 9)
        self.first, self.norm1, self.second = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.Conv1d(8, 12, 1)
        self.third, self.out = nn.Conv1d(20, 10, 1), nn.Conv1d(10, 4, 1)

    def forward(self, x):
        frame = self.align2(self.align1(x).relu().max(2)[0]).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        x = torch.bmm(frame, x)
        near = self.norm1(self.first(x)).relu()
        whole_one = torch.max(self.second(near), 2, keepdim=True)[0].expand(-1, -1, x.shape[2])
        return self.out(self.third(torch.cat([near, whole_one], 1)).relu()).transpose(1, 2)


class Sets(nn.Module):
    """Deep sets with a mask: a mean over those who are there, equivariant layers with a sum over the set."""

    def __init__(self):
        super().__init__()
        self.each, self.rest, self.norm = nn.Linear(4, 9), nn.Linear(4, 9, bias=False), nn.BatchNorm1d(9)
        self.second, self.out = nn.Linear(18, 8), nn.Linear(8, 2)

    def forward(self, x, there):
        there = (there > 0).to(x.dtype)[..., None]
        y = self.each(x) + self.rest((x * there).sum(1, keepdim=True))
        y = self.norm(y.transpose(1, 2)).transpose(1, 2).relu()
        mean = (y * there).sum(1) / there.sum(1).clamp(min=1)
        most = y.masked_fill(there == 0, -1e9).amax(1).clamp(min=-5)
        return self.out(self.second(torch.cat([mean, most], -1)).relu())


class Graph(nn.Module):
    """Messages along edges: gather, sum into nodes by index_add, an attention of each node over its neighbours."""

    def __init__(self, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.enter, self.message, self.update = nn.Linear(4, 8), nn.Linear(16, 10), nn.Linear(18, 12)
        self.project, self.ask, self.out = nn.Linear(12, 10), nn.Parameter(torch.randn(1, 2, 5)), nn.Linear(10, 3)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 4]]))

    def forward(self, x):
        x = self.enter(x[0]).relu()
        source, target = self.edges
        messages = self.message(torch.cat((x[source], x.index_select(0, target)), -1)).relu()
        sums = torch.zeros(x.shape[0], messages.shape[1], dtype=x.dtype).index_add(0, target, messages)
        x = self.update(torch.cat([x, sums], 1)).tanh()
        y = self.project(x).view(-1, self.heads, 5)
        scores = F.leaky_relu((y * self.ask).sum(-1), 0.2)
        weight = torch.zeros_like(scores).index_add(0, target, scores[source].exp())
        return self.out((y * (scores.exp() / (weight + 1))[..., None]).flatten(1))[None]


class Convolved(nn.Module):
    """GCN: a normalised adjacency between the layers, given as an input; residual by a list of linear layers."""

    def __init__(self):
        super().__init__()
        self.layers, self.norms = (
            nn.ModuleList([nn.Linear(4, 9), nn.Linear(9, 9), nn.Linear(9, 9)]),
            nn.ModuleList([nn.BatchNorm1d(9) for _ in range(2)]),
        )
        self.out = nn.Linear(27, 2)

    def forward(self, x, links):
        near = links.sigmoid()
        near = near / near.sum(-1, keepdim=True)
        x, seen = self.layers[0](x), []
        for layer, norm in zip(list(self.layers)[1:], self.norms, strict=True):
            x = x + F.dropout(norm(torch.einsum("bnm,bmc->bcn", near, layer(x))).mT.relu(), 0.3, self.training)
            seen.append(x)
        return self.out(torch.cat([*seen, near @ x], -1))


class Table(nn.Module):
    """Categories through tables of their own, numbers through a norm, everything beside each other; a leaky highway."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(n, d) for n, d in ((7, 4), (5, 3), (9, 6))])
        self.norm, self.first = nn.BatchNorm1d(4), nn.Linear(17, 12)
        self.carry, self.turn, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 1)

    def forward(self, categories, numbers):
        found = [table(categories[:, i] % table.num_embeddings) for i, table in enumerate(self.tables)]
        x = self.first(torch.cat([*found, self.norm(numbers)], 1)).relu()
        t = self.carry(x).sigmoid()
        return self.out(t * self.turn(x).relu() + (1 - t) * x)


class Interactions(nn.Module):
    """DLRM and factorisation: products of all pairs, of which the upper triangle is read; two towers multiply."""

    def __init__(self):
        super().__init__()
        self.bottom, self.users, self.items = (
            nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6)),
            nn.Embedding(8, 6),
            nn.Embedding(9, 6),
        )
        self.top, self.answer, self.tower = nn.Linear(9, 12), nn.Linear(12, 1), nn.Linear(6, 5)
        (
            self.register_buffer("rows", torch.triu_indices(3, 3, 1)[0]),
            self.register_buffer("columns", torch.triu_indices(3, 3, 1)[1]),
        )

    def forward(self, numbers, user, item):
        dense, u, i = self.bottom(numbers), self.users(user), self.items(item)
        every = torch.stack([dense, u, i], 1)
        pairs = torch.bmm(every, every.transpose(1, 2))[:, self.rows, self.columns]
        match = (self.tower(u) * self.tower(i)).sum(-1)
        return self.answer(self.top(torch.cat([dense, pairs], 1)).relu()).squeeze(-1) + match


class Rays(nn.Module):
    """NeRF: sines of the position, the input once more in the middle, density and colour in a dictionary."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(15, 12), nn.Linear(12, 12), nn.Linear(27, 12), nn.Linear(12, 12)])
        self.density, self.feature, self.view, self.colour = (
            nn.Linear(12, 1),
            nn.Linear(12, 10),
            nn.Linear(13, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x, direction):
        y = start = torch.cat([x] + [f(2.0**k * x) for k in range(2) for f in (torch.sin, torch.cos)], -1)
        for i, layer in enumerate(self.layers):
            y = F.relu(layer(torch.cat([start, y], -1) if i == 2 else y))
        colour = self.view(torch.cat([self.feature(y), direction], -1)).relu()
        return {"density": F.softplus(self.density(y)), "colour": self.colour(colour).sigmoid(), "depth": None}


class Sines(nn.Module):
    """SIREN on Fourier features of a fixed matrix, with a scale for each unit that is a bare parameter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 5, generator=torch.Generator().manual_seed(0)))
        self.first, self.second, self.out = nn.Linear(10, 12), nn.Linear(12, 9), nn.Linear(9, 1)
        self.speed = nn.Parameter(torch.linspace(1, 2, 9))

    def forward(self, x):
        x = x @ self.frequencies
        x = torch.sin(30 * self.first(torch.cat([x.sin(), x.cos()], -1)))
        return self.out(torch.sin(self.speed * self.second(x)))


class Spectral(nn.Module):
    """A Fourier neural operator: complex weights on the lowest frequencies, beside a pointwise layer."""

    def __init__(self):
        super().__init__()
        self.enter, self.local, self.hidden, self.out = (
            nn.Conv1d(2, 6, 1),
            nn.Conv1d(6, 6, 1),
            nn.Conv1d(6, 10, 1),
            nn.Conv1d(10, 1, 1),
        )
        self.modes = nn.Parameter(torch.randn(6, 6, 4, 2))

    def forward(self, x):
        x = self.enter(x)
        waves = torch.fft.rfft(x)
        low = torch.einsum("bim,iom->bom", waves[..., :4], torch.view_as_complex(self.modes))
        every = torch.zeros_like(waves)
        every[..., :4] = low
        x = torch.fft.irfft(every, n=x.size(-1)) + self.local(x)
        return self.out(self.hidden(F.gelu(x)).relu())


class Indexed(nn.Module):
    """Channels by index: selected by a buffer, rolled, flipped, gathered by a list, set in place, sorted."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.enter, self.inside, self.after, self.head = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 10, 1),
            nn.Conv2d(10, 7, 1),
            nn.Linear(7, 3),
        )
        self.register_buffer("order", torch.tensor([9, 2, 0, 4, 1, 3, 8, 6, 5, 7]), persistent=False)
        self.register_buffer("scale", torch.linspace(0.5, 2, 10), persistent=False)

    def forward(self, x):
        x = self.inside(self.enter(x).relu()).tanh()
        if self.how == "selected":
            x = x.index_select(1, self.order)
        elif self.how == "listed":
            x = x[:, [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]]
        elif self.how == "rolled":
            x = torch.roll(x, 3, 1)
        elif self.how == "flipped":
            x = x + x.flip(1)
        elif self.how == "summed up":
            x = x.cumsum(1)
        elif self.how == "gathered":
            x = x.gather(1, self.order.view(1, -1, 1, 1).expand(x.shape[0], -1, *x.shape[2:]))
        elif self.how == "set in place":
            y = torch.zeros_like(x)
            y[:, :4] = x[:, :4] * 2
            y[:, 4:] = x[:, 4:].relu()
            x = y
        elif self.how == "shifted":  # TSM: some channels look one place to the left, others to the right
            y = torch.zeros_like(x)
            y[:, :3, :-1], y[:, 3:6, 1:], y[:, 6:] = x[:, :3, 1:], x[:, 3:6, :-1], x[:, 6:]
            x = y
        elif self.how == "sorted":
            x = x.sort(1).values
        elif self.how == "scaled":
            x = x * self.scale[:, None, None]
        elif self.how == "lengths":
            x = x / x.norm(dim=1, keepdim=True).clamp(min=1e-3)
        elif self.how == "dropped":
            x = F.dropout2d(x, 0.3, self.training) + F.alpha_dropout(x, 0.1, self.training)
        elif self.how == "repeated":
            x = (x.repeat(1, 2, 1, 1) + torch.repeat_interleave(x, 2, 1))[:, ::2]
        elif self.how == "padded":
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))[:, 2:-2]
        elif self.how == "by halves":
            x = torch.cat([x[:, x.size(1) // 2 :], x[:, : x.size(1) // 2]], 1)
        elif self.how == "grouped norm of its own":
            b, c, h, w = x.shape
            y = x.view(b, 2, c // 2, h, w)
            x = ((y - y.mean((2, 3, 4), keepdim=True)) / (y.var((2, 3, 4), keepdim=True) + 1e-5).sqrt()).view(
                b, c, h, w
            )
        elif self.how == "norm of batches":
            x = F.batch_norm(x, None, None, training=True)
        elif self.how == "where":
            x = torch.where(x > self.scale.view(1, -1, 1, 1) - 1, x, torch.zeros((), dtype=x.dtype))
        elif self.how == "outer":
            x = torch.einsum("bchw,bdhw->bcd", x, x).mean(2, keepdim=True)[..., None] * x
        elif self.how == "largest":
            x = x * (x == x.amax(1, keepdim=True))
        return self.head(self.after(x).mean((2, 3)))


class Bilinear(nn.Module):
    """Second-order pooling: products of all pairs of channels, flattened and read by a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 4, 3)
        self.read, self.out = nn.Linear(24, 9), nn.Linear(9, 3)

    def forward(self, x):
        y = torch.einsum("bchw,bdhw->bcd", self.a(x).relu(), self.b(x)) / 36
        return self.out(self.read((y.sign() * (y.abs() + 1e-8).sqrt()).flatten(1)).relu())


class Capsules(nn.Module):
    """Vectors of four, squashed by their length, voted on."""

    def __init__(self):
        super().__init__()
        self.first, self.primary = nn.Conv2d(1, 9, 3), nn.Conv2d(9, 3 * 4, 3, 2)
        self.votes, self.out = nn.Parameter(torch.randn(3, 4, 5, 6) / 4), nn.Linear(6, 1)

    def forward(self, x):
        x = self.primary(self.first(x).relu())
        b = x.shape[0]
        u = x.view(b, 3, 4, -1).mean(-1)
        n = u.pow(2).sum(-1, keepdim=True)
        u = n / (1 + n) * u / (n + 1e-8).sqrt()
        return self.out(torch.einsum("bid,idkf->bkf", u, self.votes)).squeeze(-1)


class Cosine(nn.Module):
    """ArcFace: features and class vectors of length one; conv of weights made anew (standardised) before."""

    class Standardised(nn.Conv2d):
        def forward(self, x):
            w = self.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
            return self._conv_forward(x, w, self.bias)

    def __init__(self):
        super().__init__()
        self.first, self.standard, self.third = nn.Conv2d(3, 8, 3), self.Standardised(8, 10, 3), nn.Conv2d(10, 9, 1)
        self.embed, self.classes = nn.Linear(9, 6), nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        x = self.third(self.standard(self.first(x).relu()).relu()).amax((2, 3))
        return 8 * F.linear(F.normalize(self.embed(x)), F.normalize(self.classes))


class Branches(nn.Module):
    """RepVGG: 3x3, 1x1 and a norm alone, summed; then one-channel maps that scale, and a learnt bias for each place."""

    def __init__(self):
        super().__init__()
        self.enter, self.wide, self.narrow = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.Conv2d(8, 8, 1),
        )
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, track_running_stats=False)]
        )
        self.mask, self.place, self.out = nn.Conv2d(8, 1, 1), nn.Parameter(torch.randn(1, 1, 6, 6)), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.enter(x)
        x = (self.norms[0](self.wide(x)) + self.norms[1](self.narrow(x)) + self.norms[2](x)).relu_()
        return self.out(torch.stack([x * self.mask(x).sigmoid() + self.place, x]).mean(0))


FREE = ("flipped", "dropped", "by halves", "norm of batches")
HELD = {
    "selected": "index_select", "listed": "index", "rolled": "roll", "gathered": "gather", "lengths": "norm",
    "set in place": "slice", "shifted": "slice", "padded": "pad", "summed up": "cumsum", "sorted": "sort", "outer": "mean",
    "largest": "amax", "grouped norm of its own": "number or order", "repeated": "all together",
}  # fmt: skip
IMAGE = (noise(3, 6, 6),)
CASES = {
    "points": Case(Points, (noise(3, 10),), "align1 first second third", {"channels of align2": "fixed"}),
    "sets": Case(Sets, (noise(6, 4), whole(2, 6)), "each rest second"),
    "graph": Case(Graph, (noise(5, 4),), "enter message update"),
    "graph convolutions": Case(Convolved, (noise(5, 4), noise(5, 5)), "layers.0 layers.1 layers.2"),
    "table": Case(Table, (whole(5, 3), noise(4)), "first carry turn"),
    "interactions": Case(Interactions, (noise(4), whole(8), whole(9)), "bottom.0 top", {"channels of bottom.2": "bmm"}),
    "rays": Case(Rays, (noise(3), noise(3)), "layers.0 layers.1 layers.2 layers.3 feature view"),
    "sines": Case(Sines, (noise(2),), "first"),
    "spectral": Case(Spectral, (noise(2, 16),), "hidden", {"channels of enter": "fft"}),
    "bilinear pooling": Case(Bilinear, (noise(3, 8, 8),), "read", {"channels of a": "joins them with others"}),
    "capsules": Case(Capsules, (noise(1, 9, 9),), "first", {"channels of primary": "bmm"}),
    "cosine": Case(Cosine, (noise(3, 8, 8),), "third", {"channels of embed": "norm"}),
    "branches": Case(Branches, (noise(3, 8, 8),), "enter wide narrow"),
    **{f"channels {how}": Case(partial(Indexed, how), IMAGE, "enter inside after") for how in FREE},
    **{
        f"channels {how}": Case(partial(Indexed, how), IMAGE, "enter after", {"channels of inside": why})
        for how, why in HELD.items()
    },
    **{f"channels {how}": Case(partial(Indexed, how), IMAGE, "enter after") for how in ("scaled", "where")},
}
