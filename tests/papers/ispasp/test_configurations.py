"""Configurations of the paper that cannot be made."""

import pytest

from pruning_core.errors import BadInput
from pruning_core.papers.ispasp.configurations import kept_width, mobilenetv2_configuration


def test_ratios_that_keep_none():
    for width, ratio in ((10, 0.05), (3, 0.3)):
        with pytest.raises(BadInput, match=f"the ratio {ratio} keeps none of {width} channels"):
            kept_width(width, ratio)
    for ratio in (0, -0.5, 1.5, float("nan")):
        with pytest.raises(BadInput, match=r"a kept ratio must lie in \(0, 1\]"):
            kept_width(10, ratio)


def test_blocks_without_expansion_are_refused():
    for block in (0, 1, 18):
        with pytest.raises(BadInput, match=f"features 2 to 17, not at {block}"):
            mobilenetv2_configuration(0.3, (6, block))
