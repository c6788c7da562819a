"""Figures of the chapter on sensitivities."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.container import BarContainer
from torch import Tensor

from pruning_core.checks import checked
from pruning_core.experiments.intervals import require_columns
from pruning_core.plots.axes import interval_of, method_lines, plain_ticks, round_numbers
from pruning_core.plots.evidence import open_markers
from pruning_core.plots.style import COLOURS, NEUTRAL, BookFigure, finish, panel, set_caption, style_of, styled


@checked
@styled
def error_against_draws(
    stored: pd.DataFrame, mine: pd.DataFrame | None = None, *, caption: str, title: str = ""
) -> BookFigure:
    """Draw the relative error of an estimate against the number of draws, both logarithmic; a dotted line has slope -1/2.

    ``stored``: rows with method, draws, relative_error, seed; bands are 95 % intervals over seeds. ``mine``: rows of the
    reader's own run, drawn as open markers.
    """
    fig, ax = panel()
    notes = method_lines(ax, stored, "draws", "relative_error")
    draws = np.array(sorted(stored["draws"].unique()), float)
    low = stored["relative_error"].min()
    ax.plot(draws, 0.85 * low * np.sqrt(draws[-1] / draws), ":", color=NEUTRAL, label=r"$1/\sqrt{m}$")
    if mine is not None:
        open_markers(ax, mine, "draws", "relative_error")
    ax.set(xlabel="draws", ylabel="mean relative error")
    plain_ticks(ax.yaxis, round_numbers(0.7 * low, 1.2 * stored["relative_error"].max()))
    found = finish(fig, stored, f"relative error against draws. {'; '.join(notes)}.", title)
    return set_caption(found, caption)


@checked
@styled
def potential_against_points(
    stored: pd.DataFrame, mine: pd.DataFrame | None = None, *, caption: str, title: str = ""
) -> BookFigure:
    """Draw the prune potential against the number of points that sensitivities were computed on: seeds as dots, their mean
    with its 95 % interval, and the reader's own run as open markers.

    Rows have the columns points, seed, and prune_potential (a fraction).
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    require_columns(stored, ("points", "seed", "prune_potential"))
    fig, ax = panel()
    look = {"x": "points", "y": "prune_potential", "ax": ax, "legend": False}
    sns.scatterplot(stored, color=NEUTRAL, s=16, alpha=0.6, linewidth=0, **look)
    sns.lineplot(
        stored, color=COLOURS["green"], marker="o", errorbar=interval_of, err_style="bars",
        err_kws={"capsize": 3}, **look,
    )  # fmt: skip
    if mine is not None:
        open_markers(ax, mine.assign(method="sipp"), "points", "prune_potential")
    ax.set_xscale("log", base=2)
    sizes = sorted(stored["points"].unique())
    ax.set_xticks(sizes, [f"{n:.0f}" for n in sizes])
    ax.set(xlabel="points", ylabel="largest sparsity within half a point", ylim=(0, 1))
    alt = f"Prune potential against {len(sizes)} numbers of points, {stored['seed'].nunique()} seeds."
    return set_caption(finish(fig, stored, alt, title), caption)


@checked
@styled
def layer_widths(shares: pd.Series, *, caption: str, title: str = "") -> BookFigure:
    """Draw the share of the channels that stays in each layer, as bars with the layers' names; ``shares``: name -> [0, 1]."""
    import seaborn as sns  # slow to load, scipy.stats with it

    fig, ax = panel(size=(7.6, 3.2))
    sns.barplot(x=shares.to_numpy(float), y=[str(name) for name in shares.index], ax=ax, color=COLOURS["green"])
    (bars,) = (found for found in ax.containers if isinstance(found, BarContainer))
    ax.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=4, color=NEUTRAL)
    ax.set(xlabel="share of the channels that stays", ylabel="", xlim=(0, 1.08))
    ax.grid(axis="y", visible=False)
    alt = f"Share of the channels that stays in {len(shares)} layers, from {shares.min():.0%} to {shares.max():.0%}."
    return set_caption(finish(fig, None, alt, title), caption)


@styled
def error_spread(errors: Mapping[str, Tensor], draws: int, *, title: str = "") -> BookFigure:
    """Draw how far estimates from ``draws`` weights stray: the share of estimates with at most a relative error.

    errors: rule of drawing -> relative errors (any number, at least 0). The dotted line is at one half of the estimates.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    fig, ax = panel()
    notes = []
    for rule, found in errors.items():
        style = style_of(rule)
        few = np.quantile(found.double().cpu().numpy(), np.linspace(0, 1, 200))  # all points would fill megabytes
        sns.ecdfplot(x=100 * few, ax=ax, color=style.colour, label=style.label)
        notes.append(f"{style.label} {100 * float(found.double().median()):.2g} %")
    ax.axhline(0.5, color=NEUTRAL, linestyle=":", linewidth=1.2)
    ax.set(xscale="log", xlim=(0.1, 200), xlabel="relative error (%)", ylabel="share of estimates", ylim=(0, 1))
    plain_ticks(ax.xaxis, [0.1, 1, 10, 100])
    return finish(fig, None, f"half of the estimates from {draws} draws are off by at most: {'; '.join(notes)}.", title)
