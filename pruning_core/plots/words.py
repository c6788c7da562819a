"""Words in a figure that matplotlib would take for a formula, and that are none."""

from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text


def show_words(fig: Figure) -> None:
    """Have every text with dollars in it that is no formula drawn letter by letter, where drawing it would fail.

    >>> fig = Figure()
    >>> shown = fig.text(0, 0, "$\\\\frac{1$"), fig.text(0, 0, "$x^2$")
    >>> show_words(fig)
    >>> [text.get_parse_math() for text in shown]
    [False, True]
    """
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_ticklabels()  # which get their words now
    for text in fig.findobj(Text):
        if isinstance(text, Text) and text.get_text().count("$") > 1 and not _is_formula(text.get_text()):
            text.set_parse_math(False)


def _is_formula(words: str) -> bool:
    try:
        MathTextParser("path").parse(words)
    except ValueError:
        return False
    return True
