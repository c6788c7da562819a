"""Budgets: exact counts, ties, minima, ways of spreading, and refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pruning_core as pc
from pruning_core.errors import BadInput, BudgetError, PruningError
from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.groups import Group, Member
from pruning_core.masks.masks import Masks
from pruning_core.masks.ranking import share_out
from pruning_core.masks.reports import count_removed
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites


def sites_of(scores) -> Sites:
    shapes = {name: score.shape for name, score in scores.items()}
    return Sites(shapes, tuple(scores), positions={name: 3 + i for i, name in enumerate(scores)})


def kept(masks: Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


@st.composite
def weight_scores(draw):
    """Two to four layers of odd shapes; few distinct values, so that ties are the rule."""
    count = draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = draw(st.sampled_from([1, 3, 1000]))
    return Scores(
        {
            f"layer{i}.weight": torch.randint(
                values, (draw(st.integers(1, 9)), draw(st.integers(1, 9))), generator=generator
            ).float()
            for i in range(count)
        }
    )


@given(weight_scores(), st.floats(0, 0.99), st.sampled_from(["global", "layer", "erk"]), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_the_count_is_exact_or_refused(scores, sparsity, across, minimum):
    sites = sites_of(scores)
    total = sum(score.numel() for score in scores.values())
    wanted = total - math.floor(sparsity * total + 0.5 + 1e-9)
    least = sum(min(minimum, score.numel()) for score in scores.values())
    if wanted < least:
        with pytest.raises(BudgetError):
            allocate(scores, Budget(sparsity, across=across, keep_at_least=minimum), Masks(), sites)
        return
    masks = allocate(scores, Budget(sparsity, across=across, keep_at_least=minimum), Masks(), sites)
    assert sum(kept(masks).values()) == wanted
    assert all(int(mask.sum()) >= min(minimum, mask.numel()) for mask in masks.values())
    if across == "global":
        pairs = [(scores[n][m], scores[n][~m]) for n, m in masks.items()]
        best_lost = max((float(lost.max()) for _, lost in pairs if lost.numel()), default=-math.inf)
        for survivors, _ in pairs:
            # Only the protected units of a layer may score below what was lost elsewhere.
            assert int((survivors < best_lost).sum()) <= minimum


@given(weight_scores(), st.floats(0, 0.6), st.floats(0, 0.3))
@settings(max_examples=100, deadline=None)
def test_a_second_cut_is_a_subset_and_counts_what_is_already_dead(scores, first, more):
    sites = sites_of(scores)
    total = sum(score.numel() for score in scores.values())
    if total * (1 - first - more) < len(scores) + 1:
        return
    one = allocate(scores, Budget(first), Masks(), sites)
    # Dead units would now win on score alone.
    turned = Scores(
        {name: torch.where(one[name], score, torch.full_like(score, 1e6)) for name, score in scores.items()}
    )
    two = allocate(turned, Budget(first + more), one, sites)
    assert two <= one
    assert sum(kept(two).values()) == total - math.floor((first + more) * total + 0.5 + 1e-9)


def test_ten_thousand_equal_scores_do_not_empty_a_layer():
    scores = Scores({"small": torch.ones(10, 10), "large": torch.ones(99, 100)})
    masks = allocate(scores, Budget(0.9), Masks(), sites_of(scores))
    assert kept(masks) == {"small": 10, "large": 990}
    assert masks["small"].flatten()[:10].all()  # the lower index first


def test_ties_are_spread_only_over_what_scores_exactly_the_cut():
    scores = Scores({"a": torch.tensor([[1.0, 1, 1, 1]]), "b": torch.tensor([[1.0, 1, 2, 0]])})
    masks = allocate(scores, Budget(0.5, keep_at_least=0), Masks(), sites_of(scores))
    assert masks["b"][0, 2]
    assert not masks["b"][0, 3]
    assert sum(kept(masks).values()) == 4
    assert kept(masks)["a"] == 2


def test_equal_scores_of_dead_weights_take_no_share_of_the_ties():
    scores = Scores({"a": torch.zeros(4, 5), "b": torch.zeros(4, 5)})
    alive = Masks({"a": torch.zeros(4, 5, dtype=torch.bool).index_fill_(0, torch.tensor([1]), True)})
    masks = allocate(scores, Budget(0.5), alive, sites_of(scores))
    assert sum(kept(masks).values()) == 20
    assert masks <= alive


def test_erk_keeps_in_proportion_to_the_sum_of_the_dimensions():
    shapes = {"conv": (16, 8, 3, 3), "fc": (10, 64)}
    scores = Scores({name: torch.rand(shape) for name, shape in shapes.items()})
    masks = allocate(scores, Budget(0.9, across="erk"), Masks(), sites_of(scores))
    expected = {name: sum(shape) for name, shape in shapes.items()}
    ratio = kept(masks)["conv"] / kept(masks)["fc"]
    assert ratio == pytest.approx(expected["conv"] / expected["fc"], rel=0.02)


def test_erk_fills_small_layers_and_gives_the_rest_to_the_others():
    scores = Scores({"tiny": torch.rand(2, 2), "large": torch.rand(50, 50)})
    masks = allocate(scores, Budget(0.2, across="erk"), Masks(), sites_of(scores))
    assert kept(masks)["tiny"] == 4


def test_uniform_leaves_the_first_layer_whole_or_refuses():
    scores = Scores({"first": torch.rand(4, 5), "second": torch.rand(10, 10), "third": torch.rand(8, 10)})
    masks = allocate(scores, Budget(0.5, across="uniform"), Masks(), sites_of(scores))
    assert kept(masks)["first"] == 20
    assert kept(masks)["second"] / 100 == pytest.approx(kept(masks)["third"] / 80, abs=0.02)
    with pytest.raises(BudgetError, match="uniform"):
        allocate(scores, Budget(0.95, across="uniform"), Masks(), sites_of(scores))


def test_smart_ratio_falls_with_depth_and_fixes_the_last_linear_layer():
    scores = Scores({f"l{i}": torch.rand(30, 30) for i in range(4)})
    masks = allocate(scores, Budget(0.8, across="smart_ratio"), Masks(), sites_of(scores))
    counts = list(kept(masks).values())
    assert counts[3] == 270
    assert counts[0] > counts[1] > counts[2]
    assert counts[0] / counts[1] == pytest.approx((16 + 4) / (9 + 3), rel=0.02)
    assert sum(counts) == 720


SPREADS = [
    ("l1_norm", "layer"),
    ("l1_norm", "uniform"),
    *(("magnitude", a) for a in ("layer", "uniform", "erk", "smart_ratio")),
]


@pytest.mark.parametrize("of", ["weights", "macs"])
@pytest.mark.parametrize(("method", "across"), SPREADS)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.7])
def test_every_spread_meets_a_budget_of_every_cost(method, across, of, sparsity):
    model = pc.build_model("vgg8", "digits", seed=0)
    result = pc.prune(model, method, sparsity, of=of, across=across, example_input=torch.zeros(1, 1, 8, 8))
    assert result.report.reached == pytest.approx(sparsity, abs=0.02)
    if across in ("layer", "uniform"):
        groups = list(result.sites.groups.values())
        first = groups[0].alive(result.masks) if groups else result.masks["features.conv1_1.weight"]
        assert bool(first.all()) == (across == "uniform")


@pytest.mark.parametrize("of", ["weights", "macs"])
def test_what_a_spread_cannot_reach_is_told_as_its_doing(of):
    model, x = pc.build_model("lenet5", "digits", seed=0), torch.zeros(1, 1, 8, 8)
    with pytest.raises(BudgetError, match=r"at most .*% of the macs .*, the first one as a whole, outputs stay"):
        pc.prune(model, "l1_norm", 0.9, of="macs", across="uniform", example_input=x)
    with pytest.raises(
        BudgetError, match=r"'smart_ratio': between|'smart_ratio' removes at least .*% of the macs, more than 0"
    ):
        pc.prune(model, "magnitude", 0.0, of=of, across="smart_ratio", example_input=x)


def test_a_sparsity_for_each_site():
    scores = Scores({"a": torch.rand(4, 5), "b": torch.rand(4, 5)})
    assert kept(allocate(scores, Budget(across={"a": 0.25}), Masks(), sites_of(scores))) == {"a": 15, "b": 20}
    with pytest.raises(BudgetError, match="emptied"):
        allocate(scores, Budget(across={"a": 0.99}), Masks(), sites_of(scores))


def test_macs_count_every_weight_as_often_as_it_is_used():
    scores = Scores({"a": torch.rand(20, 20), "b": torch.rand(20, 20)})
    sites = sites_of(scores)
    masks = allocate(scores, Budget(0.7, of="macs"), Masks(), sites)
    left = sum(sites.positions[name] * count for name, count in kept(masks).items())
    assert left == pytest.approx(0.3 * (3 + 4) * 400, abs=4)


def test_below_removes_all_up_to_the_threshold_but_keeps_the_minimum():
    scores = Scores({"a": torch.tensor([[0.0, 0.5, 1.0]]), "b": torch.tensor([[-1.0, 0.2]])})
    assert kept(allocate(scores, Budget(below=0.5), Masks(), sites_of(scores))) == {"a": 1, "b": 1}
    assert kept(allocate(scores, Budget(below=0.5, keep_at_least=0), Masks(), sites_of(scores))) == {"a": 1, "b": 0}


def test_the_units_that_always_stay_are_the_best_of_their_site():
    scores = Scores({"weak": torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.3]]), "strong": torch.arange(5.0, 25.0).view(4, 5)})
    masks = allocate(scores, Budget(0.8, keep_at_least=2), Masks(), sites_of(scores))
    assert masks["weak"].tolist() == [[False, True, False, True, False]]  # of equal ones the first
    assert masks["strong"].flatten().nonzero().flatten().tolist() == [17, 18, 19]


def test_costs_come_as_close_as_they_can_from_either_side():
    # One weight of "a" costs 3, one of "b" 4; the scores alternate, so that the costs left are 0, 4, 7, 11, 14, ...
    scores = Scores({"a": torch.tensor([[1.0, 3, 5, 7]]), "b": torch.tensor([[2.0, 4, 6, 8]])})
    sites = sites_of(scores)
    reached = []
    for left in (13.4, 12.4, 8.9, 9.1):
        masks = allocate(scores, Budget(1 - left / 28, of="macs"), Masks(), sites)
        reached.append(sum(sites.positions[name] * count for name, count in kept(masks).items()))
    assert reached == [14, 11, 7, 11]


def two_groups() -> Sites:
    """Layers 6 -> 8 -> 10 -> 3; the 8 and the 10 can be pruned."""
    shapes = {"l0": torch.Size([8, 6]), "l1": torch.Size([10, 8]), "l2": torch.Size([3, 10])}

    def group(name, size, maker, reader):
        index = torch.arange(size)
        return Group(name, size, (Member(maker, 0, index, index),), (), (Member(reader, 1, index, index),))

    groups = {"g8": group("g8", 8, "l0", "l1"), "g10": group("g10", 10, "l1", "l2")}
    return Sites(shapes, tuple(shapes), groups)


@given(st.floats(0, 0.85), st.sampled_from(["channels", "weights"]), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_channels_are_exact_and_weights_come_within_one_channel(sparsity, of, seed):
    sites = two_groups()
    generator = torch.Generator().manual_seed(seed)
    scores = Scores({name: torch.rand(g.size, generator=generator) for name, g in sites.groups.items()})
    masks = allocate(scores, Budget(sparsity, of=of), Masks(), sites)
    if of == "channels":
        dead = sum(int((~g.alive(masks)).sum()) for g in sites.groups.values())
        assert dead == math.floor(sparsity * 18 + 0.5 + 1e-9)
    else:
        total = 48 + 80 + 30
        removed = sum(int((~mask).sum()) for mask in masks.values())
        assert abs(removed - sparsity * total) <= 16  # the largest channel


@given(
    st.floats(0, 0.9),
    st.sampled_from(["channels", "weights"]),
    st.sampled_from(["global", "layer"]),
    st.sampled_from([2, 3, 4, 16]),
    st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_rounded_groups_keep_multiples_or_all_and_never_less_than_asked(sparsity, of, across, multiple, seed):
    sites = two_groups()
    generator = torch.Generator().manual_seed(seed)
    scores = Scores({name: torch.randint(5, (g.size,), generator=generator) / 4 for name, g in sites.groups.items()})
    most, total = count_removed(of, allocate(scores, Budget(below=2.0, round_to=multiple), Masks(), sites), sites)
    sparsity = min(sparsity, most / total)
    masks = allocate(scores, Budget(sparsity, of=of, across=across, round_to=multiple), Masks(), sites)
    exact = allocate(scores, Budget(sparsity, of=of, across=across), Masks(), sites)
    for name, group in sites.groups.items():
        alive = group.alive(masks)
        assert int(alive.sum()) % multiple == 0 or alive.all()
        assert alive.all() or scores[name][alive].min() >= scores[name][~alive].max()
        if of == "channels":
            assert (alive | ~group.alive(exact)).all()
            assert int(alive.sum()) - int(group.alive(exact).sum()) < multiple
    assert count_removed(of, masks, sites)[0] <= sparsity * total + 0.5 + 1e-6


def test_rounding_of_thresholds_and_of_sparsities_for_each_site():
    sites = two_groups()
    scores = Scores({"g8": torch.arange(8.0), "g10": torch.arange(10.0)})

    def left(budget, alive):
        masks = allocate(scores, budget, alive, sites)
        return {name: group.alive(masks).nonzero().flatten().tolist() for name, group in sites.groups.items()}

    assert left(Budget(below=6.5, round_to=4), Masks()) == {"g8": [4, 5, 6, 7], "g10": [6, 7, 8, 9]}
    across = {"g8": 0.75, "g10": 0.1}  # 2 of 8, and 9 of 10, of which the next multiple would be 12
    assert left(Budget(of="channels", across=across, round_to=4), Masks()) == {
        "g8": [4, 5, 6, 7],
        "g10": list(range(10)),
    }
    alive = allocate(scores, Budget(of="channels", across={"g10": 0.3}), Masks(), sites)
    assert left(Budget(0.3, of="channels", round_to=4), alive)["g10"] == list(range(3, 10))  # 7 are alive
    with pytest.raises(BudgetError, match="at least 4 of each site stays"):
        allocate(scores, Budget(0.9, round_to=4), Masks(), sites)
    with pytest.raises(BadInput, match="round_to=4 rounds numbers of channels"):
        allocate(Scores({"a": torch.rand(4, 5)}), Budget(0.5, round_to=4), Masks(), sites_of({"a": torch.rand(4, 5)}))


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": 1.0}, {"to": -0.1}, {"to": float("nan")}, {"to": "0.5"}, {"to": True}, {}, {"to": 0.5, "below": 1.0},
        {"below": float("inf")}, {"to": 0.5, "of": "flops"}, {"to": 0.5, "across": "everywhere"},
        {"to": 0.5, "across": {"a": 0.5}}, {"across": {"a": 1.5}}, {"to": 0.5, "keep_at_least": -1},
        {"to": 0.5, "round_to": 0}, {"to": 0.5, "round_to": 8.0},
    ],
)  # fmt: skip
def test_bad_budgets_are_refused(arguments):
    with pytest.raises(PruningError):
        Budget(**arguments)


def test_scores_must_fit_the_sites():
    scores = Scores({"a": torch.rand(4, 5)})
    sites = sites_of({"a": torch.rand(4, 5), "b": torch.rand(2, 2)})
    with pytest.raises(BadInput, match="no scores for 'b'"):
        allocate(scores, Budget(0.5), Masks(), sites)
    with pytest.raises(BadInput, match="not among the sites"):
        allocate(
            Scores({"a": torch.rand(4, 5), "b": torch.rand(2, 2), "c": torch.rand(1)}), Budget(0.5), Masks(), sites
        )
    with pytest.raises(BadInput, match="shape"):
        allocate(Scores({"a": torch.rand(4, 4), "b": torch.rand(2, 2)}), Budget(0.5), Masks(), sites)


def test_what_is_already_sparser_is_refused():
    scores = Scores({"a": torch.rand(10, 10)})
    alive = Masks({"a": torch.rand(10, 10) > 0.8})
    with pytest.raises(BudgetError, match="already lacks"):
        allocate(scores, Budget(0.2), alive, sites_of(scores))


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 5), st.integers(5, 50)), min_size=1, max_size=8), st.data()
)
@settings(max_examples=150, deadline=None)
def test_shares_add_up_and_respect_their_bounds(entries, data):
    shares, lower, upper = (np.array(column) for column in zip(*entries, strict=True))
    total = data.draw(st.integers(int(lower.sum()), int(upper.sum())))
    found = share_out(total, shares, lower, upper)
    assert found.sum() == total
    assert (found >= lower).all()
    assert (found <= upper).all()


@pytest.mark.parametrize("method", ["pfp", "l1_norm"])
def test_a_sparsity_that_the_structure_cannot_reach_is_refused(method):
    """One channel a layer must stay, so that a network of narrow layers keeps more than a thousandth of its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    batches = [(torch.rand(16, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(16, dtype=torch.long))]
    with pytest.raises(BudgetError, match="cannot be met"):
        pc.prune(model, method, 0.999, of="weights", batches=batches)
    pc.prune(model, method, 0.75, of="weights", batches=batches)  # what it can reach is taken
