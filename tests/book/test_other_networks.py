"""The stored table of networks that others wrote: in one order, of known kinds, and what the tool finds today."""

import pytest

from pruning_core.book import other_networks
from tests.models.third_party import NETWORKS, ours, theirs


def test_every_stored_network_is_judged_in_both_and_none_is_wrong_here():
    rows = other_networks()
    judged = list(rows.index.unique("network"))
    assert judged == [name for name in NETWORKS if name in judged] and len(rows) == 2 * len(judged) > 40
    assert set(rows.xs("here", level="tool")["kind"]) <= {"exact", "refused"}
    assert set(rows["kind"]) <= {"exact", "differs", "refused", "not judged"}
    exact = {name for name in judged if NETWORKS[name].exact}
    assert exact <= {name for name in judged if rows.loc[(name, "here"), "kind"] == "exact"}
    assert (rows.loc[rows["kind"] == "exact", "removed"] > 0.1).all()


@pytest.mark.parametrize(("tool", "judge"), [("here", ours), ("torch-pruning", theirs)])
def test_a_stored_row_is_found_again(tool, judge):
    stored = other_networks().loc[("timm convnext_atto", tool)]
    found = judge(NETWORKS["timm convnext_atto"])
    assert (found.kind, round(found.weights, 4)) == (stored["kind"], stored["removed"])
