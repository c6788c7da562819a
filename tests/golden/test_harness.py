"""The harness itself: longest prefix, unknown names and fields, checks that compare nothing, another folder."""

from pathlib import Path

import numpy as np
import pytest

from tests.golden.harness import check, files, prefix_of


def test_the_longest_prefix_wins_and_leading_digits_do_not_count():
    assert prefix_of(Path("03_snipit_conv.npz"), {"snip": 1, "snipit": 1}) == "snipit"
    assert prefix_of(Path("02_snip_mlp5.npz"), {"snip": 1, "snipit": 1}) == "snip"
    assert prefix_of(Path("7_snapshots.npz"), {"snip": 1}) is None


def test_an_unknown_name_fails_by_name(tmp_path):
    path = tmp_path / "surprise.npz"
    np.savez(path, a=np.zeros(1))
    with pytest.raises(pytest.fail.Exception, match=r"surprise\.npz"):
        check("rni", path, {"masks": lambda arrays: None})


def counts_to_two(arrays):
    np.testing.assert_array_equal(arrays["a"], np.arange(3))


def test_a_check_sees_the_arrays_and_can_fail(tmp_path):
    path = tmp_path / "01_masks_more.npz"
    np.savez(path, a=np.arange(3))
    check("rni", path, {"masks": counts_to_two})
    np.savez(path, a=np.arange(3) + 1)
    with pytest.raises(AssertionError):
        check("rni", path, {"masks": counts_to_two})


def asks_only(arrays):
    assert "b" in arrays and len(arrays) == 2 and "b" in list(arrays)
    counts_to_two(arrays)


def test_a_field_that_was_never_looked_at_fails_by_name(tmp_path):
    path = tmp_path / "masks.npz"
    np.savez(path, a=np.arange(3), b=np.ones(1))
    with pytest.raises(pytest.fail.Exception, match=r"masks\.npz: no check looked at b"):
        check("rni", path, {"masks": asks_only})
    check("rni", path, {"masks": asks_only}, {"masks": ("b",)})
    with pytest.raises(pytest.fail.Exception, match="looked at b"):
        check("rni", path, {"masks": asks_only}, {"sizes": ("b",), "masks": ("b.+",)})


def test_all_fields_at_once_cannot_be_looked_at(tmp_path):
    path = tmp_path / "masks.npz"
    np.savez(path, a=np.arange(3))
    for sweeping in (lambda arrays: dict(arrays.items()), lambda arrays: list(arrays.values())):
        with pytest.raises(TypeError, match="by name"):
            check("rni", path, {"masks": sweeping})


def test_a_check_that_compares_nothing_fails(tmp_path):
    path = tmp_path / "masks.npz"
    np.savez(path, a=np.arange(3))

    def nothing_left(arrays):
        np.testing.assert_array_equal([], arrays["a"][:0])

    for hollow in (lambda arrays: arrays["a"], nothing_left):
        with pytest.raises(pytest.fail.Exception, match="compared nothing"):
            check("rni", path, {"masks": hollow})


def test_a_check_that_skips_fails(tmp_path):
    path = tmp_path / "masks.npz"
    np.savez(path, a=np.arange(3))
    with pytest.raises(pytest.fail.Exception, match="never skipped"):
        check("rni", path, {"masks": lambda arrays: pytest.skip("no time")})


def test_files_come_from_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "rni").mkdir()
    np.savez(tmp_path / "rni" / "masks.npz", a=np.zeros(1))
    monkeypatch.setenv("PRUNING_GOLDEN", str(tmp_path))
    assert [path.name for path in files("rni")] == ["masks.npz"]


@pytest.mark.parametrize("paper", ["how_sparse", "ispasp", "rni", "sipp_pfp", "snipit"])
def test_every_paper_has_its_golden_files_here(paper, monkeypatch):
    monkeypatch.delenv("PRUNING_GOLDEN", raising=False)
    assert files(paper)
