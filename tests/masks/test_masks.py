"""Masks, scores and schedules as values: what always holds, whatever their shapes."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruning_core.errors import BadInput, BadType, CorruptFile, UnknownName
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import SCHEDULES, fraction_after
from pruning_core.masks.scores import COMBINERS, Scores, combine
from pruning_core.records.checkpoints import save_tensors

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@st.composite
def two_masks(draw):
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    sizes = {name: draw(shapes) for name in names}
    made = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
        made.append(Masks({n: torch.rand(s, generator=generator) > 0.4 for n, s in sizes.items()}))
    return made


@given(two_masks())
@settings(max_examples=60, deadline=None)
def test_and_or_and_subset_agree(masks):
    a, b = masks
    assert (a & b) <= a
    assert a <= (a | b)
    assert (a <= b) == ((a & b) == a)
    assert (a & b).removed >= max(a.removed, b.removed)
    assert a.total == sum(mask.numel() for mask in a.values())
    assert a.sparsity == pytest.approx(1 - sum(int(m.sum()) for m in a.values()) / a.total)


@given(two_masks())
@settings(max_examples=30, deadline=None)
def test_a_missing_entry_is_alive_everywhere(masks):
    a, b = masks
    fewer = Masks(dict(list(b.items())[1:]))
    assert (a & fewer) <= a
    assert set(a & fewer) == set(a)
    name = next(iter(b))
    assert name not in (a | fewer) or name in fewer
    assert (a <= fewer) == all(not (a[n] & ~fewer[n]).any() for n in fewer)


def test_masks_are_saved_and_loaded_bit_for_bit(tmp_path):
    masks = Masks({"a.weight": torch.rand(3, 4) > 0.5, "b": torch.rand(7) > 0.5})
    masks.save(tmp_path / "masks.safetensors")
    assert Masks.load(tmp_path / "masks.safetensors") == masks
    broken = bytearray((tmp_path / "masks.safetensors").read_bytes())
    broken[-1] ^= 1
    (tmp_path / "masks.safetensors").write_bytes(broken)
    with pytest.raises(CorruptFile):
        Masks.load(tmp_path / "masks.safetensors")


def test_a_file_of_something_else_holds_no_masks(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"weight": torch.ones(2)}, {})
    assert len(Masks.load(tmp_path / "other.safetensors")) == 0


def test_applying_zeroes_also_what_is_not_a_number():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[float("nan"), 3.0]]))
    Masks({"weight": torch.tensor([[False, True]])}).apply_(layer)
    assert layer.weight.tolist() == [[0.0, 3.0]]


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        ({"nothing": torch.ones(2, dtype=torch.bool)}, "no parameter 'nothing'"),
        ({"weight": torch.ones(2, dtype=torch.bool)}, "has shape"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, match):
    with pytest.raises(BadInput, match=match):
        Masks(masks).apply_(nn.Linear(3, 2))


def test_only_bool_tensors_are_masks():
    with pytest.raises(BadType, match="bool"):
        Masks({"weight": torch.ones(2)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_refuse_what_cannot_be_ranked(value):
    with pytest.raises(BadInput, match=r"'w' hold 1 NaN or infinite value, first at position \(1, 2\)"):
        Scores({"w": torch.tensor([[0.0, 1, 2], [3, 4, value]])})


def test_scores_of_overflowing_sum_are_fine():
    assert len(Scores({"w": torch.full((4,), 3e38)})) == 1


@pytest.mark.parametrize("how", ["sum", "mean", "max", "l2"])
def test_normalising_keeps_the_order_and_survives_zeros(how):
    scores = Scores({"a": torch.tensor([3.0, 1.0, 2.0]), "zero": torch.zeros(3)}).normalised(how)
    assert scores["a"].argsort().tolist() == [1, 2, 0]
    assert scores["zero"].tolist() == [0, 0, 0]
    size = {"sum": scores["a"].sum(), "mean": scores["a"].mean(), "max": scores["a"].max(), "l2": scores["a"].norm()}
    assert float(size[how]) == pytest.approx(1)


def test_combining_says_how():
    parts = [torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])]
    found = {how: combine(parts, how).tolist() for how in COMBINERS}
    assert found == {"sum": [4, 6], "mean": [2, 3], "max": [3, 5], "first": [1, 5]}
    with pytest.raises(UnknownName, match="did you mean 'sum'"):
        combine(parts, "summ")


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 12), st.floats(0, 0.98), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_every_schedule_rises_to_its_target(name, n, start, share):
    target = start + (0.99 - start) * share
    values = [fraction_after(name, i, n, target, start) for i in range(1, n + 1)]
    assert values[-1] == target
    assert all(start - 1e-9 <= value <= target + 1e-9 for value in values)
    assert all(a <= b + 1e-9 for a, b in pairwise(values))


def test_schedules_are_the_published_formulas():
    assert [fraction_after("snip_it", i, 7, 0.98) for i in range(1, 8)] == pytest.approx(
        [0.5, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98]
    )
    assert fraction_after("geometric", 1, 2, 0.75) == pytest.approx(0.5)
    assert fraction_after("cubic", 1, 2, 0.8) == pytest.approx(0.8 * (1 - 0.125))
    assert fraction_after("linear", 1, 4, 0.8) == pytest.approx(0.2)
    assert fraction_after("harmonic", 2, 3, 0.75) == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize(("i", "n", "target"), [(0, 3, 0.5), (4, 3, 0.5), (1, 3, 1.0), (1, 3, -0.1)])
def test_rounds_and_targets_out_of_range_are_refused(i, n, target):
    with pytest.raises(BadInput):
        fraction_after("linear", i, n, target)
