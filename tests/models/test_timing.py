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
    assert (seconds.n, seconds.threads) == (5, torch.get_num_threads())


def test_options_time_a_copy_in_the_order_and_with_the_layers_asked_for():
    class Look(nn.Module):
        def forward(self, x):
            seen.append((x.is_contiguous(memory_format=torch.channels_last), type(network[1])))
            return x

    seen: list = []
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Look())
    options = {"repeats": 1, "warmup": 0}
    timing.latency(network, torch.zeros(2, 3, 8, 8), **options)
    assert not seen[-1][0]
    timing.latency(network, torch.zeros(2, 3, 8, 8), channels_last=True, fold_batch_norm=True, **options)
    assert seen[-1][0]
    assert type(network[1]) is nn.BatchNorm2d
    assert network[0].weight.is_contiguous()


def test_networks_take_turns_and_are_compared_with_the_first():
    networks = {("a", 1): nn.Linear(4, 4), ("b", 2): nn.Linear(4, 2)}
    rows = timing.latency_in_turns(networks, torch.zeros(3, 4), turns=3)
    assert [(row["network"], row["turn"]) for row in rows] == [(key, turn) for turn in range(3) for key in networks]
    assert all(first["relative"] == 1 for first in rows[::2])
    assert all(b["relative"] == b["time"] / a["time"] for a, b in zip(rows[::2], rows[1::2], strict=True))


def test_csr_products_are_timed_at_each_sparsity():
    rows = timing.csr_speed([0.5, 0.99], size=(64, 128), columns=8, repeats=3)
    assert [row["sparsity"] for row in rows] == [0.5, 0.99]
    assert all(row["speedup"] == row["dense_seconds"] / row["csr_seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: timing.latency(nn.Linear(2, 2), torch.zeros(1, 2), repeats=0), BadInput, "repeats"),
        (lambda: timing.latency(nn.Linear(2, 2), torch.zeros(1, 2), channels_last=True), BadInput, "order of images"),
        (lambda: timing.latency_in_turns({}, torch.zeros(1, 2)), BadInput, "no network"),
        (lambda: timing.csr_speed([1.5]), BadInput, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
