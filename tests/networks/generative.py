"""Networks that make something, remember something, or are used more than once."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.networks.case import Case, noise, whole


class Variational(nn.Module):
    """Mean and variance from one layer; a decoder that starts from a written-out shape; what comes out has names."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU()
        )
        self.moments, self.widen = nn.Linear(40, 2 * 6), nn.Linear(6, 12 * 2 * 2)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(12, 9, 4, 2, 1), nn.BatchNorm2d(9), nn.ReLU(), nn.ConvTranspose2d(9, 1, 4, 2, 1)
        )

    def forward(self, x):
        mean, log_variance = self.moments(torch.flatten(self.encoder(x), 1)).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return {
            "image": self.decoder(self.widen(z).view(-1, 12, 2, 2)).sigmoid(),
            "mean": mean,
            "log_variance": log_variance,
        }


class Generator(nn.Module):
    """DCGAN with a class: a table of classes times the noise, a linear layer, a reshape by -1, transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.classes, self.first, self.norm = (
            nn.Embedding(4, 6),
            nn.Linear(6, 12 * 3 * 3, bias=False),
            nn.BatchNorm1d(12 * 9),
        )
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 10, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU(True))
        self.last = nn.ConvTranspose2d(10, 2, 3, 2, 1, 1)

    def forward(self, z, c):
        x = F.relu(self.norm(self.first(z * self.classes(c))))
        return torch.tanh(self.last(self.up(x.reshape(x.shape[0], -1, 3, 3))))


class Critic(nn.Module):
    """A discriminator under spectral norm (the old one, kept by hooks) that ends in one number a sample, squeezed."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.second = norm(nn.Conv2d(3, 8, 3, 2)), nn.Conv2d(8, 10, 3)
        self.third, self.out = nn.Conv2d(10, 12, 1), nn.Linear(12, 1)

    def forward(self, x):
        x = F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)
        return self.out(self.third(x).relu().sum((2, 3))).squeeze(1)


class Quantised(nn.Module):
    """The nearest of learnt vectors takes the place of each feature; the gradient goes around it."""

    def __init__(self):
        super().__init__()
        self.first, self.code = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 6, 1)
        self.book = nn.Embedding(9, 6)
        self.second, self.out = nn.ConvTranspose2d(6, 7, 4, 2, 1), nn.Conv2d(7, 3, 1)

    def forward(self, x):
        z = self.code(self.first(x).relu())
        rows = z.permute(0, 2, 3, 1).contiguous()
        far = torch.cdist(rows.view(-1, 6), self.book.weight)
        found = self.book(far.argmin(1)).view(rows.shape).permute(0, 3, 1, 2)
        return self.out(self.second(z + (found - z).detach()).relu())


class Denoiser(nn.Module):
    """A small diffusion U-Net: sines of the time, added to features; group norms; attention; a skip."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, 14), nn.SiLU(), nn.Linear(14, 10))
        self.enter, self.norm1, self.conv1 = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.GroupNorm(4, 8),
            nn.Conv2d(8, 10, 3, padding=1),
        )
        self.to_scale = nn.Linear(10, 20)
        self.conv2, self.down = nn.Conv2d(10, 12, 3, padding=1), nn.Conv2d(12, 12, 3, 2, 1)
        self.mid, self.up, self.out = (
            nn.Conv2d(12, 9, 3, padding=1),
            nn.ConvTranspose2d(9, 6, 2, 2),
            nn.Conv2d(18, 2, 3, padding=1),
        )

    def forward(self, x, t):
        speed = torch.exp(-torch.arange(4, dtype=x.dtype) * 2)
        angles = t.to(x.dtype)[:, None] * speed[None]
        t = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x = self.conv1(F.silu(self.norm1(self.enter(x))))
        scale, shift = self.to_scale(F.silu(t))[:, :, None, None].chunk(2, 1)
        skip = self.conv2(F.silu(x * (1 + scale) + shift))
        y = self.up(F.silu(self.mid(self.down(skip))))
        return self.out(torch.cat((y, skip), 1))


class Cell(nn.Module):
    """A convolutional LSTM, step by step, from a state of zeros whose width is written down, or read off the layer."""

    def __init__(self, written: bool):
        super().__init__()
        self.written, self.hidden = written, 6
        self.enter, self.gates, self.out = (
            nn.Conv2d(2, 5, 3, padding=1),
            nn.Conv2d(11, 24, 3, padding=1),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x):
        width = self.hidden if self.written else self.gates.out_channels // 4
        h = x.new_zeros(x.shape[0], width, *x.shape[-2:])
        c = torch.zeros_like(h)
        for t in range(x.shape[1]):
            i, f, o, g = self.gates(torch.cat((self.enter(x[:, t]).relu(), h), 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class Reader(nn.Module):
    """CRNN for text lines: columns of features go through a bidirectional LSTM; log-probabilities with the time first."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.project = nn.Conv2d(8, 10, (4, 3), (4, 1), (0, 1)), nn.Linear(10, 7)
        self.recurrent, self.hidden, self.out = (
            nn.LSTM(7, 6, bidirectional=True, num_layers=2),
            nn.Linear(12, 9),
            nn.Linear(9, 5),
        )

    def forward(self, x):
        x = self.second(F.max_pool2d(self.norm(self.first(x)).relu(), (2, 1))).squeeze(2)
        y, _ = self.recurrent(self.project(x.permute(2, 0, 1)).relu())
        return self.out(self.hidden(y).relu()).log_softmax(-1)


class Sentences(nn.Module):
    """Words through a GRU; its last state beside what attention over all of them finds."""

    def __init__(self):
        super().__init__()
        self.table, self.before, self.gru = nn.Embedding(20, 8), nn.Linear(8, 9), nn.GRU(9, 7, batch_first=True)
        self.ask, self.hidden, self.out = nn.Linear(7, 1), nn.Linear(14, 12), nn.Linear(12, 3)

    def forward(self, words):
        every, last = self.gru(self.before(self.table(words)).tanh())
        weight = self.ask(every).softmax(1)
        found = (weight * every).sum(1)
        return self.out(F.dropout(self.hidden(torch.cat((found, last[-1]), 1)).relu(), 0.2, self.training))


class Stepper(nn.Module):
    """A GRU cell in a loop, an Euler step with the time as one more input, one block used three times."""

    def __init__(self):
        super().__init__()
        self.enter, self.cell = nn.Linear(4, 8), nn.GRUCell(8, 6)
        self.field, self.back = nn.Linear(7, 10), nn.Linear(10, 6)
        self.block, self.out = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Linear(11, 6)), nn.Linear(6, 2)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.cell.hidden_size)
        for t in range(x.size(1)):
            h = self.cell(self.enter(x[:, t]).relu(), h)
        for step in range(3):
            time = torch.full_like(h[:, :1], step / 3)
            h = h + self.back(self.field(torch.cat([time, h], 1)).tanh()) / 3
        for _ in range(3):
            h = h + self.block(h)
        return self.out(h)


class Twins(nn.Module):
    """Siamese: one body for two images, their difference, their product and both beside each other."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 9, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten()
        )
        self.mix, self.out = nn.Linear(36, 10), nn.Linear(10, 1)

    def forward(self, a, b):
        a, b = self.body(a), self.body(b)
        return self.out(self.mix(torch.cat([(a - b).abs(), a * b, a, b], 1)).relu()).squeeze(-1)


class Triplet(nn.Module):
    """Three images in one batch; embeddings of length one before the last layer; the loss is what comes out."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.embed = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 10, 3), nn.Linear(10, 7)
        self.project = nn.Linear(7, 5)

    def forward(self, x):
        y = F.normalize(self.embed(self.second(self.first(x.flatten(0, 1)).relu()).mean((2, 3))), dim=1)
        anchor, near, far = F.normalize(self.project(y), p=2, dim=-1).unflatten(0, (-1, 3)).unbind(1)
        return ((anchor - near).pow(2).sum(1) - (anchor - far).pow(2).sum(1) + 0.5).relu().mean()


class TiedCoder(nn.Module):
    """What is encoded by a weight is decoded by its transpose; layers in the middle are its own."""

    def __init__(self):
        super().__init__()
        self.enter, self.inside, self.back = nn.Linear(9, 8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.bias = nn.Parameter(torch.zeros(9))

    def forward(self, x):
        y = self.inside(self.enter(x).relu()).relu()
        return F.linear(self.back(y).relu(), self.enter.weight.t(), self.bias)


class Shared(nn.Module):
    """One convolution at three rates (its weight used by function), and one norm for all of them."""

    def __init__(self):
        super().__init__()
        self.enter, self.conv, self.norm = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.BatchNorm2d(6),
        )
        self.one, self.two, self.out = nn.Linear(6, 9), nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, x):
        x = self.enter(x).relu()
        y = sum(self.norm(F.conv2d(x, self.conv.weight, self.conv.bias, padding=d, dilation=d)) for d in (1, 2, 3))
        y = y.relu().mean((2, 3))
        return self.out(self.one(y).tanh() + self.two(y).sigmoid())


class Early(nn.Module):
    """Exits on the way by name; in training more comes out than in evaluation; some places hold None."""

    def __init__(self, depth: int = 3):
        super().__init__()
        self.blocks = nn.ModuleDict(
            {f"b{i}": nn.Sequential(nn.Conv2d(2 if i == 0 else 8, 8, 3, padding=1), nn.ReLU()) for i in range(depth)}
        )
        self.exits, self.flags = nn.ModuleDict({"b1": nn.Linear(8, 3), "b2": nn.Linear(8, 3)}), {"b0": None}

    def forward(self, x, wanted=None):
        found = []
        for name, block in self.blocks.items():
            x = block(x) if name == "b0" else x + block(x)
            found.append(self.exits[name](x.mean((-1, -2))) if name in self.exits else self.flags[name])
        return tuple(found)


class Experts(nn.Module):
    """A softmax weighs what four experts say; beside it the best alone, by an index."""

    def __init__(self):
        super().__init__()
        self.enter, self.gate = nn.Linear(5, 8), nn.Linear(8, 4)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 6)) for _ in range(4)])
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        x = self.enter(x).relu()
        weight = self.gate(x).softmax(-1)
        every = torch.stack([expert(x) for expert in self.experts], 1)
        mixed = torch.einsum("be,bed->bd", weight, every)
        best = every[torch.arange(len(x)), weight.argmax(-1)]
        return self.out(mixed + best)


class Routed(nn.Module):
    """Samples go only where a gate sends them: index_add into zeros, experts that see an unknown number of rows."""

    def __init__(self):
        super().__init__()
        self.enter, self.gate, self.out = nn.Linear(5, 8), nn.Linear(5, 3, bias=False), nn.Linear(8, 3)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8)) for _ in range(3)])

    def forward(self, x):
        where = self.gate(x).argmax(-1)
        x = self.enter(x)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = (where == i).nonzero().squeeze(1)
            if rows.numel():
                y.index_add_(0, rows, expert(x[rows]))
        return self.out(x + y)


class Hyper(nn.Module):
    """One network writes the weights of a convolution of another, for each sample its own (groups over the batch)."""

    def __init__(self):
        super().__init__()
        self.enter, self.hidden, self.write = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(3, 8), nn.Linear(8, 6 * 4 * 9)
        self.tail, self.out = nn.Conv2d(6, 7, 1), nn.Linear(7, 3)

    def forward(self, x, z):
        x = self.enter(x).relu()
        b, c, h, w = x.shape
        weight = self.write(self.hidden(z).relu()).view(b * 6, c, 3, 3)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b).view(b, 6, h, w)
        return self.out(self.tail(y.relu()).mean((2, 3)))


spectral_norm, old_spectral_norm = nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm
PAIR = (noise(1, 8, 8), noise(1, 8, 8))
STEPS = (noise(3, 2, 5, 5),)
USED = {"channels of conv": "used outside of its layer"}
EXPERTS = "enter experts.0.0 experts.0.2 experts.1.0 experts.2.0"
HALFWAY = "time.0 time.2 conv1 conv2 down mid up"
CASES = {
    "variational": Case(
        Variational, (noise(1, 8, 8),), "encoder.0 encoder.2 decoder.0", {"channels of widen": "number"}
    ),
    "generator": Case(Generator, (noise(6), whole(4)), "first up.0"),
    "spectral norm": Case(lambda: Critic(spectral_norm), (noise(3, 8, 8),), "second third"),
    "spectral norm, old": Case(lambda: Critic(old_spectral_norm), (noise(3, 8, 8),), refused="remove_spectral_norm"),
    "vector quantised": Case(Quantised, (noise(3, 8, 8),), "first second", {"channels of code": "cdist"}),
    "denoiser": Case(Denoiser, (noise(2, 8, 8), whole(50)), HALFWAY, {"channels of enter": "GroupNorm"}),
    "convolutional LSTM, written down": Case(lambda: Cell(True), STEPS, "enter", {"channels of gates": "number"}),
    "convolutional LSTM": Case(lambda: Cell(False), STEPS, "enter gates"),
    "reader of lines": Case(Reader, (noise(1, 8, 12),), "first second hidden", {"channels of project": "LSTM"}),
    "sentences": Case(Sentences, (whole(20, 6),), "hidden", {"channels of before": "GRU 'gru'"}),
    "stepper": Case(Stepper, (noise(3, 4),), "field block.0", {"channels of enter": "GRUCell 'cell'"}),
    "twins": Case(Twins, PAIR, "body.0 body.3 mix"),
    "triplet": Case(Triplet, (noise(3, 1, 8, 8),), "first second", {"channels of embed": "norm"}),
    "tied coder": Case(TiedCoder, (noise(9),), "inside"),
    "shared parts": Case(Shared, (noise(2, 8, 8),), "one two", USED),
    "early exits": Case(Early, (noise(2, 8, 8),), "blocks.b0.0"),
    "experts": Case(Experts, (noise(5),), "enter experts.0.0 experts.0.2", {"channels of gate": "softmax"}),
    "routed": Case(Routed, (noise(5),), EXPERTS, {"channels of gate": "argmax"}),
    "hyper": Case(Hyper, (noise(2, 8, 8), noise(3)), "hidden tail", {"channels of enter": "convolution"}),
}
