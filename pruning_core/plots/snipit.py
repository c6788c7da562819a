"""Figures of chapter 4: elasticities, masks layer by layer, widths, attacks, confusion, saliency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.patches import Patch
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds, require_rows
from pruning_core.plots.axes import AXIS_NAMES, bands, percent
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import PLOTLY, SliderFigure, check_positions, page_layout
from pruning_core.plots.style import COLOURS, BookFigure, figure, finish, panel, style_of, styled


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
            layer, *counts = part.rsplit(":", 2)
            (kept, weights), (alive, units) = (map(int, count.split("/")) for count in counts)
            about = {"layer": layer, "position": position}
            about |= {"weights": weights, "weights_kept": kept, "density": kept / weights}
            table.append(row | about | {"units": units, "units_kept": alive, "width": alive / units})
    return pd.DataFrame(table)


@styled
def layer_lines(rows: pd.DataFrame, *, y: str = "density", title: str = "") -> BookFigure:
    """Draw what each layer keeps, one line a method: means over seeds with 95 % bands, logarithmic where all are positive.

    rows: measured rows (``parse_layers`` is applied to them); ``y``: "density", "width", "units_kept" or "weights_kept".
    """
    points = over_seeds(parse_layers(rows), ["method", "position", "layer"], y)
    fig, ax = panel()
    drawn = bands(ax, points, "position")
    notes = [f"{label}: {', '.join(f'{value:.3g}' for value in line['mean'])}" for label, line in drawn]
    names = points.drop_duplicates("position").sort_values("position")
    ax.set_xticks(names["position"], list(names["layer"]), rotation=45, ha="right", fontsize=8)
    labels = {"density": "weights kept", "width": "units kept (fraction)"}
    ax.set(ylabel=labels.get(y, y.replace("_", " ")), yscale="log" if (points["mean"] > 0).all() else "linear")
    return finish(fig, rows, f"What each layer keeps, from front to back. {'; '.join(notes)}.", title)


@styled
def kept_by_layer(kept: Mapping[str, Mapping[str, float]], *, title: str = "") -> BookFigure:
    """Draw what several methods keep of each layer at one sparsity: bars on a logarithmic axis, a colour a method.

    kept: method -> layer -> fraction kept, layers from front to back and the same for each.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    table = pd.DataFrame(kept).rename_axis("layer").reset_index()
    if table.empty or table.isna().any(axis=None):
        raise BadInput("every method must keep a fraction of the same layers.")
    long = table.melt("layer", var_name="method", value_name="kept")
    long["kept"] = long["kept"].clip(lower=1e-4)  # a layer that lost everything has no place on a logarithmic axis
    looks = {method: style_of(method) for method in kept}
    fig, ax = panel(size=(7.2, 1.4 + 0.2 * len(long)))
    palette = {style.label: style.colour for style in looks.values()}
    named = long.assign(method=long["method"].map(lambda method: looks[method].label))
    sns.barplot(named, y="layer", x="kept", hue="method", palette=palette, saturation=1, ax=ax)
    bars = {name: Patch(color=colour) for name, colour in palette.items()}
    if (own := ax.get_legend()) is not None:  # the figure has one
        own.remove()
    ax.set(xscale="log", xlim=(1e-4, 1.0), xlabel="weights kept", ylabel="")
    ax.xaxis.set_major_formatter(percent)
    fig.legend(bars.values(), bars.keys(), loc="outside upper right", ncols=len(kept))
    notes = (f"{style.label} {', '.join(f'{v:.2%} of {k}' for k, v in kept[m].items())}" for m, style in looks.items())
    return finish(fig, None, f"what each layer keeps. {'; '.join(notes)}.", title)


@styled
def accuracy_against_cost(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw accuracy against what training cost (logarithmic), one curve a method, one point a sparsity: means over seeds.

    rows: measured rows with ``training_macs``, the unpruned network among them as method "dense".
    """
    cost = "training_macs"
    rows = rows.assign(asked=rows["asked"].fillna(rows["sparsity"]))
    points = over_seeds(rows, ["method", "asked"], "accuracy", keep=[cost])
    if points.empty:
        raise BadInput("there is no row with an accuracy to draw.")
    fig, ax = panel()
    drawn = bands(ax, points, cost, 0, 100)
    notes = [f"{label}: {curve['mean'].iloc[0]:.3g} % at {curve[cost].iloc[0]:.2g}" for label, curve in drawn]
    ax.set(xscale="log", xlabel=AXIS_NAMES[cost], ylabel=AXIS_NAMES["accuracy"])
    return finish(fig, rows, f"Accuracy against training macs; the cheapest point of {'; '.join(notes)}.", title)


def curve_of(scores: Mapping[str, Tensor], points: int = 200) -> pd.DataFrame:
    """The sorted scores of all sites as a small table: rank (fraction of weights, from the largest) and value."""
    parts = [score.detach().flatten().double().cpu().numpy() for score in scores.values()]
    values = np.sort(np.concatenate(parts))[::-1]
    ranks = np.unique(np.round(np.linspace(0, len(values) - 1, points)).astype(int))
    return pd.DataFrame({"rank": (ranks + 1) / len(values), "value": values[ranks]})


@styled
def elasticity_curves(curves: pd.DataFrame, *, title: str = "", colours: Mapping[str, str] | None = None) -> BookFigure:
    """Draw sorted elasticities: log10 of the size against the share of weights that are at least as large.

    curves: ``curve_of`` tables with a column ``name``; scores that are zero cannot be drawn and end the curve. ``colours``
    names colours of the palette for names that are no methods.
    """
    fig, ax = panel()
    notes = []
    for name, curve in curves.groupby("name", sort=False):
        style = style_of(str(name))
        seen = np.log10(curve[curve["value"] > 0].groupby("rank")["value"].mean())
        colour = COLOURS[colours[str(name)]] if colours and str(name) in colours else style.colour
        ax.plot(seen.index, seen, color=colour, label=style.label)
        notes.append(f"{style.label} from {seen.max():.1f} to {seen.min():.1f}")
    ax.set(xscale="log", xlabel="share of weights with at least this elasticity", ylabel="log10 elasticity")
    return finish(fig, curves, f"Sorted elasticities on a logarithmic scale: {'; '.join(notes)}.", title)


@styled
def success_against_epsilon(rows: pd.DataFrame, *, title: str = "", columns: int = 2) -> BookFigure:
    """Draw the success rate of attacks against the size of the disturbance, one panel an attack, one curve a network."""
    require_rows(rows, ("attack", "method", "epsilon", "attack_success"))
    attacks = list(dict.fromkeys(rows["attack"]))
    turned = rows.assign(turned=100 * rows["attack_success"])
    high = -(-len(attacks) // columns)
    fig, axes = figure(high, min(columns, len(attacks)), size=(9.6, 3.2 * high), sharey=True)
    notes = []
    for attack, ax in zip(attacks, axes.flat, strict=False):
        points = over_seeds(turned[turned["attack"] == attack], ["method", "epsilon"], "turned")
        for label, curve in bands(ax, points, "epsilon", 0, 100):
            middle = curve.iloc[len(curve) // 2]
            notes.append(f"{attack}, {label}: {middle['mean']:.0f} % at {middle['epsilon']:g}")
        ax.set(title=attack.replace("_", " "), xlabel="epsilon")
    for ax in axes.flat[len(attacks) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("images turned (%)")
    return finish(fig, rows, f"Success of attacks against epsilon. {'; '.join(notes)}.", title)


@styled
def confusion(matrices: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None) -> BookFigure:
    """Draw confusion matrices side by side: rows the true class, columns the predicted one, in percent of the row."""
    import seaborn as sns  # slow to load, scipy.stats with it

    if not matrices:
        raise BadInput("there is no confusion matrix to draw.")
    fig, axes = figure(1, len(matrices), size=(min(4.2 * len(matrices), 9.6), 3.9))
    notes = []
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        counts = matrix.double().numpy()
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        sns.heatmap(shares, ax=ax, cmap="viridis", vmin=0, vmax=100, cbar=False, square=True, rasterized=True)
        ax.tick_params("y", rotation=0)
        ax.set(title=style_of(name).label, xlabel="predicted")
        off = counts - np.diag(np.diag(counts))
        true, taken = np.unravel_index(off.argmax(), off.shape)
        right = 100 * np.trace(counts) / counts.sum()
        notes.append(f"{name}: {right:.1f} % right, most often {true} taken for {taken}")
    axes[0, 0].set_ylabel("true class")
    return finish(fig, pd.DataFrame() if rows is None else rows, f"Confusion matrices. {'; '.join(notes)}.", title)


@styled
def saliency_grid(
    inputs: Tensor, maps: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None
) -> BookFigure:
    """Draw images (first row) and the saliency maps of several networks below them. Tensors are (N, C, H, W)."""
    count = len(inputs)
    fig, axes = figure(1 + len(maps), count, size=(min(1.1 * count + 1, 9.6), 1.15 * (1 + len(maps))))
    for row, (name, tensors) in zip(axes, {"image": inputs, **maps}.items(), strict=True):
        image = name == "image"
        for ax, tensor in zip(row, tensors, strict=True):
            low, high = (None, None) if image else (0, 1)
            picture = tensor.detach().mean(0).cpu().numpy()
            ax.imshow(picture, cmap="gray" if image else "viridis", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_ylabel(name if image else style_of(name).label, fontsize=8)
    alt = f"{count} images and, below, which pixels move the largest logit in {', '.join(maps)}."
    return finish(fig, pd.DataFrame() if rows is None else rows, alt, title)


@captioned
def mask_slider(
    positions: Mapping[str, Mapping[str, Tensor]], *, control: str, title: str = "", cells: int = 40, start: int = 0
) -> SliderFigure:
    """Make a slider over cuts that shows every layer's mask: a cell is a block of weights, its colour the share kept.

    positions: label of the cut -> layer -> bool mask (outputs, inputs, ...); the same layers in each.
    """
    layers = check_positions(positions, start)
    numbers = ["", *(str(j) for j in range(2, len(layers) + 1))]  # plotly calls the first axis x, the second x2
    data, notes = [], []
    for i, (label, masks) in enumerate(positions.items()):
        for number, layer in zip(numbers, layers, strict=True):
            shares = _blocks(masks[layer].flatten(1).double().numpy(), cells)
            place = {
                "xaxis": f"x{number}",
                "yaxis": f"y{number}",
                "showscale": layer == layers[-1],
                "visible": i == start,
            }
            data.append(PLOTLY["heat_map"] | place | {"z": np.round(shares, 3).tolist(), "name": layer})
        kept = ", ".join(f"{masks[layer].double().mean():.2%} of {layer}" for layer in layers)
        notes.append(f"at {label}: {kept}")
    layout = page_layout(title, 340, l=40, r=15, t=60, b=40)
    width = 1 / len(layers)
    for j, (number, layer) in enumerate(zip(numbers, layers, strict=True)):
        across = {"domain": [j * width, (j + 1) * width - 0.04], "title": {"text": f"{layer}: inputs"}}
        layout[f"xaxis{number}"] = PLOTLY["bare_axis"] | across | {"anchor": f"y{number}"}
        layout[f"yaxis{number}"] = PLOTLY["bare_axis"] | {"anchor": f"x{number}", "autorange": "reversed"}
    alt = f"{title}: the masks of {', '.join(layers)}, as blocks. Kept {'; '.join(notes)}."
    return SliderFigure(data, layout, list(positions), start, control, alt)


def _blocks(mask: np.ndarray, cells: int) -> np.ndarray:
    """Means over blocks, so that neither side has more than ``cells``."""
    for axis in (0, 1):
        parts = np.array_split(np.arange(mask.shape[axis]), min(cells, mask.shape[axis]))
        mask = np.stack([mask.take(part, axis).mean(axis) for part in parts], axis)
    return mask
