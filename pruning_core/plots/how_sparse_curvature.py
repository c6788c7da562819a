"""Figures of a Hessian's spectrum: its density, what Lanczos sees of it, its rows, and the loss tolerance beside it."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, NullLocator

from pruning_core.checks import Real, check
from pruning_core.experiments.intervals import require_rows
from pruning_core.papers.how_sparse.curvature.measures import Spectrum
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import COLOURS, BookFigure, finish, looks_of, panel, styled

POSITIVE = Real(above=0)
MOST_POINTS = 300  # of a curve in a slider: more than its pixels can show, and few enough for a page


def spectrum_rows(spectrum: Spectrum, /, **about: object) -> pd.DataFrame:
    """The points of a spectrum as rows: eigenvalue, weight (averaged over probes, sum 1), and the columns ``about``."""
    values, weights = spectrum.flattened()
    return pd.DataFrame({"eigenvalue": values.numpy(), "weight": weights.numpy()}).assign(**about)


@styled
def spectral_density(rows: pd.DataFrame, *, threshold: float, blur: float = 0.06, title: str = "") -> BookFigure:
    """Densities on a symmetric logarithmic axis, linear between plus and minus ``threshold``; one curve a ``spectrum``.

    rows: spectrum (its name), eigenvalue, weight. Every point is a Gaussian of standard deviation ``blur`` in units of the
    axis as drawn, where a decade has length 1; the density is per such unit, so areas that one sees are shares of the
    eigenvalues. The first spectrum is filled.
    """
    require_rows(rows, ("spectrum", "eigenvalue", "weight"))
    check("threshold", threshold, POSITIVE)
    check("blur", blur, POSITIVE)
    fig, ax = panel(size=(8.0, 3.8))
    ax.set_xscale("symlog", linthresh=threshold, linscale=0.9)  # 0 to threshold as long as a decade
    scale = ax.xaxis.get_transform()
    rows = rows.assign(place=scale.transform(rows["eigenvalue"].to_numpy(float)) / threshold)  # in decades from 0
    grid = np.linspace(rows["place"].min() - 5 * blur, rows["place"].max() + 5 * blur, 1200)
    x = scale.inverted().transform(grid * threshold)
    height = 1 / (blur * np.sqrt(2 * np.pi))
    notes: list[str] = []
    most = least = 0.0
    for name, style in looks_of(rows["spectrum"], "spectrum").items():
        part = rows[rows["spectrum"] == name]
        shares = (part["weight"] / part["weight"].sum()).to_numpy(float)
        density = height * np.exp(-((grid[:, None] - part["place"].to_numpy()) ** 2) / (2 * blur**2)) @ shares
        if not notes:  # half the height of one eigenvalue of the first spectrum is where the figure ends
            least = height * shares[shares > 0].min() / 2
            ax.fill_between(x, density, least / 10, color=style.colour, alpha=0.22, linewidth=0)
        ax.plot(x, density, color=style.colour, linewidth=1.3, label=style.label)
        most = max(most, density.max())
        inside = shares[part["eigenvalue"].abs() < threshold].sum()
        notes.append(f"{name}: {inside:.0%} within ±{threshold:.2g}, largest {part['eigenvalue'].max():.3g}")
    ax.set(yscale="log", xlabel="eigenvalue", ylabel="density per decade", ylim=(least, 3 * most))
    ax.set_xticks(_symlog_ticks(rows["eigenvalue"], threshold))
    ax.xaxis.set_minor_locator(NullLocator())
    return finish(fig, rows, f"density of the eigenvalues, most of them near 0. {'; '.join(notes)}.", title)


@captioned
def tail_slider(exact: pd.DataFrame, rows: pd.DataFrame, *, least: float, title: str = "") -> SliderFigure:
    """Share of eigenvalues above a value, exact and by Lanczos, both axes logarithmic; the slider moves ``steps``.

    exact: eigenvalue, weight. rows: steps, eigenvalue, weight. Values below ``least`` > 0, negative ones too, lie beyond
    the left end.
    """
    require_rows(exact, ("eigenvalue", "weight"))
    require_rows(rows, ("steps", "eigenvalue", "weight"))
    check("least", least, POSITIVE)
    floor = 0.5 * float(exact.loc[exact["weight"] > 0, "weight"].min())
    positions: dict[str, dict[str, Curve]] = {}
    notes = []
    for steps, part in rows.groupby("steps"):
        positions[f"{steps}"] = {"exact": _tail(exact, least, floor), "Lanczos": _tail(part, least, floor)}
        notes.append(f"{steps}: largest {part['eigenvalue'].max():.3g}, {_above(part, least):.0%} above")
    axes: dict[str, Any] = {"x_label": "eigenvalue", "y_label": "share of eigenvalues above", "x_log": True}
    axes |= {"x_range": (least, 1.5 * float(exact["eigenvalue"].max())), "y_range": (floor, 1.3), "y_log": True}
    alt = (
        f"{title}: a staircase that nears a curve from its lower right end. Exact: largest "
        f"{exact['eigenvalue'].max():.3g}, {_above(exact, least):.0%} above {least:.2g}. By steps, {'; '.join(notes)}."
    )
    start = len(positions) // 2
    drawn = slider_figure(positions, control="Lanczos steps", title=title, alt=alt, start=start, **axes)
    for axis in ("xaxis", "yaxis"):  # else a small value reads "10µ"
        drawn.layout[axis] |= {"exponentformat": "power", "dtick": 1}
    return drawn


@styled
def ritz_values(exact: pd.DataFrame, rows: pd.DataFrame, *, threshold: float, title: str = "") -> BookFigure:
    """Ritz values (points) over the number of steps, and the exact eigenvalues (lines at the right end).

    exact: eigenvalue. rows: steps, eigenvalue, of one start. The vertical axis is linear within ``threshold``.
    """
    require_rows(exact, ("eigenvalue",))
    require_rows(rows, ("steps", "eigenvalue"))
    check("threshold", threshold, POSITIVE)
    fig, ax = panel(size=(8.0, 4.4))
    last = int(rows["steps"].max())
    ax.scatter(rows["steps"], rows["eigenvalue"], s=9, color=COLOURS["crimson"], label="Ritz values", zorder=3)
    ax.hlines(exact["eigenvalue"], 1.04 * last, 1.1 * last, color=COLOURS["blue"], linewidth=0.5)
    ax.plot([], [], color=COLOURS["blue"], label="eigenvalues")
    ax.set_yscale("symlog", linthresh=threshold, linscale=0.9)
    ax.set_yticks(_symlog_ticks(pd.concat([exact["eigenvalue"], rows["eigenvalue"]]), threshold))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="steps", ylabel="eigenvalue")
    ax.set_xticks([t for t in MaxNLocator(integer=True).tick_values(0, last) if t <= last])  # beyond stand the lines
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0), facecolor="none")
    top = exact["eigenvalue"].max()
    outermost = rows.groupby("steps")["eigenvalue"].max()
    near = outermost.index[(outermost - top).abs() <= 0.01 * abs(top)]
    met = f"The largest is within a percent from step {near[0]} on" if len(near) else "The largest is not met"
    alt = f"Ritz values over {last} steps settle on eigenvalues, the outermost first. {met}."
    return finish(fig, rows, alt, title)


def _tail(points: pd.DataFrame, least: float, floor: float) -> Curve:
    """The stairs of the share of eigenvalues above x, from the largest one down to ``least``."""
    ordered = points[points["eigenvalue"] > least].sort_values("eigenvalue", ascending=False)
    values = ordered["eigenvalue"].to_numpy(float)
    shares = ordered["weight"].to_numpy(float).cumsum()
    values, shares = values[shares >= floor], shares[shares >= floor]
    if not len(values):  # all that is above carries too little weight to be drawn
        return np.array([least]), np.array([floor])
    if len(values) > MOST_POINTS:
        # Even in the logarithm of the share: the few large eigenvalues are what one looks for.
        wanted = np.geomspace(shares[0], shares[-1], MOST_POINTS)
        keep = np.unique(np.append(np.searchsorted(shares, wanted).clip(max=len(shares) - 1), len(shares) - 1))
        values, shares = values[keep], shares[keep]
    x, y = np.repeat(values, 2), np.repeat(shares, 2)
    return np.append(x, least), np.concatenate([[floor], y[:-1], shares[-1:]])


def _above(points: pd.DataFrame, least: float) -> float:
    return float(points.loc[points["eigenvalue"] > least, "weight"].sum() / points["weight"].sum())


def _symlog_ticks(values: pd.Series, threshold: float) -> list[float]:
    """0 and powers of ten from ``threshold`` outwards, about eight in all."""
    first = round(np.log10(threshold))
    sides = ((1, float(values.max())), (-1, -float(values.min())))
    lasts = [(sign, int(np.floor(np.log10(reach)))) for sign, reach in sides if reach > threshold]
    every = max(1, -(-sum(last - first + 1 for _, last in lasts) // 8))
    # Counted from 0 outwards, so that both sides name the same powers.
    return sorted([0.0, *(s * 10.0**power for s, last in lasts for power in range(first + every - 1, last + 1, every))])
