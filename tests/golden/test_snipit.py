"""Golden files of SNIP-it and SNAP-it, family by family."""

import snipit_attacks
import snipit_networks
import snipit_regularisers
import snipit_sensitivity
from harness import Check
from harness import check
from harness import parameters as every_file

CHECKS: dict[str, Check] = {
    **snipit_sensitivity.CHECKS,
    **snipit_regularisers.CHECKS,
    **snipit_networks.CHECKS,
    **snipit_attacks.CHECKS,
}


@every_file("snipit")
def test_golden(path):
    check("snipit", path, CHECKS)
