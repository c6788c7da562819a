"""Sparse recovery where the truth is known, studies that are computed once, and what configurations cost."""

import json

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import OrthogonalMatchingPursuit

from pruning_core import version
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments.studies import study
from pruning_core.models.cost import norm_operations
from pruning_core.papers.ispasp.configurations import (
    EXPANSIONS,
    STAGES,
    cost,
    kept_width,
    mobilenetv2_configuration,
    resnet34_configuration,
)
from pruning_core.papers.ispasp.recovery import compressible, cosamp, decay, planted, recovery, slope, theory_slope

DOUBLE = torch.float64
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- hidden maps


@FEW
@given(st.integers(1, 60), st.integers(1, 20), st.floats(0.2, 3), st.integers(0, 10**6))
def test_compressible_sums_are_a_permuted_power_law(hidden, samples, p, seed):
    maps = compressible(hidden, samples, p, seeded(seed))
    assert maps.shape == (samples, hidden)
    assert maps.dtype == DOUBLE
    assert (maps >= 0).all()
    expected = np.arange(1, hidden + 1) ** (-1 / p)
    np.testing.assert_allclose(np.sort(maps.numpy().sum(0))[::-1], expected, rtol=1e-10)
    assert torch.equal(maps, compressible(hidden, samples, p, seeded(seed)))


def test_compressible_sums_are_in_random_order():
    orders = {tuple(compressible(30, 5, 0.5, seeded(seed)).sum(0).argsort().tolist()) for seed in range(5)}
    assert len(orders) == 5
    # Within a column the samples differ: only their sum is prescribed.
    assert compressible(30, 5, 0.5, seeded(0)).std(0).min() > 0


@FEW
@given(st.integers(1, 40), st.data(), st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_planted_neurons_are_the_active_ones(hidden, data, seed, floor):
    s = data.draw(st.integers(1, hidden))
    maps, support = planted(hidden, 12, s, seeded(seed), floor)
    assert maps.shape == (12, hidden)
    assert (maps >= 0).all()
    assert support.tolist() == sorted(set(support.tolist()))
    assert len(support) == s
    others = np.setdiff1d(np.arange(hidden), support)
    if floor == 0:
        assert maps[:, others].abs().sum() == 0
        assert (maps[:, support] > 0).all()
    else:
        loud, _ = planted(hidden, 12, s, seeded(seed), 1.0)
        assert (maps > 0).all()
        np.testing.assert_allclose(maps[:, others], floor * loud[:, others], rtol=1e-12)
        np.testing.assert_array_equal(maps[:, support], loud[:, support])


def test_planted_supports_differ():
    assert len({tuple(planted(30, 2, 4, seeded(seed))[1].tolist()) for seed in range(6)}) == 6


# --- slopes


def test_the_slope_of_the_theory():
    np.testing.assert_allclose([theory_slope(p) for p in (0.3, 0.5, 0.7, 0.9)], [-5.667, -3, -1.857, -1.222], atol=1e-3)
    # The squared residual is the square of the l2 tail of the power law: twice its exponent.
    for p in (0.3, 0.6):
        values = np.arange(1, 1_000_000) ** (-1 / p)
        low, high = (np.square(values[s:]).sum() for s in (100, 1000))
        np.testing.assert_allclose(np.log(high / low) / np.log(10), theory_slope(p), rtol=1e-2)


@FEW
@given(st.floats(-6, 3), st.floats(0.01, 100), st.lists(st.integers(1, 500), min_size=2, max_size=9, unique=True))
def test_the_slope_of_a_power_law_is_its_exponent(exponent, factor, sizes):
    found = slope(sizes, [factor * size**exponent for size in sizes])
    np.testing.assert_allclose(found, exponent, atol=1e-6)


def test_the_slope_is_that_of_least_squares():
    generator = np.random.default_rng(0)
    sizes, residuals = generator.uniform(1, 50, 12), generator.uniform(0.1, 9, 12)
    np.testing.assert_allclose(slope(sizes, residuals), np.polyfit(np.log(sizes), np.log(residuals), 1)[0], rtol=1e-9)


@pytest.mark.parametrize(("sizes", "residuals"), [([1], [1]), ([], []), ([1, 2], [1, 0]), ([1, 2], [1, -1])])
def test_slopes_that_cannot_be_told(sizes, residuals):
    with pytest.raises(BadInput, match="a slope needs at least two different positive sizes"):
        slope(sizes, residuals)


@pytest.mark.parametrize(
    ("sizes", "residuals"), [([2, 2], [1, 2]), ([0, 1], [1, 2]), ([-1, 1], [1, 2]), ([1, 2, 3], [1, 2])]
)
def test_slopes_over_sizes_that_make_no_sense(sizes, residuals):
    try:
        found = slope(sizes, residuals)
    except BadInput:
        return
    raise AssertionError(f"slope gave {found}")


def test_refusals():
    for p in (0, -1, float("nan")):
        with pytest.raises(BadInput, match="compressibility p must be finite and above 0"):
            compressible(5, 5, p, seeded(0))
    for s in (0, 6):
        with pytest.raises(BadInput, match=f"active neurons, must be between 1 and 5, not {s}"):
            planted(5, 5, s, seeded(0))
        with pytest.raises(BadInput, match=f"entries to recover, must be between 1 and 5, not {s}"):
            cosamp(torch.ones(3, 5, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE), s)
    with pytest.raises(BadInput, match="hidden channels to keep, must be between 1 and 10, not 11"):
        decay(10, 0.5, [11], draws=1)
    with pytest.raises(BadInput):
        recovery(10, 11, 5, draws=1)


# --- CoSaMP


def sparse_problem(seed, unknowns=40, s=4, measurements=30):
    generator = seeded(seed)
    sensing = torch.randn(measurements, unknowns, generator=generator, dtype=DOUBLE) / measurements**0.5
    support = torch.randperm(unknowns, generator=generator)[:s].sort().values
    x = torch.zeros(unknowns, dtype=DOUBLE)
    signs = torch.randint(2, (s,), generator=generator, dtype=DOUBLE) * 2 - 1
    x[support] = (1 + torch.rand(s, generator=generator, dtype=DOUBLE)) * signs
    return sensing, x, support


def test_cosamp_recovers_what_was_planted_and_agrees_with_orthogonal_matching_pursuit():
    for seed in range(20):
        sensing, x, support = sparse_problem(seed)
        found = cosamp(sensing, sensing @ x, 4)
        np.testing.assert_allclose(found.estimate, x, atol=1e-10)
        assert torch.equal(found.support, support)
        pursuit = OrthogonalMatchingPursuit(n_nonzero_coefs=4, fit_intercept=False).fit(
            sensing.numpy(), (sensing @ x).numpy()
        )
        np.testing.assert_array_equal(found.support, np.flatnonzero(pursuit.coef_))
        np.testing.assert_allclose(found.residuals[0], float((sensing @ x).norm()), rtol=1e-12)
        assert found.residuals[-1] <= 1e-10 * found.residuals[0]
        assert len(found.residuals) < 12  # it stops when there is nothing left to explain


def test_cosamp_fails_with_too_few_measurements():
    wrong = 0
    for seed in range(10):
        sensing, x, support = sparse_problem(seed, measurements=6)
        found = cosamp(sensing, sensing @ x, 4, iterations=15)
        assert len(found.support) <= 4
        assert len(found.residuals) <= 16
        wrong += not torch.equal(found.support, support)
        np.testing.assert_allclose(
            found.residuals[-1], float((sensing @ (x - found.estimate)).norm()), rtol=1e-8, atol=1e-12
        )
    assert wrong > 5


def test_cosamp_takes_the_noise_with_the_signal():
    sensing, x, support = sparse_problem(3)
    noise = 0.01 * torch.randn(30, generator=seeded(1), dtype=DOUBLE)
    found = cosamp(sensing, sensing @ x + noise, 4)
    assert torch.equal(found.support, support)
    columns = sensing[:, support].numpy()
    # On the merged set the fit has more columns than the support: near, but not equal to, least squares on it.
    assert (
        np.abs(
            found.estimate[support].numpy() - np.linalg.lstsq(columns, columns @ x[support].numpy(), rcond=None)[0]
        ).max()
        < 0.1
    )


# --- the two experiments


def kept_by_hand(method, maps, weight, s):
    """The support that a method of ``decay`` ends with, in numpy."""
    h, dense = maps.sum(0), maps @ weight.T
    if method == "activation_sum":
        return np.argsort(-h, kind="stable")[:s]
    support = np.array([], dtype=int)
    for _ in range(20):
        y = weight.T @ (dense - maps[:, support] @ weight[:, support].T).sum(0)
        rank = np.abs(y) if method == "ispasp_abs" else y
        merged = np.union1d(np.argsort(-rank, kind="stable")[: 2 * s], support)
        support = merged[np.argsort(-h[merged], kind="stable")[:s]]
    return support


@pytest.mark.parametrize("draws", [1, 3])
def test_decay_rows_by_hand(draws):
    sizes = [1, 4, 9]
    rows = decay(20, 0.5, sizes, draws=draws, seed=7, outputs=6, samples=11)
    methods = ("ispasp", "ispasp_abs", "activation_sum")
    assert {(row["method"], row["s"]) for row in rows} == {(method, s) for method in methods for s in sizes}
    assert len(rows) == 9
    assert all(row["d_hid"] == 20 and row["p"] == 0.5 and row["seed"] == 7 for row in rows)
    generator = seeded(7)
    expected = dict.fromkeys(((row["method"], row["s"]) for row in rows), 0.0)
    for _ in range(draws):
        maps = compressible(20, 11, 0.5, generator).numpy()
        weight = torch.randn(6, 20, generator=generator, dtype=DOUBLE).numpy()
        for method, s in expected:
            support = kept_by_hand(method, maps, weight, s)
            residual = np.square(maps @ weight.T - maps[:, support] @ weight[:, support].T).sum()
            expected[method, s] += residual / draws
    for row in rows:
        np.testing.assert_allclose(row["residual"], expected[row["method"], row["s"]], rtol=1e-9)


def test_decay_falls_with_the_number_kept():
    rows = decay(40, 0.5, [4, 8, 20], draws=6, seed=1)
    by = {(row["method"], row["s"]): row["residual"] for row in rows}
    for method in ("ispasp", "activation_sum"):
        assert by[method, 4] > by[method, 8] > by[method, 20] > 0
    # From one half on the two are the same.
    np.testing.assert_allclose(by["ispasp", 20], by["activation_sum", 20], rtol=1e-9)
    assert decay(40, 0.5, [4], draws=6, seed=1)[0]["residual"] != decay(40, 0.5, [4], draws=6, seed=2)[0]["residual"]
    assert decay(40, 0.5, [4, 8, 20], draws=6, seed=1) == rows


@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
def test_the_decay_falls_as_fast_as_the_theory_says(p):
    sizes = [10, 20, 30, 40, 50]
    rows = decay(100, p, sizes, draws=10)
    residuals = [row["residual"] for row in rows if row["method"] == "ispasp"]
    assert abs(slope(sizes, residuals) - theory_slope(p)) < 0.5


def test_recovery_is_certain_with_ample_outputs():
    rows = recovery(40, 5, 200, draws=5)
    assert {row["method"]: row["recovered"] for row in rows} == {"ispasp": 1.0, "ispasp_abs": 1.0, "cosamp": 1.0}
    assert all((row["s"], row["outputs"], row["seed"]) == (5, 200, 0) for row in rows)


def test_recovery_is_a_fraction_that_grows_with_the_outputs():
    found = {
        outputs: {row["method"]: row["recovered"] for row in recovery(100, 5, outputs, draws=10)}
        for outputs in (2, 5, 40)
    }
    assert all(
        0 <= value <= 1 and value * 10 == round(value * 10) for rows in found.values() for value in rows.values()
    )
    assert found[2]["ispasp"] < 1
    assert found[2]["cosamp"] == 0
    assert found[40]["ispasp"] == 1
    # Signed importance knows that hidden maps are not negative.
    assert found[5]["ispasp_abs"] <= found[5]["ispasp"]
    assert recovery(100, 5, 5, draws=10, seed=0) == recovery(100, 5, 5, draws=10, seed=0)


# --- studies


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))
    return tmp_path


class Counting:
    def __init__(self, rows):
        self.rows, self.calls = rows, 0

    def __call__(self):
        self.calls += 1
        return self.rows


def written(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def test_a_study_is_computed_once(cache):
    compute = Counting([{"s": 1, "residual": 0.5}, {"s": 2, "residual": 0.25}])
    first = study({"name": "decay", "p": 0.5}, compute)
    again = study({"p": 0.5, "name": "decay"}, compute)  # the order of settings does not count
    assert compute.calls == 1
    assert first.equals(again)
    assert first["residual"].tolist() == [0.5, 0.25]
    assert len(written(cache)) == 1
    study({"name": "decay", "p": 0.7}, compute)
    assert compute.calls == 2
    assert len(written(cache)) == 2


@pytest.mark.parametrize("one", [1, 1.0, np.int64(1), np.float32(1), np.array(1), torch.tensor(1.0)], ids=repr)
def test_one_number_is_one_study_whatever_its_type(cache, one):
    compute = Counting([{"x": 1}])
    study({"name": "widths", "width": 1, "nested": {"rates": [1, 0.5, 0]}}, compute)
    study({"name": "widths", "width": one, "nested": {"rates": (one, 0.5, -0.0)}}, compute)
    assert compute.calls == 1
    study({"name": "widths", "width": True, "nested": {"rates": [1, 0.5, 0]}}, compute)
    assert compute.calls == 2  # yes is not one


def test_rows_of_a_study_say_where_they_come_from(cache):
    found = study({"name": "costs"}, lambda: ({"macs": i} for i in range(3)))
    assert found["macs"].tolist() == [0, 1, 2]
    assert set(found["profile"]) == {"quick"}
    assert found["seconds"].nunique() == 1
    assert found["seconds"][0] >= 0
    assert set(found["torch"]) == {torch.__version__.partition("+")[0]}
    assert set(found["numpy"]) == {np.__version__}
    assert {"experiment", "python", "package", "device", "threads"} <= set(found.columns)
    own = study({"name": "times"}, lambda: [{"seconds": 1.5}, {"seconds": 2.5}])
    assert own["seconds"].tolist() == [1.5, 2.5]
    (first, second) = sorted(json.loads(path.read_text())["rows"][0]["experiment"] for path in written(cache))
    assert first != second


def test_profiles_and_code_decide_whether_a_study_is_computed_again(cache, monkeypatch):
    compute = Counting([{"x": 1}])
    study({"name": "a"}, compute, profile="quick")
    monkeypatch.setattr(version, "source_hash", lambda: "other code")
    study({"name": "a"}, compute, profile="quick")
    assert compute.calls == 2
    found = study({"name": "a"}, compute, profile="standard")  # its record is void with the version only
    assert set(found["profile"]) == {"standard"}
    assert compute.calls == 3
    monkeypatch.setattr(version, "source_hash", lambda: "yet another")
    study({"name": "a"}, compute, profile="standard")
    assert compute.calls == 3
    with pytest.raises(UnknownName, match="unknown profile 'fast'"):
        study({"name": "a"}, compute, profile="fast")
    assert compute.calls == 3


def test_nothing_is_written_when_a_study_fails(cache):
    def broken():
        yield {"x": 1}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study({"name": "a"}, broken)
    with pytest.raises(BadInput, match="has no rows"):
        study({"name": "a"}, lambda: [])
    assert written(cache) == []
    assert study({"name": "a"}, lambda: [{"x": 2}])["x"].tolist() == [2]


# --- configurations


def test_widths_are_rounded_down_as_the_official_scripts_do():
    assert int(100 * 0.29) == 28  # in floating point the product is 28.999...
    assert kept_width(100, 0.29) == 28
    assert [kept_width(width, 0.4) for width in (64, 128, 256, 512)] == [25, 51, 102, 204]
    assert [kept_width(width, 0.3) for width in (96, 384, 576)] == [28, 115, 172]
    assert kept_width(7, 1) == 7


def test_resnet34_blocks_that_are_pruned():
    default = resnet34_configuration()
    assert list(default) == [
        "layer1.1.conv1", "layer2.1.conv1", "layer2.2.conv1", *[f"layer3.{block}.conv1" for block in (1, 2, 3, 4)]
    ]  # fmt: skip
    widths = {"layer1": 64, "layer2": 128, "layer3": 256}
    for name, removed in default.items():
        width = widths[name[:6]]
        np.testing.assert_allclose(removed * width, width - int(width * 0.4), rtol=1e-12)
    every = resnet34_configuration((0.4, 0.4, 0.4, 0.7), last_blocks=True)
    assert len(every) == 2 + 3 + 5 + 2
    assert not any(name.split(".")[1] == "0" for name in every)
    assert resnet34_configuration((1.0,) * 4) == {}
    for ratios in ((0.4,) * 3, (0.4,) * 5, ()):
        with pytest.raises(BadInput, match=f"has 4 stages, so it takes that many ratios, not {len(ratios)}"):
            resnet34_configuration(ratios)
    with pytest.raises(BadInput, match="keeps none of 64 channels"):
        resnet34_configuration((0.01, 1, 1, 1))


def test_mobilenetv2_blocks_that_are_pruned():
    default = mobilenetv2_configuration()
    assert list(default) == [f"features.{block}.conv.0.0" for block in (6, 9, 10, 12, 13)]
    widths = dict(zip(range(2, 18), EXPANSIONS, strict=True))
    for block, removed in zip((6, 9, 10, 12, 13), default.values(), strict=True):
        np.testing.assert_allclose(removed, 1 - int(widths[block] * 0.3) / widths[block], rtol=1e-12)


def test_the_tables_of_widths_are_torchvisions():
    with torch.device("meta"):  # shapes are enough
        resnet, mobile = torchvision.models.resnet34(), torchvision.models.mobilenet_v2()
    for stage, (blocks, width) in enumerate(STAGES, start=1):
        layer = resnet.get_submodule(f"layer{stage}")
        assert [len(block.conv1.weight) for block in layer] == [width] * blocks
    for block, width in enumerate(EXPANSIONS, start=2):
        assert len(mobile.features[block].conv[0][0].weight) == width


def test_costs_of_resnet34():
    dense, default = cost("torchvision/resnet34", {}), cost("torchvision/resnet34", resnet34_configuration())
    assert dense.parameters == 21_797_672
    np.testing.assert_allclose(dense.macs_with_norm, 3.671e9, rtol=5e-3)
    assert dense.widths == {}
    assert default.parameters == 18_557_782
    np.testing.assert_allclose(default.macs_with_norm, 2.695e9, rtol=5e-3)
    assert list(default.widths.values()) == [25, 51, 51, 102, 102, 102, 102]
    # By hand: in every pruned block both 3x3 convolutions shrink from width x width to s x width.
    positions = {"layer1": 56**2, "layer2": 28**2, "layer3": 14**2}
    full = {"layer1": 64, "layer2": 128, "layer3": 256}
    saved = sum(2 * 9 * full[n[:6]] * (full[n[:6]] - s) * positions[n[:6]] for n, s in default.widths.items())
    assert dense.macs - default.macs == saved


def test_costs_of_mobilenetv2():
    dense, default = cost("torchvision/mobilenet_v2", {}), cost("torchvision/mobilenet_v2", mobilenetv2_configuration())
    assert dense.parameters == 3_504_872
    np.testing.assert_allclose(dense.macs_with_norm, 314.2e6, rtol=5e-3)
    assert default.parameters == 3_252_979
    np.testing.assert_allclose(default.macs_with_norm, 258.7e6, rtol=5e-3)
    assert list(default.widths.values()) == [57, 115, 115, 172, 172]


def test_operations_of_norms_by_hand():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    )
    model.append(torch.nn.BatchNorm1d(5)).train()
    assert norm_operations(model, torch.rand(4, 1, 6, 6)) == 2 * (3 * 16 + 5)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
