"""Golden files of How Sparse Can We Prune; masks, widths, curvature, and complete runs."""

import math

import numpy as np
import torch

from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites
from tests.golden.harness import Check, check, parameters
from tests.golden.how_sparse import curvature, prediction, training


def mask(z):
    """The official rule: n = ceil(p N) in float64, at least 1; whatever is not above the n-th smallest goes, ties too."""
    names = [str(name) for name in z["layer_order"]]
    # layer_order holds layers or parameters; a layer's weight is the parameter of that name.
    keys = [name if f"sd__{name}" in z else f"{name}.weight" for name in names]
    weights = {key: torch.from_numpy(z[f"sd__{key}"]) for key in keys}
    scores = Scores({key: weight.abs() for key, weight in weights.items()})
    sites = Sites({key: weight.shape for key, weight in weights.items()}, tuple(keys))
    pooled = np.concatenate([score.flatten().numpy() for score in scores.values()])
    for i, rate in enumerate(z["rates"]):
        n = max(math.ceil(float(rate) * len(pooled)), 1)
        threshold = np.partition(pooled, n - 1)[n - 1]
        np.testing.assert_allclose(threshold, z["threshold"][i], rtol=1e-12)
        found = allocate(scores, Budget(below=float(threshold), keep_at_least=0), Masks(), sites)
        keep = np.concatenate([found[key].flatten().numpy() for key in keys])
        np.testing.assert_array_equal(keep, z["keep_mask"][i])
        assert int(keep.sum()) == int(z["n_kept"][i])
        np.testing.assert_allclose(np.sqrt((pooled[~keep] ** 2).sum()), z["l2_distance"][i], rtol=1e-12)
        parts = []
        for parameter in (str(name) for name in z["param_order"]):
            values = torch.from_numpy(z[f"sd__{parameter}"])
            parts.append((values * found[parameter] if parameter in found else values).flatten().numpy())
        np.testing.assert_array_equal(np.concatenate(parts), z["pruned_flat"][i])


def both(*checks: Check) -> Check:
    """All checks, one after the other."""

    def run(z):
        for single in checks:
            single(z)

    return run


CHECKS: dict[str, Check] = {
    **curvature.CHECKS,
    **prediction.CHECKS,
    **training.CHECKS,
    "mask": both(mask, prediction.CHECKS["mask"]),
    "pipeline": both(prediction.CHECKS["pipeline"], curvature.check_pipeline_curvature),
}


@parameters("how_sparse")
def test_golden(path):
    check("how_sparse", path, CHECKS)
