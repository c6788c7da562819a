"""Figures of predicted and measured pruning limits."""

import pandas as pd

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds, require_rows
from pruning_core.papers.how_sparse.prediction import Limit
from pruning_core.papers.how_sparse.prunability import Prunability
from pruning_core.plots.axes import bands, percent, set_sparsity_axis
from pruning_core.plots.style import (
    NEUTRAL,
    SERIES,
    STYLES,
    BookFigure,
    figure,
    finish,
    panel,
    series,
    style_of,
    styled,
)


@styled
def predicted_against_measured(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """A point a network: predicted against measured limit, a colour a penalty strength; bars are bands over probes.

    rows: strength, predicted, limit, and predicted_low, predicted_high where there is a band. On the dotted line the two
    agree; points above it are optimistic.
    """
    rows = rows.dropna(subset=["predicted", "limit"])
    if rows.empty:
        raise BadInput("there is no row with a predicted and a measured limit to draw.")
    fig, ax = panel(size=(6.4, 5.0))
    notes = []
    for _, (colour, _, label), part in series(rows, "strength", "λ = {:g}", sort=True):
        if {"predicted_low", "predicted_high"} <= set(part.columns) and part["predicted_low"].notna().all():
            ax.vlines(part["limit"], part["predicted_low"], part["predicted_high"], color=colour, linewidth=1)
        ax.scatter(part["limit"], part["predicted"], color=colour, label=label, zorder=3)
        notes.append(f"{label}: measured {part['limit'].mean():.2f}, predicted {part['predicted'].mean():.2f}")
    low = min(rows["limit"].min(), rows["predicted"].min())
    ax.plot([low, 1], [low, 1], ":", color=NEUTRAL)
    ax.set(xlabel="measured limit: loss within the tolerance", ylabel="predicted limit")
    ax.xaxis.set_major_formatter(percent)
    ax.yaxis.set_major_formatter(percent)
    return finish(fig, rows, f"predicted against measured limit. Means: {'; '.join(notes)}.", title)


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
def transition(curves: pd.DataFrame, limits: pd.Series, *, title: str = "") -> BookFigure:
    """Accuracy (left) and loss (right) against the fraction removed, one line a strength; dashed: the predicted limit.

    curves: removed (logarithmic in what is kept), accuracy, loss, strength, of one seed. limits: strength -> predicted.
    """
    curves = curves[curves["removed"] <= 0.99]  # what lies beyond is chance
    if curves.empty:
        raise BadInput("there is no curve to draw.")
    fig, axes = figure(1, 2, size=(9.6, 3.8))
    notes = {}
    for ax, column, name in zip(axes[0], ("accuracy", "loss"), ("accuracy (%)", "loss"), strict=True):
        for strength, style, part in series(curves.sort_values("removed"), "strength", "λ = {:g}", sort=True):
            ax.plot(part["removed"], part[column], color=style.colour, label=style.label)
            if strength in limits:
                ax.axvline(float(limits[strength]), color=style.colour, linestyle="--", linewidth=1.2)
                notes[strength] = f"{style.label} predicted {float(limits[strength]):.3f}"
        set_sparsity_axis(ax, curves["removed"].to_numpy(float))
        ax.set(xlabel="weights removed", ylabel=name)
    axes[0, 1].set_yscale("log")
    dashed = "; ".join(notes.values())
    return finish(fig, curves, f"accuracy and loss fall and rise sharply; dashed limits: {dashed}.", title)


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
def rounds_against_control(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Predicted limit (left) and distance R (right) over the rounds, with cuts and without, with bands over seeds.

    rows: of limit_studies.limits_over_rounds, labels "rounds" and "rounds without cuts".
    """
    require_rows(rows, ("label", "rounds", "predicted", "distance"))
    fig, axes = figure(1, 2, size=(9.6, 3.6))
    notes = []
    styles = STYLES["control"]
    panels = ("predicted", "predicted limit", 1), ("distance", "distance R at the limit", None)
    for ax, (column, name, highest) in zip(axes[0], panels, strict=True):
        points = over_seeds(rows[rows["label"].isin(styles)], ["label", "rounds"], column)
        for label, curve in bands(ax, points, "rounds", 0, highest, by="label", styles=styles):
            notes.append(f"{label}: {column} from {curve['mean'].iloc[0]:.3g} to {curve['mean'].iloc[-1]:.3g}")
        ax.set(xlabel="round", ylabel=name, xticks=sorted(rows["rounds"].unique()))
    axes[0, 0].yaxis.set_major_formatter(percent)
    return finish(fig, rows, f"two panels over pruning rounds. {'; '.join(notes)}.", title)
