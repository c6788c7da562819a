"""Small networks with their batches, and dense Hessians of them."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.papers.how_sparse.draws import DOUBLE, noise, seeded


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The network in double precision and evaluation mode, every parameter and statistic drawn."""
    generator = seeded(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=DOUBLE) * 0.6)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=DOUBLE) + ("var" in name) * 0.5)
    return model


class Tied(nn.Module):
    """The same matrix twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.end = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.end(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Tokens(nn.Module):
    """Attention, whose fused kernels have no second derivative."""

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        return self.end(self.block(x).mean(1))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 2, bias=False), nn.Tanh(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(3, 3),
    )  # fmt: skip


NETWORKS = {
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
    "relu": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), (4,)),
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "convolutional": (convolutional, (1, 4, 4)),
    "tied": (Tied, (4,)),
    "attention": (Tokens, (3, 4)),
}


SIZES = (5, 5, 5, 2)  # a short last batch


def case(kind: str = "relu", seed: int = 0) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    build, shape = NETWORKS[kind]
    x, y = noise(sum(SIZES), *shape, seed=seed + 1), torch.randint(3, (sum(SIZES),), generator=seeded(seed))
    return drawn(build(), seed), list(zip(x.split(SIZES), y.split(SIZES), strict=True))


def dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor, names: list[str], loss=F.cross_entropy) -> torch.Tensor:
    """The Hessian of the loss of all samples at once, by torch.autograd.functional on one flat vector."""
    tensors = {name: model.get_parameter(name).detach() for name in names}

    def value(flat):
        parts = flat.split([t.numel() for t in tensors.values()])
        values = {n: p.view_as(t) for (n, t), p in zip(tensors.items(), parts, strict=True)}
        return loss(functional_call(model, values, (x,)), y)

    flat = torch.cat([t.flatten() for t in tensors.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(value, flat)


def joined(batches):
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def coordinates(model: nn.Module) -> list[str]:
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    return [n for n, _ in model.named_parameters() if n.rpartition(".")[0] not in norms]


OPTIONS = [
    {},
    {"reuse_graph": False},
    {"merge": False},
    {"merge": False, "reuse_graph": False},
    {"memory": 1},
    {"memory": 20000},
]
