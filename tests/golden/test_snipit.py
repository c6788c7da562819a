"""Golden files of SNIP-it and SNAP-it: their checks come with chapter 4. What the ground floor holds is compared already."""

import re

import numpy as np
import pytest
import torch

from harness import PENDING, Check, check, files, prefix_of
from harness import parameters as every_file
from pruning_core.layers import HardConcreteGate
from pruning_core.schedules import fraction_after
from pruning_core.stages import Every, Measure

CHECKS: dict[str, Check] = {}


@every_file("snipit")
def test_golden(path):
    check("snipit", path, CHECKS)


def schedules(z):
    """Targets of the three criteria that halve the gap, and the epochs at which a cut is tried; not the tick-tock targets."""
    for name in z:
        if found := re.fullmatch(r"(snipit|snapit|imp)/limit=(.+)/S=(\d+)", name):
            limit, n = float(found[2]), int(found[3]) + 2
            ours = [fraction_after("snip_it", i, n, limit) for i in range(1, n + 1)]
            if limit >= 0.5:
                np.testing.assert_allclose(ours, z[name], rtol=0, atol=1e-12)
            else:  # the official code starts at one half all the same, and would have to revive weights
                assert ours == [limit] * n
        elif found := re.fullmatch(r"prune_epochs/(\w+)/delay=(\d+)/freq=(\d+)/epochs=(\d+)", name):
            criterion, delay, freq, epochs = found[1], *map(int, found.groups()[1:])
            if z[name].size or criterion.endswith("During"):
                # Their epochs count from 0, ours from 1; the first is the one after the delay and one whole period.
                ours = Every(freq, (Measure("cut"),), after=delay + 1).epochs(epochs)
                np.testing.assert_array_equal(np.array(ours) - 1, z[name])


def l0_linear(z):
    """The gates: sampled, in evaluation mode, their chance to be shut; not the prior on weights and biases."""
    weight, bias = torch.from_numpy(z["param/weights"]), torch.from_numpy(z["param/bias"])
    limits = (float(z["limit_a"]), float(z["limit_b"]))
    gate = HardConcreteGate(len(weight), temperature=float(z["temperature"]), limits=limits).double()
    with torch.no_grad():
        gate.log_alpha.copy_(torch.from_numpy(z["param/qz_loga"]))
    x, close = torch.from_numpy(z["x"]), {"rtol": 1e-9, "atol": 1e-12}
    with torch.no_grad():
        sampled = gate.sample(torch.from_numpy(z["eps"]))
        np.testing.assert_allclose(sampled[:, None] * weight, z["sampled_weights"], **close)
        np.testing.assert_allclose((x * sampled) @ weight + bias, z["train_output"], **close)
        np.testing.assert_allclose(gate.eval()(torch.ones_like(x)), z["eval_gate"], **close)
        np.testing.assert_allclose(gate(x) @ weight + bias, z["eval_output"], **close)
        np.testing.assert_allclose(1 - gate.open_probability(), z["cdf_at_0"], **close)
        in_use = gate.open_probability().sum() * weight.shape[1]
        np.testing.assert_allclose(in_use + len(bias), z["expected_l0"], **close)


PARTS: dict[str, Check] = {"schedules": schedules, "l0_linear": l0_linear}


@pytest.mark.parametrize("prefix", PARTS)
def test_what_stands_already(prefix):
    """The file stays pending as a whole: `test_golden` says so."""
    paths = [path for path in files("snipit") if prefix_of(path, PENDING["snipit"]) == prefix]
    if not paths:
        pytest.skip(f"no file {prefix}* here")
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            PARTS[prefix]({name: arrays[name] for name in arrays.files})
