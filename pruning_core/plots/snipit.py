"""Figures of chapter 4: elasticities, masks layer by layer, widths, attacks, confusion, saliency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds
from pruning_core.plots.curves import AXIS_NAMES
from pruning_core.plots.interactive import SliderFigure, page_layout
from pruning_core.plots.style import COLOURS, NEUTRAL, BookFigure, band, figure, finish, panel, style_of, styled


def parse_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """The column ``by_layer`` of measured rows, spread out: one row a layer.

    Adds layer, position (from 1), weights, weights_kept, units, units_kept, and the kept fractions density and width.
    Raises BadInput when no row has the column.
    """
    if "by_layer" not in rows or not rows["by_layer"].notna().any():
        raise BadInput("the rows have no column 'by_layer'; measure them with this version of the package.")
    table = []
    for row in rows.dropna(subset=["by_layer"]).to_dict("records"):
        for position, part in enumerate(str(row["by_layer"]).split(), start=1):
            layer, weights, units = part.rsplit(":", 2)
            kept, total = map(int, weights.split("/"))
            alive, whole = map(int, units.split("/"))
            table.append(
                row
                | {
                    "layer": layer,
                    "position": position,
                    "weights": total,
                    "weights_kept": kept,
                    "density": kept / total,
                }
                | {"units": whole, "units_kept": alive, "width": alive / whole}
            )
    return pd.DataFrame(table)


@styled
def layer_lines(
    rows: pd.DataFrame, *, y: str = "density", by: str = "method", title: str = "", log: bool = True
) -> BookFigure:
    """Draw what each layer keeps, one line a method: means over seeds with 95 % bands.

    rows: measured rows (``parse_layers`` is applied to them); ``y``: "density", "width", "units_kept" or "weights_kept".
    """
    points = over_seeds(parse_layers(rows), [by, "position", "layer"], y)
    fig, ax = panel()
    notes = []
    for name, line in points.groupby(by, sort=False):
        style = style_of(str(name))
        band(ax, line["position"], line["mean"], line["low"], line["high"], style)
        notes.append(f"{style.label}: {', '.join(f'{value:.3g}' for value in line['mean'])}")
    names = points.drop_duplicates("position").sort_values("position")
    ax.set_xticks(names["position"], [str(name) for name in names["layer"]], rotation=45, ha="right", fontsize=8)
    labels = {"density": "weights kept", "width": "units kept (fraction)", "units_kept": "units kept"}
    ax.set(ylabel=labels.get(y, y.replace("_", " ")), title=title)
    if log and (points["mean"] > 0).all():
        ax.set_yscale("log")
    ax.legend()
    return finish(fig, rows, f"What each layer keeps, from front to back. {'; '.join(notes)}.", title)


@styled
def accuracy_against_cost(
    rows: pd.DataFrame, *, cost: str = "training_macs", by: str = "method", title: str = ""
) -> BookFigure:
    """Draw accuracy against what training cost (logarithmic), one curve a method, one point a sparsity: means over seeds.

    rows: measured rows, the unpruned network among them as method "dense"; ``cost``: a column that is positive.
    """
    points = over_seeds(
        rows.assign(asked=rows["asked"].fillna(rows["sparsity"])), [by, "asked"], "accuracy", keep=[cost]
    )
    if points.empty:
        raise BadInput("there is no row with an accuracy to draw.")
    fig, ax = panel()
    notes = []
    for name, curve in points.groupby(by, sort=False):
        style, curve = style_of(str(name)), curve.sort_values(cost)
        band(ax, curve[cost], curve["mean"], curve["low"].clip(0, 100), curve["high"].clip(0, 100), style)
        cheapest = curve.iloc[0]
        notes.append(f"{style.label}: {cheapest['mean']:.3g} % at {cheapest[cost]:.2g}")
    ax.set_xscale("log")
    ax.set(xlabel=AXIS_NAMES.get(cost, cost), ylabel=AXIS_NAMES["accuracy"], title=title)
    ax.legend()
    return finish(
        fig, rows, f"Accuracy against {cost.replace('_', ' ')}; the cheapest point of {'; '.join(notes)}.", title
    )


def curve_of(scores: Mapping[str, Tensor], points: int = 200) -> pd.DataFrame:
    """The sorted scores of all sites as a small table: rank (fraction of weights, from the largest) and value."""
    values = np.sort(np.concatenate([score.detach().flatten().double().cpu().numpy() for score in scores.values()]))[
        ::-1
    ]
    ranks = np.unique(np.round(np.linspace(0, len(values) - 1, points)).astype(int))
    return pd.DataFrame({"rank": (ranks + 1) / len(values), "value": values[ranks]})


@styled
def elasticity_curves(
    curves: pd.DataFrame, *, by: str = "name", title: str = "", colours: Mapping[str, str] | None = None
) -> BookFigure:
    """Draw sorted elasticities: log10 of the size against the share of weights that are at least as large.

    curves: ``curve_of`` tables with a column ``by``; scores that are zero cannot be drawn and end the curve. ``colours``
    names colours of the palette for values of ``by`` that are no methods.
    """
    fig, ax = panel()
    notes = []
    for name, curve in curves.groupby(by, sort=False):
        style = style_of(str(name))
        seen = curve[curve["value"] > 0].groupby("rank", as_index=False)["value"].mean()
        colour = COLOURS[colours[str(name)]] if colours and str(name) in colours else style.colour
        ax.plot(seen["rank"], np.log10(seen["value"]), color=colour, label=style.label)
        notes.append(f"{style.label} from {np.log10(seen['value'].max()):.1f} to {np.log10(seen['value'].min()):.1f}")
    ax.set_xscale("log")
    ax.set(xlabel="share of weights with at least this elasticity", ylabel="log10 elasticity", title=title)
    ax.legend()
    return finish(fig, curves, f"Sorted elasticities on a logarithmic scale: {'; '.join(notes)}.", title)


@styled
def success_against_epsilon(rows: pd.DataFrame, *, by: str = "method", title: str = "", columns: int = 2) -> BookFigure:
    """Draw the success rate of attacks against the size of the disturbance, one panel an attack, one curve a network."""
    if rows.empty:
        raise BadInput("there is no row of an attack to draw.")
    attacks = list(dict.fromkeys(rows["attack"]))
    points = over_seeds(rows, ["attack", by, "epsilon"], "attack_success")
    high = -(-len(attacks) // columns)
    fig, axes = figure(high, min(columns, len(attacks)), size=(9.6, 3.2 * high), sharey=True)
    notes = []
    for attack, ax in zip(attacks, axes.flat, strict=False):
        for name, curve in points[points["attack"] == attack].groupby(by, sort=False):
            style = style_of(str(name))
            low, up = (100 * curve[side].clip(0, 1) for side in ("low", "high"))
            band(ax, curve["epsilon"], 100 * curve["mean"], low, up, style)
            middle = curve.iloc[len(curve) // 2]
            notes.append(f"{attack}, {style.label}: {100 * middle['mean']:.0f} % at {middle['epsilon']:g}")
        ax.set(title=attack.replace("_", " "), xlabel="epsilon")
    for ax in list(axes.flat)[len(attacks) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("images turned (%)")
    axes[0, 0].legend()
    return finish(fig, rows, f"Success of attacks against epsilon. {'; '.join(notes)}.", title, panels=True)


@styled
def confusion(matrices: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None) -> BookFigure:
    """Draw confusion matrices side by side: rows the true class, columns the predicted one, in percent of the row."""
    if not matrices:
        raise BadInput("there is no confusion matrix to draw.")
    fig, axes = figure(1, len(matrices), size=(min(4.2 * len(matrices), 9.6), 3.9))
    notes = []
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        counts = matrix.double().numpy()
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(shares, cmap="viridis", vmin=0, vmax=100)
        ax.set(title=style_of(name).label, xlabel="predicted", xticks=range(len(counts)), yticks=range(len(counts)))
        ax.grid(False)
        off = counts - np.diag(np.diag(counts))
        true, taken = np.unravel_index(off.argmax(), off.shape)
        notes.append(
            f"{name}: {100 * np.trace(counts) / counts.sum():.1f} % right, most often {true} taken for {taken}"
        )
    axes[0, 0].set_ylabel("true class")
    return finish(fig, pd.DataFrame() if rows is None else rows, f"Confusion matrices. {'; '.join(notes)}.", title)


@styled
def saliency_grid(
    inputs: Tensor, maps: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None
) -> BookFigure:
    """Draw images (first row) and the saliency maps of several networks below them. Tensors are (N, C, H, W)."""
    count = len(inputs)
    fig, axes = figure(1 + len(maps), count, size=(min(1.1 * count + 1, 9.6), 1.15 * (1 + len(maps))))
    pictures = {"image": inputs, **maps}
    for row, (name, tensors) in zip(axes, pictures.items(), strict=True):
        for ax, tensor in zip(row, tensors, strict=True):
            limits: dict[str, Any] = {} if name == "image" else {"vmin": 0, "vmax": 1}
            ax.imshow(tensor.detach().mean(0).cpu().numpy(), cmap="gray" if name == "image" else "viridis", **limits)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_ylabel(style_of(name).label if name != "image" else name, fontsize=8)
    return finish(
        fig,
        pd.DataFrame() if rows is None else rows,
        f"{count} images and, below, which pixels move the largest logit in {', '.join(maps)}.",
        title,
    )


def mask_slider(
    positions: Mapping[str, Mapping[str, Tensor]], *, control: str, title: str = "", cells: int = 40, start: int = 0
) -> SliderFigure:
    """Make a slider over cuts that shows every layer's mask: a cell is a block of weights, its colour the share kept.

    positions: label of the cut -> layer -> bool mask (outputs, inputs, ...); the same layers in each.
    """
    if not positions:
        raise BadInput("a slider needs at least one position.")
    layers = list(next(iter(positions.values())))
    data: list[dict[str, Any]] = []
    notes = []
    for i, (label, masks) in enumerate(positions.items()):
        if list(masks) != layers:
            raise BadInput(f"every position must hold the same layers; the first has {', '.join(layers)}.")
        for j, layer in enumerate(layers, start=1):
            mask = masks[layer].flatten(1).double().numpy()
            data.append(
                {
                    "type": "heatmap",
                    "z": np.round(_blocks(mask, cells), 3).tolist(),
                    "zmin": 0,
                    "zmax": 1,
                    "colorscale": "Viridis",
                    "showscale": j == len(layers),
                    "colorbar": {"title": {"text": "kept"}, "tickfont": {"color": NEUTRAL}},
                    "xaxis": f"x{j}" if j > 1 else "x",
                    "yaxis": f"y{j}" if j > 1 else "y",
                    "visible": i == start,
                    "name": layer,
                    "hovertemplate": f"{layer}: %{{z:.2f}} kept<extra></extra>",
                }
            )
        kept = ", ".join(f"{masks[layer].double().mean():.2%} of {layer}" for layer in layers)
        notes.append(f"at {label}: {kept}")
    layout = page_layout(title, 340, l=40, r=15, t=60, b=40)
    width = 1 / len(layers)
    for j, layer in enumerate(layers, start=1):
        name = str(j) if j > 1 else ""
        domain = [(j - 1) * width, j * width - 0.04]
        axis = {"color": NEUTRAL, "showgrid": False, "zeroline": False, "showticklabels": False}
        layout[f"xaxis{name}"] = axis | {"domain": domain, "anchor": f"y{name}", "title": {"text": f"{layer}: inputs"}}
        layout[f"yaxis{name}"] = axis | {"anchor": f"x{name}", "autorange": "reversed"}
    alt = f"{title}: the masks of {', '.join(layers)}, as blocks. Kept {'; '.join(notes)}."
    return SliderFigure(data, layout, list(positions), start, control, alt)


def _blocks(mask: np.ndarray, cells: int) -> np.ndarray:
    """Means over blocks, so that neither side has more than ``cells``."""
    for axis in (0, 1):
        parts = np.array_split(np.arange(mask.shape[axis]), min(cells, mask.shape[axis]))
        mask = np.stack([mask.take(part, axis).mean(axis) for part in parts], axis)
    return mask
