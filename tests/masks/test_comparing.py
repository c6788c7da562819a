"""A smaller network is given out only if it is the masked one: in double precision, on inputs that nobody chose."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import Unprunable
from pruning_core.masks.comparing import compare, in_double
from pruning_core.masks.groups import Group, Member, expand
from pruning_core.masks.removal import remove


class Mixing(nn.Module):
    """Two convolutions, and between them something that no channel passes alone."""

    def __init__(self, mix):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 14, 3, padding=1), nn.Conv2d(14, 9, 1), nn.Linear(9, 3)
        self.mix = mix
        self.register_buffer("shift", torch.linspace(-0.1, 0.1, 14).view(1, 14, 1, 1))

    def forward(self, x):
        return self.head(self.second(self.mix(self, self.first(x))).relu().mean((2, 3)))


MIXING = {
    "softmax": lambda m, y: y.softmax(1),
    "log-softmax": lambda m, y: y.log_softmax(1),
    "softmin of squares": lambda m, y: F.softmin(y.square(), dim=1),
    "softmax of a tenth": lambda m, y: (y / 10).softmax(1),
    "softmax as weights": lambda m, y: y * y.softmax(1),
    "softmax beside itself": lambda m, y: y + 1e-3 * y.softmax(1),
    "softmax after a rectifier": lambda m, y: y.relu().softmax(1),
    "softmax, then squared": lambda m, y: y.softmax(1).square(),
    "softmax of means": lambda m, y: y * y.mean((2, 3), keepdim=True).softmax(1),
    "softmax in two steps": lambda m, y: y.exp() / y.exp().sum(1, keepdim=True),
    "mean of channels": lambda m, y: y - y.mean(1, keepdim=True),
    "largest of neighbours": lambda m, y: F.max_pool3d(y[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0],
    "turned around": lambda m, y: y.flip(1),
    "buffer by shape": lambda m, y: y + m.shift[:, : y.shape[1]],
    "response norm": lambda m, y: F.local_response_norm(y, 5),
}


def made(build, seed: int = 0, dtype=torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(dtype).eval()


def shrunk(model: nn.Module, example, method: str = "l1_norm", **options) -> nn.Module:
    return pc.prune(model, method, 0.3, example_input=example, **options).shrink()


def cut(model: nn.Module, example, first: str = "first", second: str = "second") -> nn.Module:
    """A third of the channels between two layers removed, whatever lies between them, and the outcome compared."""
    size = len(model.get_submodule(first).weight)
    every, alive = torch.arange(size), torch.arange(size) % 3 != 1
    rows = [Member(f"{first}.{leaf}", 0, every, every) for leaf in ("weight", "bias")]
    group = Group(first, size, tuple(rows), consumes=(Member(f"{second}.weight", 1, every, every),))
    masks = expand({first: alive}, {first: group}, {name: p.shape for name, p in model.named_parameters()})
    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    masks.apply_(masked)
    compare(masked, small, example, remove(small, masks, [group]))
    return small


@pytest.mark.parametrize("example", ["noise", "zeros"])
@pytest.mark.parametrize("mix", MIXING)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_mixes_channels_is_refused_in_single_precision_whatever_the_example(mix, example, seed):
    model = made(lambda: Mixing(MIXING[mix]), seed)
    x = torch.zeros(1, 2, 7, 7) if example == "zeros" else torch.randn(1, 2, 7, 7)
    with pytest.raises(Unprunable, match="from Conv2d 'second' on"):
        cut(model, x)


@pytest.mark.parametrize("mix", MIXING)
def test_the_search_fixes_what_mixes_channels_or_follows_it(mix):
    model, x = made(lambda: Mixing(MIXING[mix]), dtype=torch.float64), torch.randn(2, 2, 7, 7, dtype=torch.float64)
    if mix in (
        "turned around",
        "buffer by shape",
    ):  # the second layer reads channel c at 13 - c; the buffer is cut as well
        result = pc.prune(model, "l1_norm", 0.3, example_input=x, scope=["first"])
        assert torch.allclose(result.shrink()(x), result.model(x), rtol=0, atol=1e-12)
    else:
        with pytest.raises(Unprunable, match=r"channels of first: they (go through|are used together)"):
            shrunk(model, x, scope=["first"])


@pytest.mark.parametrize("layer", [nn.LocalResponseNorm(3), nn.Softmax(dim=1), nn.Softmax2d(), nn.CrossMapLRN2d(3)])
def test_the_layer_that_mixes_channels_is_named(layer):
    model = made(lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), layer, nn.Conv2d(8, 3, 1)), seed=1)
    with pytest.raises(Unprunable, match=f"from {type(layer).__name__} '2' on"):
        cut(model, torch.zeros(1, 2, 6, 6), "0", "3")
    with pytest.raises(Unprunable, match=f"through .*{type(layer).__name__} '2'"):
        shrunk(model, torch.zeros(1, 2, 6, 6))


class Unpooling(nn.Module):
    """Where the largest values of one half of the channels stood, those of the other half are put back."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 13, 3, padding=1), nn.Conv2d(13, 3, 1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        pooled, places = self.pool(self.first(x))
        return self.second(self.unpool(pooled, places.flip(1)))


def test_unpooling_with_the_indices_of_other_channels_is_refused():
    with pytest.raises(Unprunable, match="differ by"):
        cut(made(Unpooling), torch.zeros(1, 2, 8, 8))
    with pytest.raises(Unprunable, match="max_unpool2d in MaxUnpool2d 'unpool', which has no rule"):
        shrunk(made(Unpooling), torch.zeros(1, 2, 8, 8))


def test_behind_a_head_of_zeros_the_layers_are_compared():
    hiding = made(lambda: Mixing(MIXING["softmax"]))
    nn.init.zeros_(hiding.head.weight), nn.init.zeros_(hiding.head.bias)
    with pytest.raises(Unprunable, match="from Conv2d 'second' on"):
        cut(hiding, torch.zeros(1, 2, 7, 7))
    plain = made(lambda: Mixing(lambda m, y: y.relu()))
    nn.init.zeros_(plain.head.weight), nn.init.zeros_(plain.head.bias)
    assert shrunk(plain, torch.zeros(1, 2, 7, 7)).first.out_channels < 14


class Tokens(nn.Module):
    """Whole numbers and a mask go in; ``mixed`` makes the widths depend on each other for all tokens but the first."""

    def __init__(self, mixed: bool):
        super().__init__()
        self.table, self.hidden, self.out = nn.Embedding(30, 6), nn.Linear(6, 10), nn.Linear(10, 3)
        self.mixed = mixed

    def forward(self, tokens, valid):
        y = self.hidden(self.table(tokens)).relu()
        if self.mixed:
            y = torch.where((tokens > 0)[..., None], y.softmax(-1), y)
        return (self.out(y) * valid[..., None]).sum(1)


def test_whole_numbers_are_drawn_up_to_the_largest_of_the_example():
    example = (torch.tensor([[0, 0, 0, 29]]), torch.tensor([[True, True, True, False]]))
    assert shrunk(made(lambda: Tokens(False)), example).hidden.out_features == 7
    with pytest.raises(Unprunable, match="from Linear 'out' on"):
        cut(made(lambda: Tokens(True)), example, "hidden", "out")


class Lowering(Mixing):
    """A network that computes one step in single precision, whatever it is given."""

    def __init__(self):
        super().__init__(lambda m, y: y.float().sigmoid().to(m.first.weight.dtype))


class SingleOnly(Mixing):
    """A network that runs in its own precision alone."""

    def __init__(self):
        super().__init__(lambda m, y: (y + torch.zeros(y.shape, dtype=torch.float32)).relu())

    def forward(self, x):
        assert self.first.weight.dtype == torch.float32
        return super().forward(x)


class Logarithm(Mixing):
    """Positive inputs only: noise gives NaN."""

    def forward(self, x):
        return super().forward(x.log())


EVERYWHERE = [Lowering, lambda: Logarithm(lambda m, y: y.relu()), lambda: Mixing(lambda m, y: y.tanh())]
TYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize(
    ("build", "dtype"), [(SingleOnly, torch.float32), *((b, t) for b in EVERYWHERE for t in TYPES)]
)
def test_right_networks_pass_whatever_precision_they_compute_in(build, dtype):
    model = made(build, dtype=dtype)
    assert shrunk(model, torch.rand(1, 2, 7, 7, dtype=dtype) + 0.5, scope=["first"]).second.in_channels == 10


def test_where_noise_does_not_pass_inputs_between_those_of_the_example_are_drawn():
    model = made(lambda: Logarithm(lambda m, y: y.relu()))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    compare(model, model, torch.tensor([0.5, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3))
    noise, between = seen[:2]
    assert bool((noise < 0).any()) and bool((between >= 0.5).all()) and bool((between <= 2).all())
    assert torch.equal(seen[-1], between)


@pytest.mark.parametrize(("pixels", "sides"), [(None, [64]), (96, [64, 96])])
def test_noise_is_of_few_pixels_where_the_network_takes_them(pixels, sides):
    body = nn.AdaptiveAvgPool2d(1) if pixels is None else nn.AvgPool2d(pixels)
    model = made(lambda: nn.Sequential(nn.Conv2d(1, 3, 1), body, nn.Flatten(), nn.Linear(3, 2)))
    seen: list[int] = []
    model.register_forward_pre_hook(lambda layer, given: seen.append(given[0].shape[-1]))
    compare(model, copy.deepcopy(model), torch.zeros(1, 1, 96, 96))
    assert list(dict.fromkeys(seen)) == sides


def test_copies_in_double_share_what_the_network_shares_and_leave_it_as_it_is():
    model = made(lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)))
    model[2].weight = model[0].weight
    twin = in_double(model)
    assert twin[2].weight is twin[0].weight and twin[0].weight.dtype == torch.float64
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_random_state_modes_and_the_networks_stay_as_they_were():
    model = made(lambda: Mixing(lambda m, y: y.relu())).train()
    before = copy.deepcopy(model.state_dict())
    result = pc.prune(model, "l1_norm", 0.3, example_input=torch.zeros(1, 2, 7, 7))
    state = torch.get_rng_state()
    result.shrink()
    assert torch.equal(state, torch.get_rng_state())
    assert result.model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
