"""Fixtures of the methods."""

import pytest
import torch

import pruning_core as pc


@pytest.fixture(scope="module")
def batches():
    digits = pc.load_data("digits", dtype=torch.float64)
    return list(digits.score.subset(60).batches(20))
