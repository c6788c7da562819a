"""Names that somebody chose, as text on a page of Markdown: whatever they hold, they are no markup and no HTML."""

import re
from collections.abc import Sequence


def escaped(text: object) -> str:
    """Text on one line of Markdown in which nothing is markup, HTML included.

    >>> print(escaped("p < 0.05 | <b>"))
    p \\< 0.05 \\| \\<b>
    """
    return re.sub(r"([\\*_$<{\[|`])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Text as code on one line of Markdown, also where it holds the marks that begin and end code.

    >>> print(code("fc.weight"), code("a`b"))
    `fc.weight` ``a`b``
    """
    line = " ".join(str(text).split())
    marks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{marks}{space}{line}{space}{marks}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of cells that are Markdown already.

    >>> print(table(["a"], [["1"]]))
    | a |
    | --- |
    | 1 |
    """
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])
