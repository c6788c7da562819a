"""The harness itself: longest prefix, unknown names, another folder."""

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


def test_a_check_sees_the_arrays_and_can_fail(tmp_path):
    path = tmp_path / "01_masks_more.npz"
    np.savez(path, a=np.arange(3))
    seen = []
    check("rni", path, {"masks": lambda arrays: seen.append(arrays["a"].tolist())})
    assert seen == [[0, 1, 2]]


def test_files_come_from_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "rni").mkdir()
    np.savez(tmp_path / "rni" / "masks.npz", a=np.zeros(1))
    monkeypatch.setenv("PRUNING_GOLDEN", str(tmp_path))
    assert [path.name for path in files("rni")] == ["masks.npz"]


@pytest.mark.parametrize("paper", ["how_sparse", "ispasp", "rni", "sipp_pfp", "snipit"])
def test_every_paper_has_its_golden_files_here(paper, monkeypatch):
    monkeypatch.delenv("PRUNING_GOLDEN", raising=False)
    assert files(paper)
