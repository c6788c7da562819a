"""Golden files of RNI; what the ground floor already holds: the sigmoid batch norm."""

import numpy as np
import torch

from harness import Check, check, parameters
from pruning_core.layers import SigmoidBatchNorm2d, to_plain


def sigbn_forward(z):
    layer = SigmoidBatchNorm2d(len(z["gamma"]), eps=float(z["eps"]), momentum=float(z["momentum"])).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(z["gamma"]))
    assert (layer.bias is not None) == bool(z["has_bias"])
    close = {"rtol": 1e-10, "atol": 1e-12}
    for step, (x, upstream) in enumerate(zip(z["x_train"], z["upstream"], strict=True)):
        inputs = torch.from_numpy(x).requires_grad_(True)
        y = layer(inputs)
        layer.weight.grad = None
        (y * torch.from_numpy(upstream)).sum().backward()
        np.testing.assert_allclose(y.detach(), z["y_train"][step], **close)
        np.testing.assert_allclose(layer.weight.grad, z["grad_gamma"][step], **close)
        np.testing.assert_allclose(inputs.grad, z["grad_x"][step], **close)
        np.testing.assert_allclose(layer.running_mean, z["running_mean"][step], **close)
        np.testing.assert_allclose(layer.running_var, z["running_var"][step], **close)
    assert int(layer.num_batches_tracked) == int(z["num_batches_tracked"])
    layer.eval()
    x = torch.from_numpy(z["x_eval"])
    np.testing.assert_allclose(layer(x).detach(), z["y_eval"], **close)
    np.testing.assert_allclose(to_plain(layer)(x).detach(), z["y_eval"], **close)


CHECKS: dict[str, Check] = {"sigbn_forward": sigbn_forward}


@parameters("rni")
def test_golden(path):
    check("rni", path, CHECKS)
