"""Golden files of SiPP and PFP, family by family."""

from tests.golden.harness import Check, check, parameters
from tests.golden.sipp_pfp import filters, samples, schedules, weights

CHECKS: dict[str, Check] = {**samples.CHECKS, **weights.CHECKS, **filters.CHECKS, **schedules.CHECKS}


@parameters("sipp_pfp")
def test_golden(path):
    check("sipp_pfp", path, CHECKS)
