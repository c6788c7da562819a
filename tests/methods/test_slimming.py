"""Ranking channels by batch-norm scales: Network Slimming, uniform scaling, thresholds of the RNI code, polarisation."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, BudgetError, Unprunable
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.polarization import Polarization, histogram_threshold, polarising
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.shared.batch_norm_scales import quantile_masks, quantile_thresholds
from pruning_core.methods.slimming import Slimming
from pruning_core.methods.ucs import UniformChannelScaling
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import ClampedBatchNorm1d, ClampedBatchNorm2d, SigmoidBatchNorm2d
from pruning_core.pruning import prune_step
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer

EXAMPLE = torch.zeros(1, 1, 4, 4)


def network(first, second, norm=nn.BatchNorm2d) -> nn.Module:
    """Two convolutions with norms of these scales, in network order groups "0" and "3"."""
    model = nn.Sequential(
        nn.Conv2d(1, len(first), 3, padding=1, bias=False), norm(len(first)), nn.ReLU(),
        nn.Conv2d(len(first), len(second), 3, padding=1), norm(len(second)), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * len(second), 3),
    )  # fmt: skip
    model[1].weight.data.copy_(torch.tensor(first))
    model[4].weight.data.copy_(torch.tensor(second))
    return model


def view_of(model, method, example=EXAMPLE) -> View:
    sites = find_sites(model, channels=True, example_input=example, refuses=method.refuses)
    return View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example)


def kept(model, method, budget):
    """Indices kept in each group, and the remarks."""
    view = view_of(model, method)
    choice = prune_step(copy.deepcopy(model), method, budget, view.sites, Masks(), example_input=EXAMPLE)
    groups = view.sites.groups.items()
    return {n: group.alive(choice.masks).nonzero().flatten().tolist() for n, group in groups}, choice.remarks


SCALES = [0.1, -0.9, 0.3, 0.2, -0.05], [1.5, 0.4, -0.6, 2.0, 0.35, 0.01]


# --- Network Slimming and uniform scaling


def test_slimming_compares_absolute_scales_of_all_layers():
    found, _ = kept(network(*SCALES), Slimming(), Budget(5 / 11, of="channels"))
    assert found == {"0": [1], "3": [0, 1, 2, 3, 4]}
    by_layer, _ = kept(network(*SCALES), Slimming(), Budget(0.5, of="channels", across="layer"))
    assert by_layer == {"0": [1, 2], "3": [0, 2, 3]}
    normalised, _ = kept(network(*SCALES), Slimming(normalise="max"), Budget(6 / 11, of="channels"))
    assert normalised == {"0": [1, 2, 3], "3": [0, 3]} or normalised == {"0": [1, 2], "3": [0, 2, 3]}
    relative = {("0", i): abs(s) / 0.9 for i, s in enumerate(SCALES[0])}
    relative |= {("3", i): abs(s) / 2.0 for i, s in enumerate(SCALES[1])}
    best = sorted(sorted(relative, key=relative.get)[-5:])
    assert [(group, i) for group in normalised for i in normalised[group]] == best
    with pytest.raises(BadInput, match="unknown normaliser"):
        Slimming(normalise="median")


def test_uniform_scaling_takes_the_same_fraction_everywhere():
    found, remarks = kept(network(*SCALES), UniformChannelScaling(), Budget(0.5, of="channels"))
    assert found == {"0": [1, 2], "3": [0, 2, 3]}
    assert remarks == ("channels are compared within a layer only, so every layer lost the same fraction",)
    again, remarks = kept(network(*SCALES), UniformChannelScaling(), Budget(0.5, of="channels", across="layer"))
    assert (again, remarks) == (found, ())
    mapped, _ = kept(network(*SCALES), UniformChannelScaling(), Budget(of="channels", across={"3": 0.5}))
    assert mapped == {"0": [0, 1, 2, 3, 4], "3": [0, 2, 3]}
    with pytest.raises(BadInput, match="give a sparsity"):
        kept(network(*SCALES), UniformChannelScaling(), Budget(below=0.1, of="channels"))


def test_a_sigmoid_norm_is_ranked_by_the_scale_that_acts():
    model = network([-3.0, 0.2, -1.0, 0.4], [0.1, 0.2, 0.3, 0.5], SigmoidBatchNorm2d)
    for method in (Slimming(), UniformChannelScaling(), RecedingNeurons()):
        found, _ = kept(model, method, Budget(0.5, of="channels", across="layer"))
        assert found == {"0": [1, 3], "3": [2, 3]}


def test_the_minimum_of_the_budget_holds_also_with_ties():
    model = network([0.5] * 8, [0.5] * 8)
    model[1].weight.data[2:] = 0.25  # fewer than three stand out
    for method in (Slimming(), UniformChannelScaling(), Polarization()):
        for fraction in (0.5, 0.6):
            found, _ = kept(model, method, Budget(fraction, of="channels", keep_at_least=3))
            assert sum(map(len, found.values())) == 16 - round(fraction * 16)
            assert all(len(channels) >= 3 for channels in found.values())
        with pytest.raises(BudgetError):
            kept(model, method, Budget(0.8, of="channels", keep_at_least=3))
    tight, _ = kept(model, Slimming(), Budget(10 / 16, of="channels", keep_at_least=3))
    assert tight == {"0": [0, 1, 2], "3": [0, 1, 2]}


def test_penalties_cover_every_ordinary_norm_and_only_the_living():
    model = network(*SCALES)
    model.append(nn.BatchNorm1d(3)).append(SigmoidBatchNorm2d(2)).append(nn.BatchNorm2d(2, affine=False))
    model[8].weight.data.copy_(torch.tensor([0.0, -2.0, 1.0]))
    alive = Masks({"1.weight": torch.tensor([True, True, False, True, False])})
    value = Slimming().penalty(model, alive)
    assert value.item() == pytest.approx(0.1 + 0.9 + 0.2 + sum(map(abs, SCALES[1])) + 3.0)
    value.backward()
    assert model[1].weight.grad.tolist() == [1, -1, 0, 1, 0]
    assert model[8].weight.grad.tolist() == [0, -1, 1]  # the sub-gradient at 0 is 0
    assert model[9].weight.grad is None
    with pytest.raises(Unprunable, match="no ordinary batch norm with a scale, so 'slimming'"):
        Slimming().penalty(network([0.1], [0.2], SigmoidBatchNorm2d), Masks())
    with pytest.raises(BadInput, match="'ucs' has no penalty"):
        UniformChannelScaling().penalty(model, Masks())


class Tied(nn.Module):
    """A residual sum, then a layer whose channels pass no norm."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.c = nn.Conv2d(4, 5, 1)
        self.d = nn.Conv2d(5, 2, 1)
        self.norm_a.weight.data.copy_(torch.tensor([0.1, -0.5, 0.9, 0.2]))
        self.norm_b.weight.data.copy_(torch.tensor([0.3, 0.4, -0.1, 0.05]))

    def forward(self, x):
        x = F.relu(self.norm_a(self.a(x)))
        return self.d(F.relu(self.c(x + self.norm_b(self.b(x))))).mean((2, 3))


def test_tied_channels_are_refused_until_a_combination_is_named():
    model = Tied()
    with pytest.raises(Unprunable, match="2 batch norms scale them"):
        view_of(model, Slimming())
    combined = {"sum": [0.4, 0.9, 1.0, 0.25], "max": [0.3, 0.5, 0.9, 0.2], "mean": [0.2, 0.45, 0.5, 0.125]}
    for how, expected in combined.items():
        view = view_of(model, Slimming(tied=how))
        assert [*view.sites.groups] == ["a"]
        assert view.sites.excluded["channels of c"] == "no batch norm with a scale acts on them"
        torch.testing.assert_close(Slimming(tied=how).score(view)["a"], torch.tensor(expected))
    for method in (Slimming, UniformChannelScaling, Polarization, RecedingNeurons):
        with pytest.raises(BadInput, match="unknown combination"):
            method(tied="total")


class Widened(nn.Module):
    """A residual sum whose other addend comes through an index layer: only one batch norm is in sight."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.wider = ChannelIndex.option_a(4, 6, 1)
        self.c = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = F.relu(self.norm_a(self.a(x)))
        return self.c(F.relu(self.wider(x) + self.norm_b(self.b(x)))).mean((2, 3))


def test_channels_that_an_index_layer_adds_to_are_tied_as_well():
    view = view_of(Widened(), Slimming())
    assert [*view.sites.groups] == ["a"]
    assert view.sites.excluded["channels of b"].startswith("an index layer adds channels")
    assert [*view_of(Widened(), Slimming(tied="first")).sites.groups] == ["a", "b"]


class Joined(nn.Module):
    """One norm over two concatenated branches, and one behind a flatten: three rows a channel."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(5)
        self.mix = nn.Conv2d(5, 2, 1)
        self.flat = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)
        self.norm.weight.data.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
        self.flat.weight.data.copy_(torch.tensor([1.0, 2, 3, 4, -5, 6, 7, 8]))

    def forward(self, x):
        x = F.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.head(F.relu(self.flat(self.mix(x).flatten(1))))


def test_concatenations_and_flattened_channels_find_their_scales():
    view = view_of(Joined(), Slimming(), torch.zeros(1, 1, 2, 2))
    scores = Slimming().score(view)
    assert {name: pytest.approx(score.tolist()) for name, score in scores.items()} == {
        "left": [0.1, 0.2, 0.3],
        "right": [0.4, 0.5],
        "mix": [2.5, 6.5],  # means over the positions
    }


def test_densenet_inner_channels_have_one_norm_and_the_others_are_tied():
    model = pc.build_model("densenet22", ((3, 8, 8), 4), width=0.25, seed=0)
    with torch.no_grad():
        for i, (_, p) in enumerate(n for n in model.named_parameters() if n[0].endswith("weight") and n[1].dim() == 1):
            p.copy_(torch.rand(len(p), generator=torch.Generator().manual_seed(i)))
    view = view_of(model, Slimming(), torch.zeros(1, 3, 8, 8))
    inner = [name for name in view.sites.groups if name.endswith(".conv1")]
    assert len(inner) == 9
    scores = Slimming().score(view)
    for name in inner:
        norm = model.get_submodule(name.replace("conv1", "bn2"))
        torch.testing.assert_close(scores[name], norm.weight.detach())
    last = "blocks.dense1.2.conv2"  # read by the transition's norm only, behind everything that came before
    size = view.sites.groups[last].size
    torch.testing.assert_close(scores[last], model.blocks.transition1.bn.weight.detach()[-size:])
    assert "batch norms scale them" in view.sites.excluded["channels of conv1"]
    tied = Slimming(tied="sum")
    first = tied.score(view_of(model, tied, torch.zeros(1, 3, 8, 8)))["conv1"]
    readers = [model.blocks.dense1[i].bn1 for i in range(3)] + [model.blocks.transition1.bn]
    torch.testing.assert_close(first, sum(norm.weight.detach()[: len(first)] for norm in readers))


# --- the thresholds of the RNI code


def official(scores, fraction, scope, minimum):
    """The rule once more, slowly, on Python lists of floats."""
    keep = []
    for values in scores:
        pool = sorted(v for s in scores for v in s) if scope == "global" else sorted(values)
        position = (len(pool) - 1) * fraction
        low = math.floor(position)
        high = min(low + 1, len(pool) - 1)
        threshold = pool[low] + (pool[high] - pool[low]) * (position - low)
        if sum(v >= threshold for v in values) < minimum:
            threshold = sorted(values, reverse=True)[minimum]
        keep.append([v > threshold for v in values])
    return keep


VALUES = st.integers(0, 12).map(lambda n: n / 8)  # exact in binary, and often equal


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(VALUES, min_size=5, max_size=9), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0]),
    st.sampled_from(["global", "local"]),
    st.integers(0, 4),
)
def test_thresholds_follow_the_rule(layers, fraction, scope, minimum):
    scores = [torch.tensor(layer, dtype=torch.float64) for layer in layers]
    found = quantile_masks(scores, fraction, scope, minimum)
    assert [mask.tolist() for mask in found] == official(layers, fraction, scope, minimum)


def test_thresholds_of_distinct_scores_count_as_the_paper_sheet_says():
    scores = torch.randperm(4224, generator=torch.Generator().manual_seed(0)).float().split([64] * 66)
    for fraction in (0.0, 0.3, 0.5, 0.9):
        kept_ = sum(int(mask.sum()) for mask in quantile_masks(scores, fraction, minimum=0))
        assert kept_ == 4224 - 1 - math.floor(4223 * fraction)
    assert [int(mask.sum()) for mask in quantile_masks(scores, 1.0)] == [3] * 66
    assert not any(bool(mask.any()) for mask in quantile_masks([torch.full((6,), 0.5)] * 2, 0.5))


def test_thresholds_stay_in_the_dtype_of_the_scores():
    """Between two neighbouring numbers of float32 the quantile rounds onto one of them; in float64 it lies between."""
    low = np.float32(1)
    scores = torch.tensor([low, np.nextafter(low, np.float32(2), dtype=np.float32)])
    single, double = quantile_thresholds([scores], np.float64(0.9)), quantile_thresholds([scores.double()], 0.9)
    assert single[0].dtype == torch.float32
    assert quantile_masks([scores], np.float64(0.9), minimum=0)[0].tolist() == [False, False]
    assert double[0].dtype == torch.float64
    assert quantile_masks([scores.double()], 0.9, minimum=0)[0].tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([torch.ones(4)], -0.1), BadInput, r"must lie in \[0, 1\]"),
        (([torch.ones(4)], 1.5), BadInput, r"must lie in \[0, 1\]"),
        (([torch.ones(4)], math.nan), BadInput, r"must lie in \[0, 1\]"),
        (([torch.ones(4)], "0.5"), BadType, "must be a number"),
        (([torch.ones(4)], True), BadType, "must be a number"),
        (([torch.ones(4)], 0.5, "layer"), BadInput, "unknown scope"),
        (([torch.ones(4)], 0.5, "local", -1), BadInput, "minimum must be at least 0"),
        (([torch.ones(4)], 0.5, "local", 2.0), BadType, "minimum must be a whole number"),
        (([], 0.5), BadInput, "no scores"),
        (([torch.ones(4), torch.ones(2, 2)], 0.5), BadInput, "layer 2 must be a vector"),
        (([torch.ones(4), torch.ones(0)], 0.5), BadInput, "layer 2 must be a vector"),
        (([torch.tensor([1.0, math.nan])], 0.5), BadInput, "finite"),
        (([torch.ones(4, dtype=torch.long)], 0.5), BadType, "floating-point"),
        (([torch.arange(3.0), torch.arange(9.0) + 5], 0.5), BadInput, "layer 1 has 3 channels"),
    ],
)
def test_thresholds_refuse_what_they_cannot_take(arguments, error, message):
    with pytest.raises(error, match=message):
        quantile_masks(*arguments)


@pytest.mark.parametrize("kind", [Slimming, UniformChannelScaling, RecedingNeurons])
def test_reference_cuts_at_the_thresholds(kind):
    scales = torch.randn(20, generator=torch.Generator().manual_seed(3))
    norm = SigmoidBatchNorm2d if kind is RecedingNeurons else nn.BatchNorm2d
    model = network(scales[:8].tolist(), scales[8:].tolist(), norm)
    method = kind(reference=True)
    scores = [(torch.sigmoid(part) if kind is RecedingNeurons else part.abs()) for part in (scales[:8], scales[8:])]
    for fraction in (0.0, 0.5, 0.9):
        found, remarks = kept(model, method, Budget(fraction, of="channels"))
        scope = "local" if kind is UniformChannelScaling else "global"
        expected = official([s.tolist() for s in scores], fraction, scope, 3)
        assert [
            [i in channels for i in range(n)] for channels, n in zip(found.values(), (8, 12), strict=True)
        ] == expected
        left = sum(map(sum, expected))
        assert remarks[0] == f"thresholds removed {20 - left} of 20 channels, where {fraction:g} was asked for"
    assert not method.meets_budget()
    assert kind().meets_budget()
    local, _ = kept(model, method, Budget(0.5, of="channels", across="layer", keep_at_least=5))
    expected = official([s.tolist() for s in scores], 0.5, "local", 5)
    assert [[i in channels for i in range(n)] for channels, n in zip(local.values(), (8, 12), strict=True)] == expected


def test_reference_refuses_what_has_no_threshold():
    method = Slimming(reference=True)
    model = network(*SCALES)
    for budget in (
        Budget(below=0.1, of="channels"),
        Budget(0.5, of="weights"),
        Budget(0.5, of="channels", across="uniform"),
    ):
        with pytest.raises(BadInput, match="take a fraction of the channels"):
            kept(model, method, budget)
    with pytest.raises(Unprunable, match="leaves no channel of '0', because scores are equal"):
        kept(network([0.5] * 6, [0.5] * 6), method, Budget(0.3, of="channels"))
    with pytest.raises(BadInput, match="still whole"):
        pc.prune(model, method, 0.4, example_input=EXAMPLE, rounds=2)


def test_default_and_reference_agree_on_distinct_scores():
    scales = torch.randn(40, generator=torch.Generator().manual_seed(5)).tolist()
    model = network(scales[:20], scales[20:])
    for fraction in (0.3, 0.5):
        theirs, _ = kept(model, Slimming(reference=True), Budget(fraction, of="channels"))
        left = sum(map(len, theirs.values()))
        ours, _ = kept(model, Slimming(), Budget(1 - left / 40, of="channels", keep_at_least=3))
        assert ours == theirs


# --- polarisation


def test_polarisation_couples_all_channels_by_one_mean():
    model = network(*SCALES).double()
    alive = Masks({"4.weight": torch.tensor([True, True, True, True, False, False])})
    living = [*SCALES[0], *SCALES[1][:4]]
    mean = sum(living) / 9
    value = Polarization(t=1.2).penalty(model, alive)
    assert value.item() == pytest.approx(sum(1.2 * abs(s) - abs(s - mean) for s in living), rel=1e-6)
    value.backward()
    signs = [np.sign(s - mean) for s in living]
    expected = [1.2 * np.sign(s) - (sign - sum(signs) / 9) for s, sign in zip(living, signs, strict=True)]
    found = torch.cat([model[1].weight.grad, model[4].weight.grad])
    assert found.tolist() == pytest.approx([*expected, 0, 0])
    assert polarising(torch.full((4,), 0.5), 1.0).tolist() == [0.5] * 4


def test_polarisation_prepares_clamped_norms_and_training_keeps_them_in_bounds():
    model = Polarization(upper=0.6).prepare(network(*SCALES), EXAMPLE)
    assert all(isinstance(model[i], ClampedBatchNorm2d) for i in (1, 4))
    assert model[1].weight.tolist() == [0.5] * 5
    kept_scales = Polarization(start=None).prepare(network(*SCALES), EXAMPLE)
    assert kept_scales[4].weight.tolist() == pytest.approx([1, 0.4, 0, 1, 0.35, 0.01])
    bare = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    before = bare.eval()(torch.ones(2, 1, 4, 4))
    bare = Polarization(start=1.0).prepare(bare, EXAMPLE).eval()
    assert isinstance(bare[1].norm, ClampedBatchNorm1d)
    assert bare[1].layer.bias is None
    torch.testing.assert_close(bare(torch.ones(2, 1, 4, 4)), before, rtol=1e-4, atol=1e-4)
    data = pc.load_data("digits").train.subset(128)
    model[7] = nn.Linear(6 * 64, 10)
    method = Polarization(t=-2.0, upper=0.6)
    penalty = lambda net: method.penalty(net, Masks())  # noqa: E731
    trainer = Trainer(model, Optimizer("sgd", 0.1), epochs=1, batch_size=32, penalty=penalty)
    trainer.train_epoch(data)
    scales = torch.cat([model[1].weight, model[4].weight]).detach()
    assert ((scales >= 0) & (scales <= 0.6)).all()
    assert (scales == 0.6).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"t": math.nan}, "t must be finite"), ({"upper": 0.0}, "above 0"), ({"upper": math.inf}, "finite"),
        ({"start": 0.0}, "start"), ({"start": 1.2}, "start"), ({"threshold": "otsu"}, "unknown threshold"),
    ],
)  # fmt: skip
def test_polarisation_refuses_bad_fields(fields, message):
    with pytest.raises(BadInput, match=message):
        Polarization(**fields)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 3, 1, 2], 0.02), ([5, 3, 0, 0, 4], 0.02), ([1, 4, 2, 3], 0.02), ([4, 4, 5], 0.01), ([0, 0, 3], 0.01),
        ([9, 7, 5, 3, 1], 0.05), ([*range(1, 51), *[0] * 50], 0.5), ([*range(1, 101)], None),
    ],
)  # fmt: skip
def test_the_histogram_threshold_is_the_first_local_minimum(counts, expected):
    scores = torch.tensor([(i + 0.5) / 100 for i, n in enumerate(counts) for _ in range(n)], dtype=torch.float64)
    found = histogram_threshold(torch.cat([scores, torch.tensor([-3.0, 1.7])]))
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_a_falling_histogram_has_no_minimum():
    falling = torch.tensor([(i + 0.5) / 100 for i in range(100) for _ in range(100 - i)], dtype=torch.float64)
    assert histogram_threshold(falling) is None
    with pytest.raises(BadType, match="vector"):
        histogram_threshold(torch.ones(2, 2))
    with pytest.raises(BadInput, match="finite"):
        histogram_threshold(torch.tensor([1.0, math.inf]))


def test_the_histogram_cuts_every_layer_at_its_own_gap():
    first = [0.001, 0.002, 0.015, 0.6, 0.7]
    second = [0.105, 0.106, 0.107, 0.115, 0.25, 0.9]
    model = network(first, second)
    method = Polarization(threshold="histogram")
    # In the second layer the bins below 0.10 are empty: the first minimum is at 0.01 already.
    found, remarks = kept(model, method, Budget(below=0.2, of="channels"))
    assert found == {"0": [3, 4], "3": [0, 1, 2, 3, 4, 5]}
    assert remarks == ()
    capped, _ = kept(model, method, Budget(below=0.0015, of="channels"))
    assert capped == {"0": [1, 2, 3, 4], "3": [0, 1, 2, 3, 4, 5]}
    held, _ = kept(network([0.001] * 6, second), method, Budget(below=0.2, of="channels", keep_at_least=3))
    assert held["0"] == [0, 1, 2]
    with pytest.raises(BadInput, match=r"Budget\(below=0.2\)"):
        kept(model, method, Budget(0.5, of="channels"))


def test_a_high_or_missing_gap_is_said():
    rising = [(i + 0.5) / 100 for i in range(30) for _ in range(i + 1)]  # falls behind 0.30 for the first time
    flatless = [(i + 0.5) / 100 for i in range(100) for _ in range(i + 1)]
    method = Polarization(threshold="histogram")
    found, remarks = kept(
        network(rising, [0.001, 0.002, 0.5]), method, Budget(below=1.0, of="channels", keep_at_least=1)
    )
    assert remarks == ("the threshold of 0 is high: 0.30",)
    assert len(found["0"]) == 1
    assert found["3"] == [2]
    found, remarks = kept(network(flatless, [0.001, 0.002, 0.5]), method, Budget(below=1.0, of="channels"))
    assert remarks == ("0 stays whole: the histogram of its scales has no gap",)
    assert len(found["0"]) == len(flatless)
