"""What somebody's own network holds beside layers: tensors that meet channels, results that are kept, weights made anew."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core import find_groups, load_pruned, prune
from pruning_core.errors import BadInput

IMAGES = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double()


class Scaled(nn.Module):
    """Channels times a parameter, plus one of a list, minus a buffer; behind them a head."""

    def __init__(self, persistent: bool = True):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.shifts = nn.ParameterList([nn.Parameter(torch.randn(1, 8, 1, 1))])
        self.register_buffer("centre", torch.randn(8), persistent=persistent)

    def forward(self, x):
        y = self.first(x).relu() * self.scale + self.second(x).sigmoid() + self.shifts[0] - self.centre[:, None, None]
        return self.head(y.mean((2, 3)))


class Padded(nn.Module):
    """A convolution beside the input itself: three channels of the sum belong to the input, and must stay."""

    def __init__(self):
        super().__init__()
        self.sum, self.part, self.head = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 9, 3, padding=1), nn.Linear(12, 4)

    def forward(self, x):
        return self.head((self.sum(x) + torch.cat([self.part(x), x], 1)).relu().mean((2, 3)))


class Tokens(nn.Module):
    """A table of positions added to projected numbers."""

    def __init__(self):
        super().__init__()
        self.project, self.places, self.head = nn.Linear(3, 10), nn.Embedding(7, 10), nn.Linear(10, 4)

    def forward(self, x):
        return self.head((self.project(x) + self.places(torch.arange(x.shape[1]))).tanh())


class ByHand(nn.Module):
    """A kernel of somebody's own whose number of groups is written out: only a trial shows that it cannot go."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 4)
        self.kernel = nn.Parameter(torch.randn(6, 1, 3, 3))

    def forward(self, x):
        return self.head(F.conv2d(self.first(x), self.kernel, groups=6).relu().mean((2, 3)))


def exact(model: nn.Module, x: torch.Tensor, tmp_path, narrower: dict[str, tuple[int, ...]]) -> None:
    """Half of the channels go from tensors of these names and to these shapes; masked, small and loaded agree."""
    result = prune(model, "l1_norm", 0.5, across="layer", example_input=x[:1])
    small = result.shrink()
    shapes = {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()}
    assert {name: shapes[name] for name in narrower} == narrower
    result.save(tmp_path / "small.safetensors")
    loaded = load_pruned(tmp_path / "small.safetensors", model=model)
    with torch.no_grad():
        expected = result.model.eval()(x)
        assert not torch.allclose(expected, model.eval()(x))
        for network in (small.eval(), loaded):
            torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


def test_tensors_that_meet_channels_are_cut_with_them(tmp_path):
    torch.manual_seed(0)
    narrower = {"scale": (4, 1, 1), "shifts.0": (1, 4, 1, 1), "centre": (4,), "first.weight": (4, 3, 3, 3)}
    exact(Scaled().double(), IMAGES, tmp_path, narrower)


def test_a_table_that_is_added_is_cut_with_what_it_is_added_to(tmp_path):
    torch.manual_seed(0)
    numbers = torch.randn(2, 5, 3).double()
    exact(Tokens().double(), numbers, tmp_path, {"places.weight": (7, 5), "project.weight": (5, 3)})


def test_where_some_channels_must_stay_the_others_can_go(tmp_path):
    torch.manual_seed(0)
    model = Padded().double()
    found = {group.name: (group.size, group.reason_fixed) for group in find_groups(model, IMAGES)}
    assert found["sum"] == (9, None) and found["sum, 3 of 12"][0] == 3 and "size is fixed" in found["sum, 3 of 12"][1]
    exact(model, IMAGES, tmp_path, {"part.weight": (4, 3, 3, 3), "sum.weight": (7, 3, 3, 3), "head.weight": (4, 7)})


def test_a_file_of_other_shapes_before_the_cut_is_refused(tmp_path):
    prune(Scaled(), "l1_norm", 0.5, across="layer", example_input=IMAGES.float()).save(tmp_path / "small.safetensors")
    other = Scaled()
    other.scale = nn.Parameter(torch.ones(9, 1, 1))
    with pytest.raises(BadInput, match="'scale' has shape"):
        load_pruned(tmp_path / "small.safetensors", model=other)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Scaled(persistent=False), "'centre', a buffer that is not saved"), (ByHand(), "without some of them")],
)
def test_what_cannot_be_cut_says_why(model, reason):
    found = {group.name: group.reason_fixed for group in find_groups(model.double(), IMAGES)}
    assert reason in found["first"]


def named(kind) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), kind(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (nn.utils.weight_norm, "remove_weight_norm"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (nn.utils.parametrizations.weight_norm, "remove_parametrizations"),
        (nn.utils.parametrizations.spectral_norm, "remove_parametrizations"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_is_made_anew_keeps_its_channels_and_says_what_to_do(kind, remedy):
    x = torch.randn(2, 4)
    model = named(kind)
    model(x)  # leaves a weight with a history behind
    found = {group.name: group.reason_fixed for group in find_groups(model, x)}
    assert all(remedy in found[name] for name in ("0", "2") if name in found) and "0" in found, found
    assert found["4"] == "they are outputs of the network"


class Keeping(nn.Module):
    """A layer that remembers what it computed last."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.seen = nn.Linear(4, 6), nn.Linear(6, 3), []

    def forward(self, x):
        y = self.first(x).relu()
        self.last_seen, self.seen = y, [{"y": y}]
        return self.last(y)


def test_a_network_that_keeps_results_is_copied_without_their_history():
    model, x = Keeping(), torch.randn(2, 4)
    model(x)
    small = prune(model, "l1_norm", 0.5, example_input=x).shrink()
    assert small.first.out_features == 3 and model.last_seen.grad_fn is not None


@pytest.mark.parametrize("call", [find_groups, lambda model, x: prune(model, "magnitude", 0.5, example_input=x)])
def test_what_cannot_be_copied_is_named(call):
    model = nn.Sequential(Keeping())
    model[0].guard = threading.Lock()
    with pytest.raises(BadInput, match=r"its attribute 'guard' of layer '0' \(lock\) cannot: .*take it off"):
        call(model, torch.randn(2, 4))


def test_a_norm_over_all_channels_says_which_others_are_free():
    layers = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)
    found = {group.name: group.reason_fixed for group in find_groups(nn.Sequential(*layers), torch.randn(2, 4))}
    assert (
        found["0"] == "they go through LayerNorm '1', where removing is not exact; it leaves the channels of '2' free"
    )
    assert found["2"] is None


class Heads(nn.Module):
    """Attention with the number of heads written out, and the width of a head that follows."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (layer(x).view(len(x), x.shape[1], 3, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_where_the_number_of_heads_is_written_out_every_head_loses_the_same(tmp_path):
    torch.manual_seed(0)
    model, x = Heads().double(), torch.randn(2, 5, 12).double()
    found = {group.name: group.reason_fixed for group in find_groups(model, x)}
    assert found["v"] is None and "multiplied with each other" in found["q"]
    exact(model, x, tmp_path, {"v.weight": (6, 12), "out.weight": (12, 6), "q.weight": (12, 12)})
