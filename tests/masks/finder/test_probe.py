"""The trial behind the search: it blames the groups that fail, tells why, in few attempts; none where nothing is doubted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core import build_model, find_groups, prune
from pruning_core.masks.finder import probe


class Attention(nn.Module):
    """Four heads from one fused layer; ``heads`` is written out, or follows from the width of a head."""

    def __init__(self, width: int = 8, written: bool = True):
        super().__init__()
        self.qkv, self.out, self.written = nn.Linear(width, 48), nn.Linear(16, width), written

    def forward(self, x):
        sizes = (3, 4, -1) if self.written else (3, -1, 4)
        q, k, v = self.qkv(x).unflatten(2, sizes).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Halves(nn.Module):
    """The first six of twelve and the others, by number or by computation."""

    def __init__(self, width: int = 8, written: bool = False):
        super().__init__()
        self.wide, self.out, self.written = nn.Linear(width, 12), nn.Linear(6, width), written

    def forward(self, x):
        y = self.wide(x)
        half = 6 if self.written else y.shape[-1] // 2
        return x + self.out(y[..., :half] * y[..., half:].sigmoid())


class Counted(Halves):
    """The same, over their number."""

    def forward(self, x):
        first, second = self.wide(x).chunk(2, -1)
        return x + self.out(first * second / first.shape[-1])


class Block(nn.Module):
    """Heads that are written out, and halves that are not, in one forward pass without modules of their own."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.qkv, self.out, self.wide, self.back = (
            nn.Linear(width, 36),
            nn.Linear(12, width),
            nn.Linear(width, 12),
            nn.Linear(6, width),
        )

    def forward(self, x):
        q, k, v = self.qkv(x).view(len(x), -1, 3, 4, 3).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        value, gate = self.wide(x).chunk(2, -1)
        return x + self.back(value * gate.sigmoid())


@pytest.fixture
def cuts(monkeypatch):
    seen = []
    remove = probe.remove
    monkeypatch.setattr(probe, "remove", lambda *arguments: seen.append(1) or remove(*arguments))
    return seen


def reasons(*blocks: nn.Module) -> dict[str, str | None]:
    model = nn.Sequential(*blocks, nn.Linear(8, 3)).double()
    return {group.name: group.reason_fixed for group in find_groups(model, torch.randn(2, 7, 8).double())}


X = torch.randn((2, 7, 8), generator=torch.Generator().manual_seed(0)).double()


def test_heads_that_are_counted_from_the_layer_are_cut_exactly():
    torch.manual_seed(0)
    model = nn.Sequential(Attention(written=False), Halves(), nn.Linear(8, 3)).double()
    result = prune(model, "l1_norm", 0.5, across="layer", example_input=X)
    assert result.shrink()[0].qkv.out_features == 24 and result.shrink()[1].wide.out_features == 6
    with torch.no_grad():
        assert torch.allclose(result.shrink()(X), result.model(X), rtol=0, atol=1e-12)


def test_a_number_that_only_values_show_is_blamed():
    found = reasons(Counted(), Halves())
    assert "masked and smaller network differ by" in found["0.wide"] and found["1.wide"] is None


def test_a_written_number_of_heads_leaves_queries_and_keys_whole():
    assert "where they are multiplied with each other and summed" in reasons(Attention())["0.qkv"]


def test_sizes_that_are_written_out_are_blamed_and_the_rest_is_free():
    found = reasons(Halves(written=True), nn.Linear(8, 8), Halves(), Attention(written=False))
    assert "without some of them, The size of tensor" in found["0.wide"]
    assert found["2.wide"] is None and found["3.qkv"] is None


def test_many_blocks_of_one_kind_need_few_trials(cuts):
    found = reasons(*(Halves(written=True) for _ in range(16)), Attention(written=False))
    assert [name for name, reason in found.items() if reason is None] == ["16.qkv"]
    assert len(cuts) <= 4 + 2  # at first, the others of the kind, the rest; and the values of the rest, in two copies


def test_of_the_groups_of_one_module_only_those_that_fail_are_blamed(cuts):
    found = reasons(*(Block() for _ in range(8)))
    assert all(
        ("invalid for input" in (reason or "")) == ("qkv" in name)
        for name, reason in found.items()
        if name[2:] in ("qkv", "wide")
    )
    assert {name for name, reason in found.items() if reason is None} == {f"{block}.wide" for block in range(8)}
    assert (
        len(cuts) <= 7 + 2
    )  # at first, the two of one block and each alone, the others of their kind, the rest; values


def test_halves_are_tried_where_the_layer_to_blame_is_not_known(cuts):
    found = reasons(*(Attention(written=position != 5) for position in range(8)))
    assert [name for name, reason in found.items() if reason is None and "qkv" in name] == ["5.qkv"]


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "densenet22", "inverted4"])
def test_where_nothing_is_doubted_nothing_is_tried(name, cuts):
    find_groups(build_model(name, ((1, 28, 28), 10), width=0.5, seed=0), torch.randn(1, 1, 28, 28))
    assert not cuts
