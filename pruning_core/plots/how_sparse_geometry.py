"""Figures of high-dimensional geometry: sizes of cones, phase transitions and their curves, the step to a pruning limit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import FuncFormatter
from scipy.stats import chi

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_rows
from pruning_core.papers.how_sparse.geometry.cones import CircularCone
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width, trace_bound, window
from pruning_core.papers.how_sparse.prediction import Limit
from pruning_core.papers.how_sparse.transitions import meeting_probability, transitions
from pruning_core.plots.axes import MAP_LEGEND, MAP_LINE, plain_ticks, round_numbers
from pruning_core.plots.captions import captioned
from pruning_core.plots.curves import chart
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import NEUTRAL, SERIES, BookFigure, figure, finish, looks_of, panel, styled


@captioned
def meeting_slider(dimensions: Sequence[int], degrees: Sequence[float], *, title: str = "") -> SliderFigure:
    """Exact probability that a random subspace of a given share k / D meets a circular cone; the slider moves D.

    ``degrees``: half angles of the cones, one curve each.
    """
    positions = {}
    for ambient in dimensions:
        sizes = np.unique(np.linspace(0, ambient, min(ambient, 200) + 1).round().astype(int))
        cones = {f"cone of {a:g}°": CircularCone(ambient, float(np.radians(a))) for a in degrees}
        positions[f"{ambient}"] = {
            name: (sizes / ambient, [meeting_probability(cone, int(k)) for k in sizes]) for name, cone in cones.items()
        }
    axes: dict[str, Any] = {"x_label": "dimension of the subspace / D", "y_label": "probability of meeting the cone"}
    axes |= {"x_range": (0, 1), "y_range": (-0.03, 1.03)}
    alt = (
        f"{title}: probability of meeting against the size of the subspace, for cones of "
        f"{', '.join(f'{a:g}' for a in degrees)} degrees. Slopes at D = {dimensions[0]}, steps at D = {dimensions[-1]}."
    )
    return slider_figure(positions, control="dimension D =", title=title, alt=alt, **axes)


@styled
def norm_densities(dimensions: Sequence[int], *, title: str = "") -> BookFigure:
    """Densities of the norm of a Gaussian vector, one curve a dimension: relative to sqrt(D), and as it is less sqrt(D)."""
    fig, ((relative, absolute),) = figure(1, 2, size=(9.6, 3.4))
    notes = []
    for colour, d in zip(SERIES, dimensions, strict=False):
        root = np.sqrt(d)
        ratio, beyond = np.linspace(0, 2, 801), np.linspace(-3, 3, 401)
        relative.plot(ratio, chi.pdf(ratio * root, d) * root, color=colour, label=f"D = {d}")
        absolute.plot(beyond, chi.pdf(beyond + root, d), color=colour, label=f"D = {d}")
        notes.append(f"D = {d}: {chi.std(d) / root:.2g} and {chi.std(d):.2g}")
    relative.set(xlabel=r"$\Vert g \Vert / \sqrt{D}$", ylabel="density", xlim=(0, 2))
    absolute.set(xlabel=r"$\Vert g \Vert - \sqrt{D}$", xlim=(-3, 3))
    alt = f"densities of the norm. Standard deviations, relative and absolute, {'; '.join(notes)}."
    return finish(fig, "closed form, no simulation", alt, title)


@styled
def cone_sizes(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Statistical dimension over D of circular cones against their angle: exact curves, Monte Carlo with 95 % intervals.

    rows: ambient, degrees, mean, standard_error. Dotted: the limit sin^2.
    """
    require_rows(rows, ("ambient", "degrees", "mean", "standard_error"))
    fig, ax = panel()
    fine = np.linspace(0, 90, 91)
    ax.plot(fine, np.sin(np.radians(fine)) ** 2, ":", color=NEUTRAL, label=r"$\sin^2 \alpha$")
    gaps = []
    for d, style in looks_of(sorted(rows["ambient"].unique()), "ambient").items():
        part = rows[rows["ambient"] == d]
        angles = [*fine, *part["degrees"]]
        exact = [CircularCone(int(d), float(np.radians(a))).statistical_dimension() for a in angles]
        ax.plot(fine, np.array(exact[: len(fine)]) / d, color=style.colour, linewidth=1.2, label=style.label)
        error = 1.96 * part["standard_error"] / d
        ax.errorbar(part["degrees"], part["mean"] / d, error, fmt="o", color=style.colour, markersize=4)
        gaps.append(((part["mean"] - exact[len(fine) :]).abs() / part["standard_error"]).max())
    ax.set(xlabel="half angle (degrees)", ylabel="statistical dimension / D", xticks=range(0, 91, 15))
    alt = (
        "statistical dimension over D rises from about 0 to 1 with the angle, the nearer to sin squared the "
        f"larger D. Monte Carlo points lie at most {max(gaps):.1f} standard errors from the exact curves."
    )
    return finish(fig, rows, alt, title)


@styled
def transition_map(
    rows: pd.DataFrame,
    parameter: str,
    *,
    name: str,
    eta: float | None = None,
    corrected: Callable[[float], float] | None = None,
    logarithmic: bool = False,
    title: str = "",
) -> BookFigure:
    """Share of successes over a parameter (named ``name`` on its axis) and the size k, the predicted curve on top.

    rows: of one dimension, from circular_cone, ellipsoid or l1_recovery, with the column ``parameter``. Where they hold an
    exact probability its 10 and 90 % levels are drawn thin. ``eta``: dashed, the kinematic formula's window around the
    prediction. ``corrected``: parameter -> another predicted size, drawn dash-dotted. ``logarithmic``: the parameter's axis.
    """
    size = _size_column(rows, parameter)
    if rows["ambient"].nunique() != 1:
        raise BadInput("a transition map shows one dimension; choose one value of the column 'ambient'.")
    shares = rows.assign(success=rows["successes"] / rows["trials"])
    predicted = rows.groupby(parameter)["predicted"].first()
    cells = shares.pivot_table(index=size, columns=parameter, values="success")
    fig, ax = panel(size=(6.4, 4.6))
    mesh = ax.pcolormesh(cells.columns, cells.index, cells, cmap="cividis", shading="nearest", rasterized=True)
    fig.colorbar(mesh, ax=ax, label="share of successes")
    ax.plot(predicted.index, predicted, label="predicted", **MAP_LINE)
    notes: list[str] = []
    thin = MAP_LINE | {"linewidth": 0.9, "path_effects": []}
    if "probability" in rows:
        # Interpolated along k only: contours of so few columns would be stairs.
        grid = rows.pivot_table(index=size, columns=parameter, values="probability")
        levels = np.array([np.interp([0.1, 0.9], grid[value], grid.index) for value in grid])
        ax.plot(grid.columns, levels, label=["exact 10 and 90 %", "_"], **thin)
        notes.append("Thin: where the exact probability is 10 and 90 %.")
    if eta is not None:
        half = window(int(rows["ambient"].iloc[0]), eta)
        edges = np.add.outer(predicted.to_numpy(), [-half, half])
        ax.plot(predicted.index, edges, linestyle="--", label=[f"window, η = {eta:g}", "_"], **thin)
        notes.append(f"Dashed: the window of plus and minus {half:.0f} dimensions.")
    if corrected is not None:
        line = [corrected(value) for value in predicted.index]
        ax.plot(predicted.index, line, linestyle="-.", label="distance corrected", **MAP_LINE)
        notes.append(f"Dash-dotted: the corrected curve, from {line[0]:.3g} to {line[-1]:.3g}.")
    if logarithmic:
        ax.set_xscale("log")
    ax.legend(**MAP_LEGEND)
    ax.grid(visible=False)
    ax.set(xlabel=name, ylabel=_SIZES[size])
    ax.set(xlim=(cells.columns.min(), cells.columns.max()), ylim=(cells.index.min(), cells.index.max()))
    ends = (f"({place:.3g}, {height:.3g})" for place, height in predicted.iloc[[0, -1]].items())
    lead = f"share of successes over {name} and {_SIZES[size]}. The predicted curve runs from {' to '.join(ends)}."
    return finish(fig, rows, " ".join([lead, *notes]), title)


@styled
def sharpening(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Left: successes against k / D, one colour a dimension, with the exact curve where there is one. Right: 10-90 % width.

    rows: of one simulation, one setting in several dimensions. The width is over D, both axes logarithmic, dotted -1/2.
    """
    size = _size_column(rows)
    fig, ((left, right),) = figure(1, 2, size=(9.6, 3.6), gridspec_kw={"width_ratios": [1.5, 1]})
    widths = {}
    for d, style in looks_of(sorted(rows["ambient"].unique()), "ambient").items():
        part = rows[rows["ambient"] == d].sort_values(size)
        share = part["successes"] / part["trials"]
        left.plot(part[size] / d, share, "o", markersize=3.5, color=style.colour, label=style.label)
        if "probability" in part:
            left.plot(part[size] / d, part["probability"], color=style.colour, linewidth=1.2)
        moved = transitions(part[[c for c in part if c in _SIMULATED]])
        if len(moved) > 1:
            raise BadInput(f"one setting a dimension is needed, but D = {d} has {len(moved)}.")
        widths[int(d)] = float((moved["high"] - moved["low"]).iloc[0]) / d
    left.axvline(float(part["predicted"].iloc[0]) / d, color=NEUTRAL, linestyle=":", label="predicted")
    left.set(xlabel=f"{size} / D", ylabel="share of successes")
    width = pd.Series(widths, dtype=float).dropna()
    right.plot(width.index, width, "o-", color=SERIES[0])
    slope = width.iloc[:1].to_numpy() * np.sqrt(width.index[:1].to_numpy() / width.index)
    right.plot(width.index, slope, ":", color=NEUTRAL, label="slope −1/2")
    right.set(xscale="log", yscale="log", xlabel="D", ylabel="(k at 90 % − k at 10 %) / D")
    right.legend()
    plain_ticks(right.xaxis, list(width.index))
    plain_ticks(right.yaxis, round_numbers(0.8 * width.min(), 1.25 * width.max()))
    notes = "; ".join(f"D = {d}: {value:.3f}" for d, value in width.items())
    alt = f"shares of successes jump at the same k / D, in a window that narrows. Its width over D, {notes}."
    return finish(fig, rows, alt, title)


@styled
def bias_against_dimension(moved: pd.DataFrame, *, title: str = "") -> BookFigure:
    """(measured - predicted) / D against D, one curve an epsilon: rows of ``transitions`` of ellipsoids."""
    look: dict[str, Any] = {
        "log": "x",
        "levels": {"as predicted": 0.0},
        "labels": {"difference": "(measured − predicted) / D"},
    }
    fig = chart(moved, "ambient", "difference", "epsilon", title=title, **look)
    fig.axes[0].yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:+.0f} %"))
    return fig


@captioned
def crossing_slider(limits: Mapping[float, Limit], *, control: str = "ε =", title: str = "") -> SliderFigure:
    """Both sides of n / D = G(R(n)) against the removed fraction; the slider walks through ``limits``, number -> Limit.

    ``control`` names what the number is: by default the tolerance epsilon.
    """
    positions = {}
    for epsilon, limit in limits.items():
        p, room = limit.curve(201)[["p", "G"]].to_numpy().T
        sides = {"removed fraction n / D": (p, p), "room seen from there, G(R(n))": (p, room)}
        positions[f"{epsilon:g}"] = sides | {"limit": (np.repeat(limit.removed, 2), np.array([0.0, limit.removed]))}
    notes = "; ".join(f"{epsilon:g}: {limit.removed:.2f}" for epsilon, limit in limits.items())
    name = "epsilon" if control == "ε =" else control.removesuffix(" =")
    axes: dict[str, Any] = {"x_label": "removed fraction n / D", "y_label": "both sides of the equation"}
    axes |= {"x_range": (0, 1), "y_range": (0, 1.02), "start": len(positions) // 2}
    alt = f"{title}: a rising diagonal and a falling curve. They cross, by {name}, at {notes}."
    return slider_figure(positions, control=control, title=title, alt=alt, **axes)


@styled
def limits_against_epsilon(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Removed fraction against epsilon, one curve a ``limit``: means over trials. rows: limit, epsilon, removed."""
    return chart(rows, "epsilon", "removed", "limit", band=100, log="x", title=title)


@captioned
def trace_slider(
    spectra: Mapping[str, torch.Tensor], epsilon: float, *, reach: float = 10.0, title: str = ""
) -> SliderFigure:
    """Kept fraction 1 - G(R) up to the distance ``reach``, below the bound by the trace; the slider moves the spectrum.

    ``spectra``: label of the position -> eigenvalues (D,), at least 0.
    """
    distances = torch.linspace(0, reach, 101, dtype=torch.float64)
    positions: dict[str, dict[str, Curve]] = {}
    notes = []
    for label, spectrum in spectra.items():
        kept = 1 - normalised_width(distances, spectrum, epsilon)
        bound = [trace_bound(float(r), float(spectrum.mean()), epsilon) for r in distances]
        x = distances.numpy()
        positions[label] = {"at least to keep, 1 − G(R)": (x, kept.numpy()), "bound by the trace": (x, bound)}
        notes.append(f"{label}: {kept[-1]:.2f} of at most {bound[-1]:.2f}")
    alt = f"{title}: the kept fraction rises with the distance, below its bound. At R = {reach:g}, {'; '.join(notes)}."
    axes: dict[str, Any] = {"x_label": "distance R", "y_label": "kept fraction", "y_range": (0, 1.02)}
    start = len(positions) // 2
    return slider_figure(positions, control="spread of the spectrum", title=title, alt=alt, start=start, **axes)


_SIMULATED = (
    "simulation", "ambient", "angle", "degrees", "distance", "epsilon", "nonzero", "k", "measurements", "trials", "successes",
    "probability", "predicted", "seed",
)  # fmt: skip
_SIZES = {"measurements": "random measurements", "k": "dimension k of the subspace"}


def _size_column(rows: pd.DataFrame, *others: str) -> str:
    size = "measurements" if "measurements" in rows else "k"
    require_rows(rows, (size, "ambient", "trials", "successes", "predicted", *others))
    return size
