"""Figures of networks themselves: which layer plays which part in which channel group."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pruning_core.errors import known_name
from pruning_core.experiments.intervals import require_rows
from pruning_core.plots.axes import level, lines, percent
from pruning_core.plots.style import COLOURS, BookFigure, finish, panel, styled

ROLES = {"produces": ("ochre", "P"), "normalises": ("mauve", "N"), "consumes": ("blue", "C")}
"""Role of a layer in a group -> colour and letter."""


@styled
def group_map(rows: pd.DataFrame, *, order: Sequence[str] | None = None, title: str = "") -> BookFigure:
    """Draw layers (down) against channel groups (across); a tile says what a layer does with a group's channels.

    rows: columns ``group``, ``role`` ("produces", "normalises", "consumes") and ``parameter``; the layer is the part of
    ``parameter`` before its last dot. Groups keep the order of the rows, layers too, or that of ``order``. A layer with
    two roles in one group shows both letters. Raises BadInput for missing columns or no rows.
    """
    require_rows(rows, ("group", "role", "parameter"))
    for role in rows["role"]:
        known_name("role", role, ROLES)
    parts = rows.assign(layer=rows["parameter"].str.rpartition(".")[0])
    groups, named = list(dict.fromkeys(parts["group"])), set(parts["layer"])
    layers = [layer for layer in order or dict.fromkeys(parts["layer"]) if layer in named]
    fig, ax = panel(size=(min(2.6 + 0.9 * len(groups), 9.6), 1.2 + 0.3 * len(layers)))
    for (group, layer), tile in parts.groupby(["group", "layer"], sort=False):
        roles = [role for role in ROLES if role in set(tile["role"])]  # they share the tile
        y, width = layers.index(layer), 0.84 / len(roles)
        for i, role in enumerate(roles):
            colour, letter = ROLES[role]
            middle = groups.index(group) - 0.42 + i * width + width / 2
            ax.bar(middle, 0.8, width, y - 0.4, color=COLOURS[colour])
            ax.text(middle, y, letter, ha="center", va="center", fontsize=9, color="white", weight="bold")
    ax.set_xticks(range(len(groups)), groups, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(len(layers)), layers, fontsize=9)
    ax.set(xlim=(-0.6, len(groups) - 0.4), ylim=(len(layers) - 0.4, -0.6), xlabel="channel group", ylabel="layer")
    for role, (colour, letter) in ROLES.items():
        ax.scatter([], [], marker="s", s=60, color=COLOURS[colour], label=f"{letter}: {role}")
    fig.legend(loc="outside upper center", ncols=3)
    tiles = parts.drop_duplicates(["group", "layer", "role"]).sort_values(["layer", "role"])
    tiles = tiles.assign(part=tiles["layer"] + " " + tiles["role"]).groupby("group")["part"].agg(", ".join)
    notes = "; ".join(f"{group}: {tiles[group]}" for group in groups)
    return finish(fig, None, f"tiles of layers against channel groups. {notes}.", title)


@styled
def difference_curve(rows: pd.DataFrame, *, floor: float | None = None, title: str = "") -> BookFigure:
    """Draw differences between two networks while both train, on a logarithmic axis; exact zeros sit on its lower edge.

    rows: columns ``pair`` (one curve a value), ``step``, ``difference`` (absolute, 0 or more). ``floor`` draws a level, the
    difference that is tolerated. Raises BadInput for missing columns or no rows.
    """
    require_rows(rows, ("pair", "step", "difference"))
    fig, ax = panel()
    positive = rows.loc[rows["difference"] > 0, "difference"]
    lowest = 10.0 ** np.floor(np.log10(positive.min() if len(positive) else 1e-17))
    drawn = lines(ax, rows.assign(height=rows["difference"].clip(lower=lowest)), "pair", "step", "height")
    ends = ((name, curve["difference"].iloc[[0, -1]]) for name, curve in drawn)
    notes = [f"{name}: from {first:.2g} to {last:.2g}" for name, (first, last) in ends]
    if floor is not None:
        level(ax, floor, "tolerated")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="step", ylabel="largest difference of the outputs")
    tolerated = f" The tolerated difference is {floor:.0e}." if floor is not None else ""
    return finish(fig, None, f"difference against step. {'; '.join(notes)}.{tolerated}", title)


@styled
def leak_curves(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the size of weights that should be zero against the training step, one curve a ``way``.

    rows: way, step, size (mean of the dead weights / mean of the living). BadInput without a column or any row.
    """
    require_rows(rows, ("way", "step", "size"))
    fig, ax = panel()
    notes = [
        f"{way}: {100 * curve['size'].iloc[-1]:.3g} % after {curve['step'].iloc[-1]} steps"
        for way, curve in lines(ax, rows, "way", "step", "size")
    ]
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(percent)
    ax.set(xlabel="step after the cut", ylabel="size of dead weights / size of living")
    alt = f"mean size of dead weights, relative to living ones, against steps. {'; '.join(notes)}."
    return finish(fig, None, alt, title)
