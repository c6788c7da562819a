"""Architectures that others wrote: every cut is exact, or refused in one sentence; torch-pruning is judged by the same rule."""

import pytest

from tests.models.third_party import NETWORKS, ours, theirs

FAST = ("timm convnext_atto",)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_a_cut_is_exact_or_refused_in_one_sentence(name):
    found = ours(NETWORKS[name])
    if NETWORKS[name].exact:
        assert found.kind == "exact" and found.weights > 0.1, found
    else:
        assert found.kind in ("exact", "refused"), found
    if found.kind == "refused":
        assert "\n" not in found.said and found.said.endswith(".") and 40 < len(found.said) < 500
        assert "Traceback" not in found.said, found


def test_the_judge_knows_a_wrong_cut_from_a_right_one():
    """torch-pruning is right about a plain network and cuts the widths that a LayerNorm reads, which gives another network."""
    assert theirs(NETWORKS["alexnet"]).kind == "exact"
    assert theirs(NETWORKS["timm convnext_atto"]).kind == "differs"
