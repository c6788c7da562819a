"""Figures of predicted and measured pruning limits."""

import pandas as pd

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_columns, require_rows
from pruning_core.papers.how_sparse.prediction import Limit
from pruning_core.papers.how_sparse.prunability import Prunability
from pruning_core.plots.axes import percent
from pruning_core.plots.curves import chart
from pruning_core.plots.style import NEUTRAL, SERIES, BookFigure, figure, finish, panel, style_of, styled


@styled
def crossing(limit: Limit, *, title: str = "") -> BookFigure:
    """Both sides of n / D = G(R(n)) against the removed fraction; the limit is where they cross."""
    fig, ax = panel()
    curve = limit.curve(201)
    ax.plot(curve["p"], curve["p"], color=SERIES[0], label="removed, n / D")
    ax.plot(curve["p"], curve["G"], color=SERIES[1], label="room seen from there, G(R(n))")
    ax.vlines(limit.removed, 0, limit.removed, color=NEUTRAL, linestyle="--", linewidth=1.2)
    ax.annotate(percent(round(limit.removed, 3)), (limit.removed, 0.02), xytext=(5, 0), textcoords="offset points")
    ax.set(xlabel="removed fraction n / D", ylabel="both sides of the equation", xlim=(0, 1), ylim=(0, 1.02))
    alt = f"a rising diagonal and a falling curve cross at {limit.removed:.1%} removed, for epsilon {limit.epsilon:g}."
    return finish(fig, None, alt, title)


@styled
def fixed_point_and_loss(prunability: Prunability, rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Left: both sides of the equation against the removed fraction p. Right: measured loss and accuracy against p.

    Dashed in both: the predicted limit; dotted: the measured one, by the loss. ``rows`` say where the numbers come from, for
    the stamp. Raises BadInput for a network that was pruned before, whose p would mean two things.
    """
    if prunability.removed_before:
        raise BadInput("the two panels show fractions of all weights; the network must not have been pruned before.")
    fig, ((left, right),) = figure(1, 2, size=(9.6, 3.8))
    curve = prunability.limit.curve(201)
    left.plot(curve["p"], curve["p"], color=NEUTRAL, label="removed fraction p")
    left.plot(curve["p"], curve["G"], color=style_of("l1").colour, label="G(R(p))")
    left.set(xlabel="weights removed", ylabel="both sides of the equation")
    measured = prunability.measured
    right.plot(measured["removed"], measured["loss"], color=style_of("l1").colour, label="loss")
    right.set(xlabel="weights removed", ylabel="loss on the images given", yscale="log")
    curves = [*right.get_lines()]
    if measured["accuracy"].notna().all():
        other = right.twinx()
        other.grid(visible=False)
        curves += other.plot("removed", "accuracy", data=measured, color=style_of("dense").colour, label="accuracy")
        other.set(ylabel="accuracy (%)")
        other.spines["right"].set_visible(True)
    actual = prunability.actual.within_epsilon
    for ax in (left, right):
        ax.axvline(prunability.removed, color=NEUTRAL, linestyle="--", linewidth=1.2, label="predicted limit")
        if actual is not None:
            ax.axvline(actual, color=NEUTRAL, linestyle=":", linewidth=1.6, label="measured limit")
        ax.xaxis.set_major_formatter(percent)
    right.legend(handles=curves, loc="center left")
    met = "no fraction kept the loss within the tolerance" if actual is None else f"the measured limit is {actual:.2f}"
    first, last = measured["loss"].iloc[[0, -1]]
    alt = (
        f"a rising and a falling curve cross at {prunability.removed:.2f}, the predicted limit; {met}. "
        f"Beside it the loss goes from {first:.2g} to {last:.2g}."
    )
    return finish(fig, rows, alt, title)


@styled
def predicted_against_measured(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """A point a network: predicted against measured limit, a colour a penalty strength; bars are bands over probes.

    rows: strength, predicted, limit, and predicted_low, predicted_high where there is a band. On the dotted line the two
    agree; points above it are optimistic.
    """
    require_columns(rows, ("strength", "predicted", "limit"))
    rows = rows.dropna(subset=["predicted", "limit"]).sort_values("strength")
    require_rows(rows, ())
    low = rows[["limit", "predicted"]].min().min()
    same = {"equal": ([low, 1], [low, 1])}
    fig = chart(rows, "limit", "predicted", "strength", points="only", guides=same, size=(6.4, 5.0), title=title)
    if "predicted_low" in rows:
        known = rows.dropna(subset=["predicted_low", "predicted_high"])
        fig.axes[0].vlines(
            known["limit"], known["predicted_low"], known["predicted_high"], color=NEUTRAL, linewidth=0.8
        )
    return fig


@styled
def transition(curves: pd.DataFrame, limits: pd.Series, *, title: str = "") -> BookFigure:
    """Accuracy (left) and loss (right) against the fraction removed, one line a strength; dashed: the predicted limit.

    curves: removed (logarithmic in what is kept), accuracy, loss, strength, of one seed. limits: strength -> predicted.
    """
    seen = curves[curves["removed"] <= 0.99].sort_values("strength")  # what lies beyond is chance
    fig = chart(seen, "removed", ["accuracy", "loss"], "strength", kept="x", marks=limits.to_dict(), title=title)
    fig.axes[1].set_yscale("log")
    return fig
