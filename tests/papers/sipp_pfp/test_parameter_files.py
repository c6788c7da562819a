"""Kept fractions, their groups, the official parameter files; commensurate accuracy and the schedule they train with."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.models import MODELS
from pruning_core.papers.sipp_pfp.commensurate import LEVELS, commensurate, commensurate_table
from pruning_core.papers.sipp_pfp.parameter_files import (
    PARAMETER_FILES,
    kept_fractions,
    read_files,
    retrained,
    warm_up_and_cool_down,
)
from pruning_core.papers.sipp_pfp.spacings import (
    MODES,
    SPACINGS,
    compressed_before,
    cubic,
    geometric,
    harmonic,
    harmonic2,
    in_groups,
    linear,
    manual,
)

RANGED = (geometric, linear, cubic, harmonic2)
fractions = st.floats(1e-6, 1)


@pytest.mark.parametrize("spacing", RANGED)
@given(n=st.integers(1, 80), a=fractions, b=fractions)
def test_a_spacing_goes_down_from_the_largest_to_the_smallest(spacing, n, a, b):
    largest, smallest = max(a, b), min(a, b)
    found = spacing(n, largest, smallest)
    assert len(found) == n
    assert found[0] == largest
    assert n == 1 or found[-1] == smallest
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(found))
    assert all(smallest * (1 - 1e-12) <= fraction <= largest * (1 + 1e-12) for fraction in found)


@given(st.integers(3, 40))
def test_what_is_equal_between_neighbours(n):
    kept = np.array(geometric(n, 0.9, 0.01))
    np.testing.assert_allclose(kept[1:] / kept[:-1], kept[1] / kept[0])
    np.testing.assert_allclose(np.diff(linear(n, 0.9, 0.01)), (0.01 - 0.9) / (n - 1))
    np.testing.assert_allclose(
        np.diff(np.cbrt(np.array(cubic(n, 0.9, 0.01)) - 0.01)), -np.cbrt(0.89) / (n - 1), atol=1e-6
    )
    power = -np.diff(np.log(harmonic2(n, 0.9, 0.01))) / np.diff(np.log(np.arange(1, n + 1)))
    np.testing.assert_allclose(power, power[0])


@given(st.floats(0.2, 8), st.floats(0.01, 1))
def test_harmonic_halves_after_n_intervals_and_stops_at_the_smallest(n, smallest):
    power = math.log(2) / math.log(1 + n)
    if smallest ** (-1 / power) > 1e5:
        return
    kept = np.array(harmonic(n, smallest))
    np.testing.assert_allclose(kept, np.arange(2.0, len(kept) + 2) ** -power)
    assert (1 + n) ** -power == pytest.approx(0.5)
    # The last one stands at i = smallest ** (-1 / p), one further than the last fraction above the smallest.
    assert len(kept) == 1 or kept[-2] >= smallest * (1 - 1e-9)


@given(st.lists(fractions, min_size=1, max_size=60), st.data())
def test_groups_are_those_of_numpy(kept, data):
    count = data.draw(st.integers(1, len(kept)))
    found = in_groups(kept, count)
    assert [list(group) for group in found] == [part.tolist() for part in np.array_split(np.array(kept), count)]
    assert in_groups(kept) == tuple((fraction,) for fraction in kept)
    inside, from_start = compressed_before(kept, count), compressed_before(kept, count, "retrain")
    assert [before + (group[-1],) for before, group in zip(inside, found, strict=True)] == list(found)
    # From the dense network, everything compressed so far is done again; retrained fractions of others are not.
    for i, before in enumerate(from_start):
        assert before == sum(inside[: i + 1], ())


def test_spacings_stand_behind_one_another(tmp_path):
    path = tmp_path / "files.yml"
    training = "{epochs: 1, batch_size: 1, lr: 1, milestones: []}"
    entry = "{network: a, data: b, methods: [c], training: t, spacing: %s}"
    three = "[[geometric, 2, 0.8, 0.4], [manual, [0.3, 0.1]], [harmonic, 1, 0.25]]"
    path.write_text(f"trainings: {{t: {training}}}\nfiles: {{x: {entry % three}}}\n", encoding="utf-8")
    kept = read_files(path)["x"].kept
    assert kept == (0.8, 0.4, 0.3, 0.1, 0.5, 1 / 3, 0.25, 0.2)[: 4 + len(harmonic(1, 0.25))]
    path.write_text(f"trainings: {{t: {training}}}\nfiles: {{x: {entry % '[[geometrical, 3, 0.5, 0.1]]'}}}\n")
    with pytest.raises(UnknownName, match="unknown spacing 'geometrical': did you mean 'geometric'"):
        read_files(path)


@pytest.mark.parametrize("name", PARAMETER_FILES)
def test_parameter_files_are_consistent(name):
    entry, kept, last = PARAMETER_FILES[name], kept_fractions(name), retrained(name)
    assert len(last) == (entry.retrained or len(kept))
    assert set(last) <= set(kept)
    assert kept[-1] == last[-1]
    assert all(after < before for before, after in pairwise(kept))
    assert entry.mode in MODES
    assert entry.methods
    assert entry.delta > 0
    if "driving" in name:
        assert (entry.network, entry.data) == (None, None)
    else:
        assert entry.data in DATASETS
        assert entry.network in MODELS or entry.network.startswith("torchvision/")


def test_networks_of_torchvision_exist():
    from torchvision import models

    names = {e.network.removeprefix("torchvision/") for e in PARAMETER_FILES.values() if e.data == "imagenet"}
    assert names <= set(models.list_models(module=models))


@pytest.mark.parametrize(("name", "every", "last"), [
    ("cifar/resnet20", 69, 23), ("cifar/resnet56", 60, 20), ("cifar/resnet110", 60, 20), ("cifar/vgg16", 60, 20),
    ("cifar/densenet22", 66, 22), ("cifar/wrn16_8", 69, 23), ("cifar/lenet5", 8, 8), ("mnist/lenet300_100", 12, 12),
    ("mnist/lenet5", 15, 15), ("imagenet/resnet18", 18, 18), ("imagenet/resnet101", 16, 16),
    ("imagenet/wrn50_2", 10, 10), ("imagenet/vgg11", 10, 10), ("driving/deepknight", 40, 40), ("pfp/cifar/cnn5", 15, 15),
    ("sipp/cifar/cascade/wrn28_2", 20, 20), ("sipp/cifar/rand/resnet20_rand", 14, 14), ("sipp/mnist/fc_nettrim", 30, 30),
])  # fmt: skip
def test_numbers_of_fractions(name, every, last):
    assert (len(kept_fractions(name)), len(retrained(name))) == (every, last)


def test_settings_that_differ_in_retraining():
    vgg, lenet = PARAMETER_FILES["cifar/vgg16"], PARAMETER_FILES["mnist/lenet300_100"]
    assert (vgg.training.epochs, vgg.retraining.epochs, vgg.training.warmup, vgg.retraining.warmup) == (300, 150, 10, 5)
    assert (lenet.training.milestones, lenet.retraining.milestones) == ((30, 45), (25, 35))
    assert PARAMETER_FILES["sipp/cifar/rand/vgg16_rand"].training.epochs == 0
    assert PARAMETER_FILES["sipp/cifar/rand/vgg16_rand"].retraining.epochs == 300
    assert PARAMETER_FILES["cifar/resnet20"].training.gpus == 2
    assert len(PARAMETER_FILES["sipp/cifar/sweep/resnet20_sizes"].deltas) == 15


def test_what_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(UnknownName, match="did you mean 'cifar/resnet20'"):
        kept_fractions("cifar/resnet-20")
    with pytest.raises(UnknownName, match="unknown parameter file"):
        retrained("resnet20")
    with pytest.raises(UnknownName, match="unknown mode 'once'"):
        compressed_before([0.5], mode="once")
    for bad in (0, -0.1, 1.01, math.nan, math.inf):
        for call in (
            lambda v: manual([0.5, v]),
            lambda v: linear(3, v, v),
            lambda v: harmonic(2, v),
            lambda v: in_groups([v]),
        ):
            with pytest.raises(BadInput, match=r"must lie in \(0, 1\]"):
                call(bad)
    for bad in ("0.5", None, True):
        with pytest.raises(BadType, match="must be a number"):
            manual([bad])
    for spacing in RANGED:
        with pytest.raises(BadInput, match=r"go down .* not from 0.1 to 0.5"):
            spacing(3, 0.1, 0.5)
        with pytest.raises(BadInput, match="number of kept fractions must be at least 1"):
            spacing(0, 0.5, 0.1)
        with pytest.raises(BadType, match="whole number"):
            spacing(2.5, 0.5, 0.1)
    for n in (0, -1, math.inf, math.nan):
        with pytest.raises(BadInput, match="intervals to one half must be finite and above 0"):
            harmonic(n, 0.1)
    for count in (0, -1, 4):
        with pytest.raises(BadInput, match=f"number of groups must be between 1 and 3, not {count}"):
            in_groups([0.3, 0.2, 0.1], count)
    with pytest.raises(BadType, match="number of groups must be a whole number"):
        in_groups([0.3, 0.2], 1.5)
    for nothing in ([], ()):
        with pytest.raises(BadInput, match="kept fractions must have a length of at least 1"):
            in_groups(nothing)
    with pytest.raises(BadInput, match="kept fractions must have a length of at least 1"):
        SPACINGS["manual"]([])


def test_commensurate_takes_the_smallest_that_is_good_enough():
    error = np.array([[0.10, 0.10], [0.10, 0.10], [0.10, 0.12], [0.10, 0.10], [0.10, 0.30]])[None, :, None]
    size = np.array([[1, 0.9], [1, 0.5], [1, 0.3], [1, 0.4], [1, 0.1]])[None, :, None]
    found = commensurate(error, size, measures=(2 * error,), costs=(size**2,), levels=(-0.01, 0.0, 0.02, 1.0))
    np.testing.assert_allclose(found.size[:, 0, 0, 1], [1, 0.4, 0.3, 0.1])
    np.testing.assert_allclose(found.error[:, 0, 0, 1], [0.10, 0.10, 0.12, 0.30])
    np.testing.assert_allclose(found.measures[0], 2 * found.error)
    np.testing.assert_allclose(found.costs[0], found.size**2)
    assert commensurate(error, size).size.shape == (len(LEVELS), 1, 1, 2)
    never = commensurate(np.where(error > 0.1, np.nan, error), size, levels=(1.0,))
    np.testing.assert_allclose(never.size[0, 0, 0, 1], 0.4)
    for bad in (error[0], error[:, :0]):
        with pytest.raises(BadInput, match="one shape"):
            commensurate(bad, bad)
    with pytest.raises(BadInput, match="one shape"):
        commensurate(error, size[..., :1])
    with pytest.raises(BadInput, match="reference, the number of a method, must be between 0 and 1, not 2"):
        commensurate(error, size, reference=2)
    with pytest.raises(BadInput, match="levels must have a length of at least 1"):
        commensurate(error, size, levels=())


def rows(*entries):
    return pd.DataFrame([
        {"model": "m", "data": "d", "method": method, "seed": seed, "sparsity": sparsity, "accuracy": accuracy}
        for method, seed, sparsity, accuracy in entries
    ])  # fmt: skip


def test_commensurate_table_of_rows():
    table = commensurate_table(rows(
        ("dense", 0, 0.0, 90.0), ("dense", 1, 0.0, 92.0), ("dense", 1, 0.0, 92.0),
        ("sipp", 0, 0.5, 89.5), ("sipp", 0, 0.9, 89.4), ("sipp", 1, 0.5, 91.4), ("sipp", 1, 0.8, 91.5),
        ("magnitude", 0, 0.5, 10.0), ("magnitude", 1, 0.7, math.nan), ("magnitude", 2, 0.9, 99.0),
    ))  # fmt: skip
    assert list(table.columns) == ["model", "data", "method", "removed", "low", "high", "seeds"]
    by_method = table.set_index("method")
    assert by_method.loc["sipp", "removed"] == pytest.approx(0.65)  # 0.5 and 0.8
    assert by_method.loc["sipp", "low"] < 0.65 < by_method.loc["sipp", "high"]
    assert by_method.loc["sipp", "seeds"] == 2
    assert by_method.loc["magnitude", "removed"] == 0  # not good enough; seed 2 has no dense row
    assert by_method.loc["magnitude", "seeds"] == 1
    assert math.isnan(by_method.loc["magnitude", "low"])


def test_commensurate_table_refuses_what_it_cannot_compare():
    with pytest.raises(BadInput, match="lack the column 'accuracy'"):
        commensurate_table(rows(("dense", 0, 0.0, 90.0)).drop(columns="accuracy"))
    with pytest.raises(BadInput, match="different accuracies"):
        commensurate_table(rows(("dense", 0, 0.0, 90.0), ("dense", 0, 0.0, 91.0), ("sipp", 0, 0.5, 90.0)))
    assert commensurate_table(rows(("dense", 0, 0.0, 90.0))).empty


@given(st.integers(0, 300), st.floats(0.1, 5), st.floats(0.1, 9), st.floats(0, 0.09))
def test_momentum_and_factor_stay_in_their_bounds(step, warmup, cooldown, shift):
    factor, momentum = warm_up_and_cool_down(step / 7, 0.5, 0.9, warmup, cooldown, shift)
    assert 0 <= factor <= 1
    assert 0.9 - shift - 1e-12 <= momentum <= 0.9 + shift + 1e-12
    assert warm_up_and_cool_down(1000, 0.5, 0.9, warmup, cooldown, shift) == (0.5, pytest.approx(0.9 + shift))
