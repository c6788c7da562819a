"""Golden files of i-SpaSP; what the pilot already holds: the two-layer algorithm."""

import numpy as np
import torch

from harness import Check, check, parameters
from pruning_core.methods.ispasp import two_layer


def two_layer_file(z):
    hidden = torch.relu(torch.from_numpy(z["X"]) @ torch.from_numpy(z["W0"]).T)
    weight, s, iterations = torch.from_numpy(z["W1"]), int(z["s"]), int(z["T"])
    close = {"rtol": 1e-8, "atol": 1e-9 * float(np.abs(z["importance"]).max())}
    np.testing.assert_allclose(hidden.sum(0), z["h"], rtol=1e-8)
    assert int(hidden.shape[1] * float(z["ratio"])) == s
    for pieces in (1, 3):
        steps = two_layer(lambda n=pieces: hidden.chunk(n), lambda h: h @ weight.T, s, iterations)
        # Ours stops when the support repeats; the official code goes on with what no longer changes.
        for t in range(iterations):
            ours = steps[min(t, len(steps) - 1)]
            np.testing.assert_array_equal(ours.support, np.sort(z["support"][t]))
            np.testing.assert_allclose(ours.importance, z["importance"][t], **close)
            np.testing.assert_allclose(0.5 * ours.residual, z["residual"][t], rtol=1e-8, atol=1e-9 * z["residual"][0])
    dead = np.setdiff1d(np.arange(len(z["h"])), steps[-1].support)
    left = hidden[:, dead] @ weight[:, dead].T
    np.testing.assert_allclose(0.5 * left.square().sum(), z["residual"][-1], rtol=1e-8, atol=1e-9 * z["residual"][0])


CHECKS: dict[str, Check] = {"two_layer": two_layer_file}


@parameters("ispasp")
def test_golden(path):
    check("ispasp", path, CHECKS)
