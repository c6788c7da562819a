"""The stored table of networks that others wrote: complete, of one run's kinds, and what the tool finds today."""

import pytest

from pruning_core.book import other_networks
from tests.models.third_party import NETWORKS, ours, theirs


def test_every_network_is_judged_in_both_and_none_is_wrong_here():
    rows = other_networks()
    assert list(dict.fromkeys(rows.index.get_level_values("network"))) == list(NETWORKS)
    assert set(rows.xs("here", level="tool")["kind"]) <= {"exact", "refused"}
    assert set(rows["kind"]) <= {"exact", "differs", "refused", "not judged"}
    exact = {name for name, network in NETWORKS.items() if network.exact}
    assert exact <= {name for name in NETWORKS if rows.loc[(name, "here"), "kind"] == "exact"}
    assert (rows.loc[rows["kind"] == "exact", "removed"] > 0.1).all()


@pytest.mark.parametrize(("tool", "judge"), [("here", ours), ("torch-pruning", theirs)])
def test_a_stored_row_is_found_again(tool, judge):
    stored = other_networks().loc[("timm convnext_atto", tool)]
    found = judge(NETWORKS["timm convnext_atto"])
    assert (found.kind, round(found.weights, 4)) == (stored["kind"], stored["removed"])
