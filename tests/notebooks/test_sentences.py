"""Sentences of the pages that state a result, recomputed from the stored rows they speak of."""

import pytest

from pruning_core import records
from pruning_core.data import load_data
from pruning_core.experiments import paired_difference


@pytest.fixture(scope="module")
def stored():
    rows = records.load(records.results_root())
    return rows[rows["profile"].isin(["standard", "paper"])]


def clear(rows, first, second):
    """Who is clearly ahead, at each fraction removed."""
    found = paired_difference(rows, first, second)
    return dict(zip(found["removed"].astype(float), found["better"], strict=True))


def test_feed_forward_networks_of_ten_units_differ_widely_after_fine_tuning(stored):
    rows = stored[(stored["model"] == "ffn2_ispasp") & (stored["label"] == "fine-tuned")]
    means = rows.groupby(["kept", "method"])["accuracy"].mean().unstack("method")
    ten = means.loc[10].round()
    assert [ten[m] for m in ("imitation", "greedy", "ispasp", "random_channels", "weight_product")] == [
        53,
        66,
        90,
        90,
        91,
    ]
    assert (means.loc[25:].max(axis=1) - means.loc[25:].min(axis=1)).max() < 2.5


def test_the_choice_of_ispasp_outlasts_fine_tuning_on_digits_only_where_little_is_kept(stored):
    rows = stored[(stored["label"] == "fine-tuned") & stored["kept"].notna()]
    basic, other, vit = (rows[rows["model"] == name] for name in ("basic4", "inverted4", "vit_tiny"))
    assert clear(basic, "ispasp", "random_channels") == {0.6: "open", 0.8: "ispasp", 0.9: "ispasp"}
    assert set(clear(basic, "ispasp", "activation_sum").values()) == {"open"}
    assert clear(other, "ispasp", "random_channels") == {0.8: "ispasp"}
    assert clear(vit, "ispasp", "random_channels") == {0.8: "open"}
    assert rows[rows["model"] == "resnet20"]["seed"].nunique() == 2


def test_rni_beside_l1_and_uniform_scaling(stored):
    rows = stored[stored["profile"].eq("standard") & stored["of"].eq("channels")]
    mine = stored[stored["importance"].notna()]
    last = rows[rows["experiment"].isin(mine["experiment"]) & rows["label"].eq("fine-tuned")]
    residual, digits = (last[last["model"] == name] for name in ("resnet20", "vgg8"))
    before = mine[mine["label"].eq("dense") & mine["model"].eq("resnet20")]
    assert clear(before, "rni", "slimming") == {0.0: "slimming"}
    assert clear(before, "rni", "ucs") == {0.0: "open"}
    assert clear(residual, "rni", "slimming") == {0.5: "slimming", 0.8: "open"}
    assert clear(residual, "rni", "ucs") == {0.5: "ucs", 0.8: "ucs"}
    assert clear(residual, "rni", "random_channels") == dict.fromkeys((0.5, 0.8), "random_channels")
    assert clear(digits, "rni", "slimming")[0.9] == "rni"
    assert clear(digits, "rni_no_penalty", "slimming")[0.9] == "open"
    chain = mine[mine["label"].eq("dense") & mine["model"].eq("vgg16_rni") & mine["method"].eq("slimming")]
    assert sorted(set(chain["accuracy"].round())) == [10, 26, 33]


def test_about_half_of_the_rows_are_null_at_most(stored):
    rows = stored[stored["study"].eq("null rows") & stored["label"].ne("curve")]
    shares = rows.groupby(["inputs", "strength"])["null_fraction"]
    assert shares.max()["normalised"].max() <= 0.2
    assert shares.mean()["0 to 1"].round(1).tolist() == [0.3, 0.5, 0.3]
    assert (
        rows[rows["inputs"].eq("0 to 1") & rows["strength"].between(1e-4, 1e-3)]["null_fraction"]
        .between(0.45, 0.52)
        .all()
    )


def test_nine_thousand_images_in_all_are_6750_for_training():
    share = 9_000 / 60_000  # of CIFAR-10, the score, validation and test images included
    assert int(45_000 * share) == 6_750
    train = load_data("mnist5k", limit=1_000).train
    assert len(train) == int(len(load_data("mnist5k").train) * 1_000 / 5_000)
