"""Bars with whiskers straight from rows: shares of layers and of methods, times."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.container import BarContainer
from matplotlib.patches import Patch

from pruning_core.checks import Maybe, OneOf, Real, checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_names, with_numbers
from pruning_core.plots.axes import FRACTIONS, interval_of, named, percent
from pruning_core.plots.style import NEUTRAL, BookFigure, finish, looks_of, panel, set_caption, sourced, styled


@checked(middle=OneOf("mean", "median"), band=Maybe(Real(at_least=0, at_most=100)))
@styled
def bars(
    rows: pd.DataFrame,
    place: str,
    values: str | Mapping[str, str],
    by: str | None = None,
    *,
    middle: str = "mean",
    band: float | None = None,
    log: bool = False,
    numbers: bool = False,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> BookFigure:
    """Draw horizontal bars, one for each value of the column ``place`` in the order of the rows: means with 95 % intervals.

    ``values``: the column that is drawn, in groups of bars by the column ``by``; or several columns that hold the same
    quantity, column -> name, as groups. ``middle`` ("mean", "median") with whiskers over the central ``band`` percent of the
    rows takes the place of mean and interval. ``log`` makes the axis logarithmic, where nothing is shorter than 1e-4;
    ``numbers`` writes each length behind its bar; ``labels`` replaces names of columns. Fractions are in percent. Raises
    BadInput for missing columns and where there is nothing to draw.

    >>> rows = pd.DataFrame({"layer": ["conv", "fc"], "weights": [0.1, 0.9], "macs": [0.7, 0.3]})
    >>> bars(rows, "layer", {"weights": "weights", "macs": "MACs"}).alt
    'bars. conv: 10 % weights, 70 % MACs; fc: 90 % weights, 30 % MACs.'
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    several = {} if isinstance(values, str) else dict(values)
    kind, value = by or "bars", values if isinstance(values, str) else "share"
    require_names(rows, (place, *([by] if by else [])))
    rows = with_numbers(rows, list(several or [value]))
    shown = rows if by else rows.assign(bars="")
    if several:
        others = [column for column in rows if column not in {*several, kind, value}]
        shown = rows.melt(others, list(several), var_name=kind, value_name=value).replace({kind: several})
    if "seed" in shown and band is None:  # several rows of one seed count as their mean
        shown = shown.groupby([place, kind, "seed"], sort=False, dropna=False, as_index=False)[value].mean()
    shown = shown.dropna(subset=[value, place, kind])
    if shown.empty:
        raise BadInput(f"there is no row with a value of {value!r} to draw.")
    looks = looks_of(shown[kind], kind)
    names = {name: look.label for name, look in looks.items()}
    groups = list(dict.fromkeys(shown[place]))
    fig, ax = panel(size=(7.2, 1.0 + 0.24 * len(groups) * (len(looks) + 0.8)))
    drawn = shown.assign(**{kind: shown[kind].map(names), value: shown[value].clip(lower=1e-4 if log else None)})
    look: dict[str, Any] = {
        "palette": {style.label: style.colour for style in looks.values()},
        "saturation": 1,
        "gap": 0.06,
    }
    whiskers: dict[str, Any] = {"capsize": 0.25, "err_kws": {"color": NEUTRAL, "linewidth": 1.2}}
    errorbar = interval_of if band is None else ("pi", band)
    sns.barplot(
        drawn, x=value, y=place, hue=kind, order=groups, orient="y", estimator=middle, errorbar=errorbar, ax=ax,
        legend=False, **look, **whiskers,
    )  # fmt: skip
    if len(looks) > 1:  # inside it would hide bars
        patches = [Patch(color=style.colour, label=style.label) for style in looks.values()]
        fig.legend(handles=patches, loc="outside upper right", ncols=len(patches))
    share = value in FRACTIONS
    ax.set(xlabel=named(value, labels), ylabel="")
    if log:
        ax.set(xscale="log", xlim=(1e-4, 1))
    elif share:
        ax.set_xlim(0, 1.08 if numbers else 1)
    if share:
        ax.xaxis.set_major_formatter(percent)
    ax.grid(axis="y", visible=False)
    written = (lambda number: f"{100 * number:.3g} %") if share else "{:.4g}".format
    if numbers:
        for group in (found for found in ax.containers if isinstance(found, BarContainer)):
            ax.bar_label(group, fmt=written, padding=4, color=NEUTRAL)
    found = shown.groupby([place, kind], sort=False)[value].agg(middle)
    notes = []
    for group in groups:
        parts = (f"{written(found[group, k])} {name}".strip() for k, name in names.items() if (group, k) in found)
        notes.append(f"{group}: {', '.join(parts)}")
    fig = finish(fig, sourced(rows), f"bars. {'; '.join(notes)}.", title)
    return set_caption(fig, caption) if caption else fig
