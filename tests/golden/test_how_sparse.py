"""Golden files of How Sparse Can We Prune; masks, widths, curvature, and complete runs."""

import numpy as np
from torch import nn

import pruning_core as pc
from tests.golden.harness import STATISTICS_OF_NORMS, Check, check, parameters
from tests.golden.how_sparse import curvature, prediction, training


def mask(z):
    """The cut through ``prune``, at the threshold of the file: whatever is not above it goes, ties too."""
    state = training.state_of(z, "sd__")
    parts = [part for part in ("conv", "linear") if any(name.startswith(f"{part}.") for name in state)]
    model = nn.Sequential()
    for part in parts:
        model.add_module(part, training.sequence(part, state, last_activation=False))
    model.double().load_state_dict(state)
    order = [str(name) if str(name) in state else f"{name}.weight" for name in z["layer_order"]]
    for i in range(len(z["rates"])):
        result = pc.prune(model, "magnitude", pc.Budget(below=float(z["threshold"][i]), keep_at_least=0))
        keep = np.concatenate([result.masks[name].flatten().numpy() for name in order])
        np.testing.assert_array_equal(keep, z["keep_mask"][i])
        assert sorted(result.masks) == sorted(order)
        found = dict(result.model.named_parameters())
        flat = np.concatenate([found[str(name)].detach().flatten().numpy() for name in z["param_order"]])
        np.testing.assert_array_equal(flat, z["pruned_flat"][i])
        for name, buffer in result.model.named_buffers():
            np.testing.assert_array_equal(buffer, state[name])


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
    "pipeline": both(training.pipeline_training, prediction.CHECKS["pipeline"], curvature.check_pipeline_curvature),
}
UNREAD = {
    "hvp": ("lmbda", r"sd__.*num_batches_tracked"),  # the first has no part in a file without l1
    "l1_training": ("gamma", "milestones"),  # of the multistep schedule only
    "mask": (rf"sd__{STATISTICS_OF_NORMS}",),
}  # fmt: skip


@parameters("how_sparse")
def test_golden(path):
    check("how_sparse", path, CHECKS, UNREAD)
