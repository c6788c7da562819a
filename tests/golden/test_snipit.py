"""Golden files of SNIP-it and SNAP-it: their checks come with chapter 4."""

from harness import Check, check, parameters

CHECKS: dict[str, Check] = {}


@parameters("snipit")
def test_golden(path):
    check("snipit", path, CHECKS)
