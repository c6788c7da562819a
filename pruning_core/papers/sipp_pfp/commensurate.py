"""Commensurate accuracy, also called prune potential: how much can be removed before the error grows too much.

For a level c, the smallest network whose error is at most that of the dense network plus c; where none qualifies, the dense
network itself. Sources: baykal2019sipp and liebenwein2020pfp as implemented.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pruning_core.checks import Real, Several, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import mean_interval, require_columns, with_numbers

LEVELS = (-0.1, -0.05, -0.02, -0.01, -0.005, -0.0025, 0.0, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
"""The levels of the official reports, as differences of errors in [0, 1]."""


class Commensurate(NamedTuple):
    """What the smallest network that is good enough has; arrays of (levels, nets, repetitions, methods)."""

    error: np.ndarray
    size: np.ndarray
    measures: tuple[np.ndarray, ...]
    costs: tuple[np.ndarray, ...]


def commensurate(
    error: np.ndarray,
    size: np.ndarray,
    *,
    measures: Sequence[np.ndarray] = (),
    costs: Sequence[np.ndarray] = (),
    levels: Sequence[float] = LEVELS,
    reference: int = 0,
) -> Commensurate:
    """The smallest networks within each level of the reference, found one kept fraction after the other.

    All arrays are (nets, fractions, repetitions, methods), method number ``reference`` being the dense network: ``error``
    in the unit of the levels, ``size`` relative to the dense network; ``measures`` are more of what a network reaches
    (top-5 error, loss), ``costs`` more of what it costs (multiply-accumulates, relative too). ``levels``: how much the error
    may exceed that of the reference; below 0 it must be smaller. At equal size the later fraction is taken. A NaN never
    qualifies. Raises BadInput where shapes do not fit.
    """
    reached = [np.asarray(array, float) for array in (error, *measures)]
    spent = [np.asarray(array, float) for array in (size, *costs)]
    shape = reached[0].shape
    if len(shape) != 4 or 0 in shape or any(array.shape != shape for array in reached + spent):
        shapes = ", ".join(str(array.shape) for array in reached + spent)
        raise BadInput(f"all arrays must be of one shape (nets, fractions, repetitions, methods), not {shapes}.")
    reference = check("reference, the number of a method,", reference, Whole(at_least=0, at_most=shape[3] - 1))
    above = np.array(check("levels", levels, Several(Real(), at_least=1)), float)
    best = (len(above), shape[0], shape[2], shape[3])
    best_reached = [np.broadcast_to(array[:, 0, :, reference, None], best).copy() for array in reached]
    best_spent = [np.ones(best) for _ in spent]
    for i in range(shape[1]):
        good = reached[0][:, i, :, reference, None] + above[:, None, None, None] >= reached[0][:, i]
        take = good & (best_spent[0] >= spent[0][:, i])
        for found, array in zip(best_reached + best_spent, reached + spent, strict=True):
            np.copyto(found, array[:, i], where=take)
    return Commensurate(best_reached[0], best_spent[0], tuple(best_reached[1:]), tuple(best_spent[1:]))


RUN = ("model", "data", "width", "profile")
"""Columns of a row that two runs must share to be compared, as far as they are there."""


@checked
def commensurate_table(rows: pd.DataFrame, loss_of_accuracy: float = 0.5, *, of: str = "sparsity") -> pd.DataFrame:
    """The largest fraction removed at most ``loss_of_accuracy`` points below the dense network of the same seed.

    ``rows`` are tidy rows (``method``, ``seed``, ``accuracy`` in points, the column ``of``: "sparsity", "macs_removed" or
    "channels_removed"), those with method "dense" being the networks to compare with. A seed at which no row is good
    enough counts 0: the dense network itself. Columns: model, data, width, profile (as far as the rows have them), method,
    removed, low, high (mean over seeds and its 95 % t-interval), seeds. Seeds without a dense row are left out.
    Raises BadInput for missing columns, or when a seed has dense rows of different accuracies.

    >>> shares = {"asked": [0.0, 0.5, 0.9], "sparsity": [0.0, 0.5, 0.9], "accuracy": [90.0, 89.8, 70.0]}
    >>> rows = pd.DataFrame({"method": ["dense", "pfp", "pfp"], "seed": 0} | shares)
    >>> commensurate_table(rows)[["method", "removed"]].to_numpy().tolist()
    [['pfp', 0.5]]
    """
    require_columns(rows, ("method", "seed", "accuracy", of))
    rows = with_numbers(rows, ["accuracy", of])
    run = [column for column in RUN if column in rows]
    rows = rows[rows["accuracy"].notna()]
    is_dense = rows["method"] == "dense"
    dense = rows[is_dense].groupby([*run, "seed"])["accuracy"].agg(["min", "max"])
    several = dense.index[dense["max"] - dense["min"] > 1e-9]
    if len(several):
        raise BadInput(f"the dense rows of {several[0]} have different accuracies; give the rows of one measurement.")
    pruned = rows[~is_dense & rows[of].notna()].merge(dense["max"].rename("dense").reset_index(), on=[*run, "seed"])
    # A rounding error in a difference of percentages must not decide.
    good = pruned["accuracy"] >= pruned["dense"] - loss_of_accuracy - 1e-9
    pruned = pruned.assign(removed=pruned[of].where(good, 0.0).clip(lower=0.0))
    found = []
    by_seed = pruned.groupby([*run, "method", "seed"])["removed"].max()
    for key, values in by_seed.groupby(level=[*run, "method"]):
        found.append((*(key if isinstance(key, tuple) else (key,)), *mean_interval(values.to_numpy())))
    return pd.DataFrame(found, columns=[*run, "method", "removed", "low", "high", "seeds"])
