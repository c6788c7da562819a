"""Times come with their quartiles, and sparse products are timed at every sparsity that is asked for."""

import pytest
import torch
import torchvision
from torch import nn

from pruning_core.errors import BadInput
from pruning_core.models import timing


def test_latency_is_a_median_between_its_quartiles():
    seconds = timing.latency(torchvision.models.squeezenet1_1().train(), torch.zeros(1, 3, 32, 32), 5, 1)
    assert 0 < seconds.q1 <= seconds.median <= seconds.q3
    assert seconds.n == 5


def test_csr_products_are_timed_at_each_sparsity():
    rows = timing.csr_speed([0.5, 0.99], size=(64, 128), columns=8, repeats=3)
    assert [row["sparsity"] for row in rows] == [0.5, 0.99]
    assert all(row["speedup"] == row["dense_seconds"] / row["csr_seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: timing.latency(nn.Linear(2, 2), torch.zeros(1, 2), repeats=0), BadInput, "repeats"),
        (lambda: timing.csr_speed([1.5]), BadInput, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
