"""One look for the whole book: the palette, the colour and marker of every method, figures that carry an alt text.

What the look is stands in ``style.yml``. Figures are drawn for a white and for a dark page, so they have no background of
their own; methods are told apart by marker as well as by colour.
"""

import base64
import html
import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pruning_core.checks import Maybe, Real, Several, Whole, checked
from pruning_core.plots.captions import captioned, facts_of, shortened
from pruning_core.plots.words import show_words
from pruning_core.records.files import read_yaml

P = ParamSpec("P")


class MethodStyle(NamedTuple):
    """How one method is drawn and what its legend says.

    >>> METHOD_STYLE["snip"]
    MethodStyle(colour='#a69243', marker='^', label='SNIP')
    """

    colour: str
    marker: str
    label: str


LOOK: dict[str, Any] = read_yaml(Path(__file__).with_name("style.yml"))
COLOURS: dict[str, str] = LOOK["colours"]
NEUTRAL: str = LOOK["neutral"]
SERIES = tuple(COLOURS[name] for name in LOOK["series"])
"""The colours, in order, of curves that are no methods."""
SYMBOLS: dict[str, str] = LOOK["markers"]  # of plotly
MARKERS = tuple(SYMBOLS)
STYLES = {
    section: {name: MethodStyle(COLOURS[hue], marker, label) for name, (hue, marker, label) in LOOK[section].items()}
    for section in ("methods", "spreads", "rounds", "control")
}
METHOD_STYLE = STYLES["methods"]
RC: Any = LOOK["matplotlib"]  # Any: matplotlib types the keys as a closed list that grows with its version
SVG_LIMIT = 400_000  # bytes; a larger drawing is sent as PNG


@checked
def style_of(method: str) -> MethodStyle:
    """Return the style of a method; a name that METHOD_STYLE lacks gets one that depends on the name only.

    Hyphens and underscores mean the same, so the recipe ``"snip-it"`` and the method ``"snip_it"`` look alike.

    >>> style_of("snip-it").label, style_of("no such method").label
    ('SNIP-it (before)', 'no such method')
    """
    key = method.lower().replace("-", "_")
    if key in METHOD_STYLE:
        return METHOD_STYLE[key]
    used = {(style.colour, style.marker) for style in METHOD_STYLE.values()}
    free = [(c, m) for m in reversed(MARKERS) for c in COLOURS.values() if (c, m) not in used]
    return MethodStyle(*free[zlib.crc32(key.encode()) % len(free)], method)


def series_style(i: int, label: object) -> MethodStyle:
    """The style of the ``i``-th curve of a figure whose curves are no methods."""
    return MethodStyle(SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], str(label))


def looks_of(values: Iterable[Any], by: str, styles: Mapping[Any, MethodStyle] | None = None) -> dict[Any, MethodStyle]:
    """The style of each value of the column ``by``: that of ``styles``, its own where all are methods, or the next in order.

    Numbers are labelled with the name of their column: "λ = 0.1".
    """
    found, known, values = {}, styles or {}, list(dict.fromkeys(values))
    method = by == "method" or all(str(value).lower().replace("-", "_") in METHOD_STYLE for value in values)
    for i, value in enumerate(values):
        if value in known or isinstance(value, str):
            found[value] = known.get(value) or (style_of(value) if method else series_style(i, value))
        else:
            number = f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
            found[value] = series_style(i, f"{LOOK['axes'].get(by, by)} = {number}")
    return found


class BookFigure(Figure):
    """A matplotlib figure that shows itself in notebooks as an image with an alt text.

    >>> fig, _ = figure()
    >>> set_alt(fig, "An empty figure.")
    >>> sorted(fig._repr_mimebundle_())
    ['text/html', 'text/plain']
    """

    alt: str = ""
    caption: str = ""
    panels: int = 1

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return show(self)._repr_mimebundle_()


class Picture(NamedTuple):
    """A finished image with its alt text and caption, for notebooks (JupyterLab, myst-nb, Colab) and for files."""

    data: bytes
    mime: str
    alt: str
    width: int
    caption: str = ""

    def image(self, hidden: bool = False) -> str:
        """The ``<img>`` alone, with the image inside; ``hidden`` until a script shows it.

        An alternative text is read out in one go: a long one ends after a sentence, and is whole in a description, which a
        reader may listen to or skip.
        """
        brief, name = shortened(self.alt), f"about-{zlib.crc32(self.data + self.alt.encode()):08x}"
        more = "" if brief == self.alt else f'<span hidden id="{name}">{html.escape(self.alt)}</span>'
        marks = ("hidden " if hidden else "") + (f'aria-describedby="{name}" ' if more else "")
        return more + (
            f'<img class="pruning-figure dark-light" alt="{html.escape(brief, quote=True)}" {marks}'
            f'style="width:{self.width}px;max-width:100%;height:auto;background:none" '
            f'src="data:{self.mime};base64,{base64.b64encode(self.data).decode()}">'
        )

    def to_html(self) -> str:
        """Return one ``<img>`` with the image inside, so that the page asks for no further file; with a caption, both in a
        ``<figure>``."""
        # The theme puts a light box behind HTML outputs in dark mode; our figures are drawn for both backgrounds.
        image = self.image()
        words = html.escape(self.caption)
        framed = f'<figure style="margin:0">{image}<figcaption>{words}</figcaption></figure>' if words else image
        return (
            "<style>.text_html:has(.pruning-figure){background:none!important;padding:0!important}"
            f"figcaption{{max-width:{self.width}px;font-size:.9em;color:inherit;text-align:left}}</style>{framed}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": self.alt}


@checked(rows=Whole(at_least=1), columns=Whole(at_least=1), size=Maybe(Several(Real(above=0), at_least=2, at_most=2)))
def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **subplots: Any
) -> tuple[BookFigure, np.ndarray]:
    """Make a figure in the book's style and its axes, always as an array of shape (rows, columns).

    ``size`` in inches (default 6.4 x 3.8 a panel, at most 9.6 wide). No pyplot: nothing is kept alive or shown twice.

    >>> fig, axes = figure(1, 2)
    >>> axes.shape
    (1, 2)
    """
    with mpl.rc_context(RC):
        fig = BookFigure(figsize=size or (min(6.4 * columns, 9.6), 3.8 * rows), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, **subplots)
    fig.panels = rows * columns
    return fig, axes


def panel(**options: Any) -> tuple[BookFigure, Axes]:
    """A figure with one panel, and its axes; options as for :func:`figure`."""
    fig, axes = figure(**options)
    return fig, axes[0, 0]


def finish(
    fig: BookFigure, rows: pd.DataFrame | str | None, alt: str, title: str = "", legend: bool = True
) -> BookFigure:
    """Write the title, a ``legend`` into the first panel if none is there, a stamp of ``rows`` (unless None), the alt text."""
    first = fig.axes[0]
    if legend and first.get_legend_handles_labels()[0] and not (first.get_legend() or fig.legends):
        first.legend()
    if title and fig.panels == 1 and not first.get_title():
        first.set_title(title)
    elif title:
        fig.suptitle(title, color=NEUTRAL, fontsize=11)
    if rows is not None:
        stamp(fig, rows)
    show_words(fig)
    set_alt(fig, titled(title, alt))
    return fig


def sourced(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The rows, for a stamp, where they say where they come from; what was computed on the spot does not."""
    return rows if {"profile", "seed", "device"} & set(rows) else None


def titled(title: str, text: str) -> str:
    """The text after the title, if there is one: how every alt text begins."""
    return f"{title}: {text}" if title else text


def styled(draw: Callable[P, BookFigure]) -> Callable[P, BookFigure]:
    """Decorate a drawing function so that everything it creates follows the book's style, and has a caption."""

    @captioned
    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> BookFigure:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


@checked
def alt_text(fig: Figure) -> str:
    """Return the alt text that a drawing function (or ``set_alt``) has given the figure; empty if none.

    >>> alt_text(Figure())
    ''
    """
    return str(getattr(fig, "alt", ""))


@checked
def set_alt(fig: BookFigure, text: str) -> None:
    """Give the figure its alt text: one or two sentences that say what a reader would see.

    >>> fig, _ = figure()
    >>> set_alt(fig, "An empty   figure.")
    >>> fig.alt
    'An empty figure.'
    """
    fig.alt = " ".join(text.split())


@checked
def set_caption(fig: BookFigure, text: str) -> BookFigure:
    """Give the figure a caption: what to see in it, and what to try. It stands below the picture.

    >>> set_caption(figure()[0], "Nothing is to be seen.").caption
    'Nothing is to be seen.'
    """
    fig.caption = " ".join(text.split())
    return fig


@checked
def show(fig: Figure, alt: str | None = None) -> Picture:
    """Turn a figure into an image with an alt text, to be the last line of a cell.

    ``alt`` replaces the text that the drawing function wrote. A figure without any is refused: ValueError.
    Vector graphics where they are small, PNG at 160 dpi where they are not (heat maps with many cells).

    >>> show(figure()[0], alt="An empty figure.").mime
    'image/svg+xml'
    """
    text = " ".join(alt.split()) if alt is not None else alt_text(fig)
    if not text:
        raise ValueError("the figure has no alt text: pass show(fig, alt='...') or call set_alt(fig, '...').")
    width = math.ceil(fig.get_size_inches()[0] * 96)
    caption = str(getattr(fig, "caption", ""))
    with mpl.rc_context(RC):
        data = _saved(fig, "svg", metadata={"Date": None, "Title": text[:200]})
        if len(data) <= SVG_LIMIT:
            return Picture(data, "image/svg+xml", text, width, caption)
        return Picture(_saved(fig, "png", dpi=160), "image/png", text, width, caption)


def _saved(fig: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, transparent=True, **options)
    return buffer.getvalue()


@checked
def stamp(fig: Figure, rows: pd.DataFrame | str) -> str:
    """Write under the figure, in small type, where its numbers come from; return what was written.

    Profile, number of seeds, device and minutes, or the words given in place of rows. An experiment with several rows
    counts once, with its longest time. Facts that the rows do not hold are left out.

    >>> stamp(figure()[0], pd.DataFrame({"profile": ["quick"] * 2, "seed": [0, 1]}))
    'profile quick · 2 seeds'
    """
    text = rows if isinstance(rows, str) else " · ".join(facts_of(rows))
    text = text or "no record of where these numbers come from"
    fig.supxlabel(text, fontsize=7, color=NEUTRAL, x=0.995, ha="right")
    return text
