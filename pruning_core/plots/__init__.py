"""Every figure of the book, drawn from rows only; each comes with an alt text and the book's one palette."""

from pruning_core.plots.bars import bars
from pruning_core.plots.curves import accuracy_against_sparsity, chart
from pruning_core.plots.evidence import differences, evidence
from pruning_core.plots.interactive import SliderFigure, slider_figure
from pruning_core.plots.knobs import live
from pruning_core.plots.maps import maps
from pruning_core.plots.style import (
    COLOURS,
    METHOD_STYLE,
    NEUTRAL,
    BookFigure,
    MethodStyle,
    alt_text,
    figure,
    set_alt,
    set_caption,
    show,
    stamp,
    style_of,
)

__all__ = [
    "COLOURS", "METHOD_STYLE", "NEUTRAL", "BookFigure", "MethodStyle", "SliderFigure", "accuracy_against_sparsity",
    "alt_text", "bars", "chart", "differences", "evidence", "figure", "live", "maps", "set_alt", "set_caption",
    "show", "slider_figure", "stamp", "style_of",
]  # fmt: skip
