"""One look for the whole book: the palette, the colour and marker of every method, figures that carry an alt
text.

Every colour has a contrast of at least 3:1 (WCAG 2.2, graphical objects) against a white and against a dark
page, so that figures need no background of their own. Methods are told apart by marker as well as by colour;
the eight colours stay apart for readers with red-green colour blindness (tested by simulation).
"""

import base64
import html
import io
import math
import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLOURS = {
    "blue": "#2c4cfa",
    "sky": "#3096fe",
    "green": "#047708",
    "ochre": "#a69243",
    "mauve": "#b974ba",
    "violet": "#9b2bc2",
    "crimson": "#d90c50",
    "slate": "#516489",
}
NEUTRAL = "#797979"  # text, ticks and frames: 4.4:1 on white, 4.3:1 on #121212
SERIES = tuple(COLOURS[name] for name in ("blue", "crimson", "green", "ochre", "violet", "sky", "mauve", "slate"))
"""The colours, in order, of curves that are no methods."""
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "h")


class MethodStyle(NamedTuple):
    """How one method is drawn and what its legend says."""

    colour: str
    marker: str
    label: str


def _styles(**entries: tuple[str, str, str]) -> dict[str, MethodStyle]:
    return {name: MethodStyle(COLOURS[colour], marker, label) for name, (colour, marker, label) in entries.items()}


# Methods that chapters compare with each other never share a colour; a (colour, marker) pair is used once.
METHOD_STYLE: dict[str, MethodStyle] = _styles(
    # references
    dense=("slate", "h", "unpruned"),
    random=("slate", "o", "random"),
    random_channels=("slate", "v", "random channels"),
    uniform=("slate", "s", "uniform sampling"),
    ucs=("slate", "^", "uniform channel scaling"),
    scratch=("slate", "D", "small network from scratch"),
    # size of the weights
    magnitude=("blue", "o", "magnitude"),
    imp=("sky", "s", "IMP (rewinding)"),
    l1=("crimson", "h", "L1 training + magnitude"),
    l1_norm=("sky", "^", "L1 filter norm"),
    l2_norm=("mauve", "v", "L2 filter norm"),
    geometric_median=("ochre", "X", "geometric median"),
    softnet=("blue", "v", "SoftNet"),
    efficient_convnets=("blue", "D", "Efficient ConvNets"),
    # sensitivity at initialisation
    snip=("ochre", "^", "SNIP"),
    snip_it=("crimson", "o", "SNIP-it (before)"),
    snip_it_during=("violet", "s", "SNIP-it (during)"),
    snap=("ochre", "s", "SNAP"),
    snap_it=("crimson", "D", "SNAP-it (before)"),
    snap_it_during=("violet", "P", "SNAP-it (during)"),
    cnip=("ochre", "D", "CNIP"),
    cnip_it=("mauve", "P", "CNIP-it (before)"),
    cnip_it_during=("mauve", "X", "CNIP-it (during)"),
    grasp=("green", "v", "GraSP"),
    snip_logits=("slate", "<", "SNIP, raw logits"),
    snip_it_logits=("slate", ">", "SNIP-it, raw logits"),
    snap_logits=("slate", "P", "SNAP, raw logits"),
    snap_it_logits=("slate", "X", "SNAP-it, raw logits"),
    grasp_reference=("ochre", "<", "GraSP, other sign"),
    imp_hasty=("mauve", "s", "IMP, cuts every epoch"),
    synflow=("blue", "P", "SynFlow"),
    # sensitivity of the outputs
    sipp=("green", "o", "SiPP"),
    sipp_random=("violet", "o", "SiPPRand"),
    sipp_hybrid=("crimson", "P", "SiPPHybrid"),
    l1_sampling=("sky", "<", "L1 sampling"),
    l2_sampling=("mauve", "<", "L2 sampling"),
    pfp=("green", "s", "PFP"),
    pfp_top=("violet", "^", "PFP-top"),
    pfp_random=("crimson", "v", "PFP-rand"),
    thinet=("ochre", "o", "ThiNet"),
    # support selection
    ispasp=("violet", "D", "i-SpaSP"),
    ispasp_abs=("crimson", "<", "i-SpaSP, absolute scores"),
    activation_sum=("sky", "o", "largest activation sum"),
    greedy=("green", "^", "GFS"),
    greedy_sampled=("ochre", "v", "GFS, 50 candidates"),
    imitation=("mauve", "D", "output imitation"),
    cosamp=("blue", "s", "CoSaMP"),
    weight_product=("crimson", "^", "weight norm product"),
    ispasp_debias=("blue", "<", "i-SpaSP, least squares"),
    # batch-norm scales, penalties, gates
    rni=("crimson", "s", "RNI"),
    rni_no_penalty=("violet", "X", "sigmoid batch norm alone"),
    slimming=("blue", "^", "Network Slimming"),
    polarization=("green", "D", "polarisation"),
    hoyer_square=("blue", "X", "HoyerSquare"),
    group_hoyer_square=("sky", "D", "Group-HS"),
    lp=("sky", "X", "Lp training + magnitude"),
    l0=("mauve", "o", "L0"),
    gates=("green", "X", "Gate Decorator"),
    # training sparse
    rigl=("green", "P", "RigL"),
    smart_ratio=("mauve", "h", "Smart-Ratio"),
    rare_gems=("ochre", "h", "Rare Gems"),
)


def style_of(method: str) -> MethodStyle:
    """Return the style of a method; a name that METHOD_STYLE lacks gets one that depends on the name only.

    Hyphens and underscores mean the same, so the recipe ``"snip-it"`` and the method ``"snip_it"`` look
    alike.
    """
    key = method.lower().replace("-", "_")
    if key in METHOD_STYLE:
        return METHOD_STYLE[key]
    used = {(style.colour, style.marker) for style in METHOD_STYLE.values()}
    free = [(c, m) for m in reversed(MARKERS) for c in COLOURS.values() if (c, m) not in used]
    colour, marker = free[zlib.crc32(key.encode()) % len(free)]
    return MethodStyle(colour, marker, method)


def series_style(i: int, label: object) -> MethodStyle:
    """The style of the ``i``-th curve of a figure whose curves are no methods."""
    return MethodStyle(SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], str(label))


RC: Any = {  # Any: matplotlib types the keys as a closed list that grows with its version
    "figure.dpi": 110,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": NEUTRAL,
    "axes.labelcolor": NEUTRAL,
    "axes.titlecolor": NEUTRAL,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": NEUTRAL,
    "ytick.color": NEUTRAL,
    "text.color": NEUTRAL,
    "axes.grid": True,
    "grid.color": NEUTRAL,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "pruning book",  # the same rows give the same file, byte for byte
}
SVG_LIMIT = 400_000  # bytes; a larger drawing is sent as PNG


class BookFigure(Figure):
    """A matplotlib figure that shows itself in notebooks as an image with an alt text."""

    alt: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return show(self)._repr_mimebundle_()


class Picture:
    """A finished image with its alt text, for notebooks (JupyterLab, myst-nb, Colab) and for files."""

    def __init__(self, data: bytes, mime: str, alt: str, width: int):
        self.data, self.mime, self.alt, self.width = data, mime, alt, width

    def to_html(self) -> str:
        """Return one ``<img>`` with the image inside, so that the page asks for no further file."""
        encoded = base64.b64encode(self.data).decode()
        # The theme puts a light box behind HTML outputs in dark mode; our figures are drawn for both
        # backgrounds.
        return (
            "<style>.text_html:has(> .pruning-figure){background:none!important;padding:0!important}</style>"
            f'<img class="pruning-figure dark-light" alt="{html.escape(self.alt, quote=True)}" '
            f'style="width:{self.width}px;max-width:100%;height:auto;background:none" '
            f'src="data:{self.mime};base64,{encoded}">'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": self.alt}


def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **subplots: Any
) -> tuple[BookFigure, np.ndarray]:
    """Make a figure in the book's style and its axes, always as an array of shape (rows, columns).

    ``size`` is in inches (default 6.4 x 3.8 a panel, at most 9.6 wide). pyplot is not involved: nothing is
    kept alive and nothing is shown twice.
    """
    with mpl.rc_context(RC):
        fig = BookFigure(figsize=size or (min(6.4 * columns, 9.6), 3.8 * rows), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, **subplots)
    return fig, axes


def panel(**options: Any) -> tuple[BookFigure, Axes]:
    """A figure with one panel, and its axes; options as for :func:`figure`."""
    fig, axes = figure(**options)
    return fig, axes[0, 0]


def band(ax: Axes, x: Any, middle: Any, low: Any, high: Any, style: MethodStyle) -> None:
    """One curve in its style, with a band from ``low`` to ``high``."""
    ax.plot(x, middle, color=style.colour, marker=style.marker, label=style.label)
    ax.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)


def finish(
    fig: BookFigure, rows: pd.DataFrame | None, alt: str, title: str = "", *, panels: bool = False
) -> BookFigure:
    """Stamp the figure with where its ``rows`` come from (None: no stamp) and give it its alt text, title first.

    ``panels``: the title stands over several panels.
    """
    if panels and title:
        fig.suptitle(title, color=NEUTRAL, fontsize=11)
    if rows is not None:
        stamp(fig, rows)
    set_alt(fig, titled(title, alt))
    return fig


def titled(title: str, text: str) -> str:
    """The text after the title, if there is one: how every alt text begins."""
    return f"{title}: {text}" if title else text


def percent(share: float, _: float | None = None) -> str:
    """A fraction as text; as a tick's label the position is given too."""
    return f"{100 * share:.4g} %"


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from 0.01 to 5000, that lie between ``low`` and ``high``."""
    return [n for power in range(-2, 4) for n in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= n <= high]


def plain_ticks(axis, ticks: Sequence[float]) -> None:
    """Numbers in place of powers of ten on a short logarithmic axis."""
    axis.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    axis.set_minor_locator(NullLocator())


def styled(draw: Callable[..., BookFigure]) -> Callable[..., BookFigure]:
    """Decorate a drawing function so that everything it creates follows the book's style."""

    @wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> BookFigure:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


def alt_text(fig: Figure) -> str:
    """Return the alt text that a drawing function (or ``set_alt``) has given the figure; empty if none."""
    return str(getattr(fig, "alt", ""))


def set_alt(fig: Figure, text: str) -> None:
    """Give the figure its alt text: one or two sentences that say what a reader would see."""
    fig.alt = " ".join(text.split())  # type: ignore[attr-defined]


def show(fig: Figure, alt: str | None = None) -> Picture:
    """Turn a figure into an image with an alt text, to be the last line of a cell.

    ``alt`` replaces the text that the drawing function wrote. A figure without any is refused: ValueError.
    Vector graphics where they are small, PNG at 160 dpi where they are not (heat maps with many cells).
    """
    text = " ".join(alt.split()) if alt is not None else alt_text(fig)
    if not text:
        raise ValueError("the figure has no alt text: pass show(fig, alt='...') or call set_alt(fig, '...').")
    width = math.ceil(fig.get_size_inches()[0] * 96)
    with mpl.rc_context(RC):
        data = _saved(fig, "svg", metadata={"Date": None, "Title": text[:200]})
        if len(data) <= SVG_LIMIT:
            return Picture(data, "image/svg+xml", text, width)
        return Picture(_saved(fig, "png", dpi=160), "image/png", text, width)


def _saved(fig: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, transparent=True, **options)
    return buffer.getvalue()


def stamp(fig: Figure, rows: pd.DataFrame) -> str:
    """Write under the figure, in small type, where its numbers come from; return what was written.

    Profile, number of seeds, device and minutes. An experiment with several rows counts once, with its
    longest time. Facts that the rows do not hold are left out.
    """
    facts = []
    if "profile" in rows and rows["profile"].notna().any():
        facts.append("profile " + ", ".join(sorted(rows["profile"].dropna().unique())))
    if "seed" in rows and rows["seed"].notna().any():
        n = rows["seed"].nunique()
        facts.append(f"{n} seed" + ("s" if n > 1 else ""))
    if "device" in rows and rows["device"].notna().any():
        facts.append(", ".join(sorted(rows["device"].dropna().astype(str).unique())))
    if "seconds" in rows and rows["seconds"].notna().any():
        per_run = rows.groupby("experiment")["seconds"].max() if "experiment" in rows else rows["seconds"]
        facts.append(f"{per_run.sum() / 60:.1f} min")
    text = " · ".join(facts) or "no record of where these numbers come from"
    fig.supxlabel(text, fontsize=7, color=NEUTRAL, x=0.995, ha="right")
    return text
