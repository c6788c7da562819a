"""Networks as users write them, each of another kind: cut, shrunk, saved and loaded, they compute what the masked one does."""

import copy
import warnings
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import pruning_core as pc
from pruning_core.models.calls import call, tensors_of

GENERATOR = torch.Generator()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=GENERATOR.manual_seed(seed)).double()


class Doubled(nn.Module):
    """One tensor twice in a concatenation, and once more behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.second, self.head = nn.Conv2d(30, 7, 1), nn.Linear(7, 3)

    def forward(self, x):
        y = F.silu(self.norm(self.first(x)))
        return self.head(F.elu(self.second(torch.cat([y, y.square(), y], 1))).amax((2, 3)))


class TwoWays(nn.Module):
    """A deep branch and a wide one, side by side before the answer."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(12, 14), nn.BatchNorm1d(14), nn.Tanh(), nn.Dropout(0.3), nn.Linear(14, 9))
        self.wide, self.answer = nn.Linear(12, 4), nn.Linear(13, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.answer(torch.cat((self.deep(x), self.wide(x)), -1))


class Segmenter(nn.Module):
    """Down, up by transposed convolutions, and across."""

    def __init__(self):
        super().__init__()
        self.enter, self.down = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 10, 3, 2, 1)
        self.norm, self.up = nn.BatchNorm2d(10), nn.ConvTranspose2d(10, 6, 2, 2)
        self.mix, self.out = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        wide = self.enter(x).relu()
        return self.out(self.mix(torch.cat([wide, self.up(F.gelu(self.norm(self.down(wide))))], 1)).relu())


class Detector(nn.Module):
    """Anchors are unfolded from the channels of two heads; what comes out has names."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 9, 3, padding=1), nn.BatchNorm2d(9), nn.GELU(), nn.Conv2d(9, 11, 3), nn.GELU()
        )
        self.scores, self.boxes = nn.Conv2d(11, 2 * 3, 1), nn.Conv2d(11, 2 * 4, 1)

    def forward(self, x):
        seen = self.body(x)
        rows = {"logits": self.scores(seen), "boxes": self.boxes(seen)}
        return {name: y.unflatten(1, (2, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3) for name, y in rows.items()}


class Scaled(nn.Module):
    """A ConvNeXt block: depthwise, channels last, LayerNorm, an MLP, a scale for each channel, and around it."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise, self.norm = (
            nn.Conv2d(2, 6, 2, 2),
            nn.Conv2d(6, 6, 3, 1, 1, groups=6),
            nn.LayerNorm(6),
        )
        self.up, self.down, self.head = nn.Linear(6, 20), nn.Linear(20, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.linspace(0.5, 1, 6))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).movedim(1, -1))
        y = self.down(F.gelu(self.up(y))) * self.scale
        return self.head((x + y.movedim(-1, 1)).mean((2, 3)))


class Tokens(nn.Module):
    """torch's own encoder, in either order of its norms."""

    def __init__(self, first: bool):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, batch_first=True, norm_first=first)
        self.embed, self.encoder = nn.Linear(5, 12), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class TwoScales(nn.Module):
    """One head reads features of two sizes, and an einsum weighs what it says."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head, self.weigh = nn.Conv2d(8, 5, 1), nn.Parameter(torch.linspace(-1, 1, 10).view(5, 2))

    def forward(self, x):
        near = self.near(x).relu()
        both = [self.head(y).amax((2, 3)) for y in (near, self.far(near).sigmoid())]
        return torch.einsum("bc,co->bo", both[0] + both[1], self.weigh)


class Words(nn.Module):
    """A bag of words, or rows of a table of which one is padding."""

    def __init__(self, bag: bool):
        super().__init__()
        self.table = nn.EmbeddingBag(20, 8, mode="mean") if bag else nn.Embedding(20, 8, padding_idx=0)
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, words):
        read = self.table(words)
        return self.head(self.hidden(read if read.dim() == 2 else read.mean(1)).relu())


def padded(mode: str) -> nn.Sequential:
    first = nn.Conv2d(2, 8, 3, padding=1, padding_mode=mode)
    second = nn.Conv2d(8, 7, (1, 3), stride=(2, 1), dilation=(1, 2), padding=(0, 2), padding_mode=mode, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.Sigmoid(), second, nn.Softplus(), *ends(7))


def ends(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), *ends(6))


def pads() -> nn.Sequential:
    layers = (
        nn.ReflectionPad2d(1),
        nn.Conv2d(2, 8, 3),
        nn.ConstantPad2d(1, 0.7),
        nn.CELU(),
        nn.Conv2d(8, 7, 3),
        nn.LPPool2d(2, 2),
    )
    return nn.Sequential(*layers, nn.PReLU(7), nn.Conv2d(7, 6, 3, dilation=2, padding="same"), *ends(6))


IMAGE, WORDS = (2, 8, 8), torch.randint(1, 20, (24, 5), generator=GENERATOR.manual_seed(3))
KINDS = {
    "concatenated with itself": (Doubled, IMAGE),
    "wide and deep": (TwoWays, (3, 4)),
    "down and up": (Segmenter, IMAGE),
    "heads of a detector": (Detector, IMAGE),
    "layer scale": (Scaled, IMAGE),
    "encoder": (lambda: Tokens(False), (4, 5)),
    "encoder, norms first": (lambda: Tokens(True), (4, 5)),
    "two scales": (TwoScales, IMAGE),
    "bag of words": (lambda: Words(True), None),
    "padding word": (lambda: Words(False), None),
    **{f"padded by {mode}": (lambda m=mode: padded(m), IMAGE) for mode in ("zeros", "reflect", "replicate", "circular")},
    "pads between layers": (pads, IMAGE),
    "wrapped for several devices": (lambda: nn.DataParallel(plain()), IMAGE),
    "compiled": (lambda: torch.compile(plain(), backend="eager"), IMAGE),
    "averaged": (lambda: AveragedModel(plain()), IMAGE),
}  # fmt: skip
LEAST = {"layer scale": 0.2, "bag of words": 0.15, "padding word": 0.15, "encoder": 0.15, "encoder, norms first": 0.15}
"""How much must go at least, as a fraction of the parameters, where tables and the widths of norms stay; else 0.25."""


def made(build) -> nn.Module:
    """In double precision, with norms that have seen something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    return model


def apart(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        pairs = zip(tensors_of(call(one.eval(), x)), tensors_of(call(other.eval(), x)), strict=True)
        return max(float((a - b).abs().max()) / float(a.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("method", ["l1_norm", "snap"])
@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "compiled")) for k in KINDS])
def test_every_kind_of_network_is_cut_exactly_and_comes_back(kind, method, tmp_path):
    build, shape = KINDS[kind]
    model = made(build)
    x, other = (WORDS[:16], WORDS[16:]) if shape is None else (noise(16, *shape), noise(8, *shape, seed=1))
    with torch.no_grad():
        outputs = tensors_of(call(model, x))[0]
    labels = torch.randint(outputs.shape[1], (16, *outputs.shape[2:]), generator=GENERATOR.manual_seed(4))
    before = copy.deepcopy(model.state_dict())
    result = pc.prune(model, method, 0.4, batches=[(x, labels)], example_input=x[:1])
    small = result.shrink()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert apart(model, result.model, other) > 1e-6
    assert apart(result.model, small, other) < 1e-9
    assert pc.count_parameters(small) < (1 - LEAST.get(kind, 0.25)) * pc.count_parameters(model)
    result.save(tmp_path / "small")
    assert apart(small, pc.load_pruned(tmp_path / "small", model=model), other) < 1e-12


def test_cut_again_and_again_a_network_stays_exact_and_keeps_what_is_dead():
    model, x = made(plain), noise(1, *IMAGE)
    widths = []
    for _ in range(4):
        result = pc.prune(model, "l1_norm", 0.4, example_input=x)
        model = result.shrink()
        assert apart(result.model, model, noise(4, *IMAGE, seed=2)) < 1e-9
        widths.append((model[0].out_channels, model[3].out_channels))
    assert all(sum(after) < sum(before) for before, after in pairwise(widths))


@pytest.mark.parametrize("method", ["l1_norm", "random_channels", "magnitude", "snip", "synflow"])
def test_a_network_of_zeros_loses_what_was_asked(method):
    model = made(plain)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = noise(8, *IMAGE)
    result = pc.prune(model, method, 0.5, batches=[(x, torch.arange(8) % 3)], example_input=x[:1])
    assert result.report.reached == pytest.approx(0.5, abs=0.01)


def test_a_shrunk_network_can_be_quantised_and_averaged():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    small = pc.prune(model, "l1_norm", 0.5, example_input=torch.zeros(1, 6)).shrink()
    x = torch.randn(4, 6, generator=GENERATOR.manual_seed(0))
    averaged = AveragedModel(small)
    averaged.update_parameters(small)
    assert torch.equal(averaged(x), small(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that its quantisation will move
        quantised = torch.ao.quantization.quantize_dynamic(small, {nn.Linear}, dtype=torch.qint8)
    assert (quantised(x) - small(x)).abs().max() < 0.1 * small(x).abs().max()
