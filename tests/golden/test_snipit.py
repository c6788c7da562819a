"""Golden files of SNIP-it and SNAP-it, family by family."""

from tests.golden.harness import Check, check
from tests.golden.harness import parameters as every_file
from tests.golden.snipit import attacks, gradients, networks, regularisers

CHECKS: dict[str, Check] = {**gradients.CHECKS, **regularisers.CHECKS, **networks.CHECKS, **attacks.CHECKS}
UNREAD = {"efficient_convnets": ("y",), "group_hs": ("y",)}  # neither looks at labels


@every_file("snipit")
def test_golden(path):
    check("snipit", path, CHECKS, UNREAD)
