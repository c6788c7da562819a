"""Predicted limits of trained networks as tidy rows, for studies: one network, or one a round of gradual pruning.

Zhang et al. 2024 remark that pruning in rounds allows a higher predicted limit, as each round starts near the weights that
it ends with. What a round is had to be chosen here, since neither the paper's schedule nor its figure's numbers could be
seen: a cut by magnitude and training on with the same penalty. Later Hessians are those of the living weights, but
fractions count all weights of the dense network.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from pruning_core.checks import Whole, check, checked
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.intervals import require_columns
from pruning_core.experiments.recipes.chapters import l1_in_rounds
from pruning_core.experiments.runs import final_state
from pruning_core.experiments.stages import Prune, Train
from pruning_core.experiments.state import State
from pruning_core.experiments.studies import study
from pruning_core.papers.how_sparse.prunability import Prunability, predict_limit, small_share
from pruning_core.training.evaluation import evaluate

ETA = 0.01  # probability of being wrong that each of the two bounds is computed for


@checked
def simulated(
    name: str, simulate: Callable[..., pd.DataFrame], *, seed: int = 0, profile: str = "quick", **knobs: Any
) -> pd.DataFrame:
    """The rows of ``simulate(**knobs, seed=seed)``, from their record when there is one (see :func:`study`).

    ``simulate``: one of :func:`circular_cone`, :func:`ellipsoid` and :func:`l1_recovery`; ``name`` is the study's. Raises
    what the simulation and the study raise.

    >>> from pruning_core.papers.how_sparse import circular_cone
    >>> simulated("a ray in the plane", circular_cone, ambient=2, angles=[0.0], trials=3)["successes"].tolist()
    [0, 0, 3]
    """
    about = {"name": name, "seed": seed} | knobs
    return study(about, lambda: simulate(**knobs, seed=seed, progress=False).to_dict("records"), profile=profile)


@checked
def limit_row(experiment: Experiment, *, samples: int | None = None, **options) -> dict[str, Any]:
    """One row on the network at the end of ``experiment``: its predicted limit, what was measured, what a count says.

    Columns besides model, data, width and seed: ``label`` "limit"; ``predicted`` with ``predicted_low`` and
    ``predicted_high`` over probes; ``limit``, the measured one by the training loss, and ``gap``, their difference;
    ``limit_accuracy``, by training accuracy less a point; ``bounds_low``, ``bounds_high`` and ``bounds_gap``, the two bounds
    at eta = 0.01 (Limit.bounds); ``naive``, the share of weights below 1e-3; ``tolerance``, ``distance``, ``curvature``;
    ``accuracy`` on test images; ``weights``, how many there are. The experiment's tags join.

    The first ``samples`` training images are looked at (None: all). ``options`` are those of ``predict_limit``.

    >>> limit_row("lenet300")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: experiment must be of type Experiment, not 'lenet300'.
    """
    state = final_state(experiment)
    found = _predicted(state, samples, **options)
    bounds = found.limit.bounds(ETA)
    return _row(experiment, state, found) | {
        "label": "limit",
        "bounds_low": found.of_all(bounds.possible),
        "bounds_high": found.of_all(bounds.impossible),
        "bounds_gap": (1 - found.removed_before) * bounds.gap,
    }


@checked
def limits_over_rounds(
    experiment: Experiment, *, sparsity: float, epochs: int, strength: float, rounds: int, retrain: int, **options
) -> Iterator[dict[str, Any]]:
    """A row for each round of gradual pruning: the limit predicted from the network that this round starts with.

    Round 1 starts with the dense network, trained for ``epochs`` with the l1 penalty; round i with one that went through
    i - 1 cuts and trainings of ``retrain`` epochs, on a geometric way to ``sparsity``, which round ``rounds`` would reach.
    The timeline of ``experiment`` is replaced. Options and columns as of :func:`limit_row`, without bounds; ``label`` "rounds",
    ``rounds`` i, ``asked`` the sparsity, ``removed_before`` of the network, and ``predicted_same``: the prediction with the
    tolerance that round 1 had, as a network whose losses spread more is granted more.

    ``sparsity=0`` is the control, label "rounds without cuts": the same trainings, but nothing is ever cut. Training for
    longer with the penalty raises the prediction too, and must be told from what the cuts do.

    >>> limits_over_rounds("lenet300", sparsity=0.9, epochs=1, strength=1e-3, rounds=2, retrain=1)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: experiment must be of type Experiment, not 'lenet300'.
    """
    rounds = check("rounds", rounds, Whole(at_least=1))
    recipe = l1_in_rounds(sparsity, epochs, strength, rounds, retrain)
    stages = [stage for stage in recipe if isinstance(stage, Train | Prune)]
    first = None
    for i in range(1, rounds + 1):
        state = final_state(replace(experiment, timeline=stages[: 2 * i - 1]))
        found = _predicted(state, **options)
        first = found.limit.epsilon if first is None else first
        yield _row(experiment, state, found) | {
            "label": "rounds" if sparsity else "rounds without cuts",
            "rounds": i,
            "asked": sparsity,
            "removed_before": found.removed_before,
            "predicted_same": found.of_all(found.limit.removed_at(first)),
            "strength": strength,
        }


@checked
def predictor_errors(rows: pd.DataFrame, measured: str = "limit") -> pd.DataFrame:
    """How far the theory and the naive count are from the measured limit: a row a predictor.

    ``rows`` of :func:`limit_row`; those without a measured limit are left out. Columns: predictor ("theory", "naive"),
    absolute (mean absolute difference), signed (mean difference, above 0 is too optimistic), worst, networks. Raises
    BadInput for missing columns.

    >>> rows = pd.DataFrame({"predicted": [0.9, 0.8], "limit": [0.85, 0.8], "naive": [0.5, 0.6], "seed": [0, 1], "model": "a"})
    >>> list(predictor_errors(rows).columns)
    ['predictor', 'absolute', 'signed', 'worst', 'networks']
    """
    require_columns(rows, ("predicted", "naive", measured))
    rows = rows[rows[measured].notna()]
    table = []
    for predictor, column in (("theory", "predicted"), ("naive", "naive")):
        off = (rows[column] - rows[measured]).astype(float)
        table.append((predictor, off.abs().mean(), off.mean(), off.abs().max(), len(off)))
    return pd.DataFrame(table, columns=["predictor", "absolute", "signed", "worst", "networks"])


def _predicted(state: State, samples: int | None = None, **options: Any) -> Prunability:
    split = state.data.train
    if samples is not None:
        split = split.subset(min(check("samples", samples, Whole(at_least=1)), len(split)))
    batches = split.batches(state.experiment.batch_size)
    return predict_limit(state.model.eval(), batches, masks=state.masks, progress=False, **options)


def _row(experiment: Experiment, state: State, found: Prunability) -> dict[str, Any]:
    actual, limit = found.actual.within_epsilon, found.limit
    low, high = found.band or (None, None)
    return {
        "model": experiment.model, "data": experiment.data, "width": experiment.width, "seed": experiment.seed,
        "method": "l1", "predicted": found.removed, "predicted_low": low, "predicted_high": high,
        "limit": actual, "limit_accuracy": found.actual.within_margin,
        "gap": None if actual is None else abs(found.removed - actual), "naive": small_share(state.model),
        "tolerance": limit.epsilon, "distance": limit.distance, "curvature": found.spectrum.mean(),
        "weights": sum(state.dense["weights"].values()),
        "accuracy": evaluate(state.model, state.data.test).accuracy,
    } | dict(experiment.tags)  # fmt: skip
