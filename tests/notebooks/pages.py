"""What each page of the book holds, as a table in Markdown: `python -m tests.notebooks.pages [FOLDER]`.

Everything is read from the notebooks: the question and its answer, the title figure, backed sentences, exercises, words, the
longest cell that is not folded. The seconds are those of the last run, from the executed notebooks in FOLDER (default: those
that the book is built from).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from pruning_core.book.chapters import EXECUTED, executed_path, find_notebooks
from pruning_core.plots.captions import CAPTIONS
from tests.notebooks.test_anatomy import FOLDED
from tests.notebooks.test_sentences import NOT_PROSE, results

DRAWN = re.compile(rf"\b({'|'.join([*CAPTIONS, 'live', 'slider_figure'])})\(")


class Page(NamedTuple):
    """One line of the table."""

    page: str
    question: str
    answer: str
    title_figure: str
    figures: int
    backed: int
    exercises: int
    words: int
    longest_cell: int
    seconds: float | None


def about(path: Path, executed: Path = EXECUTED) -> Page:
    """What one notebook holds."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    visible = [len(s.splitlines()) for s, cell in zip(sources, code, strict=True) if not FOLDED & _tags(cell)]
    shown = results(path) if any("backed(" in source for source in sources) else []
    drawn = [name for source in sources for name in DRAWN.findall(source)]
    return Page(
        f"{path.parent.name}/{path.stem}",
        _question(texts[0]),
        _answer([*texts, *shown]),
        drawn[0] if drawn else "",
        len(drawn),
        len(shown),
        sum(source.count("\ncheck(") + source.startswith("check(") for source in sources),
        sum(len(NOT_PROSE.sub(" ", text).split()) for text in texts),
        max(visible, default=0),
        _seconds(executed_path(path, executed)),
    )


def _tags(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


def _flat(text: str) -> str:
    """One line without links' addresses, as a table has room for."""
    return re.sub(r"\]\([^)]*\)", "]", " ".join(text.split())).replace("|", r"\|")


def _question(opening: str) -> str:
    """The first question of the opening, or what stands below the title."""
    title, _, below = opening.partition("\n")
    found = re.search(r"(?:^|(?<=[.!?] ))[^.!?]*\?", _flat(below))
    return found[0].strip() if found else title.lstrip("# ")


def _answer(texts: list[str]) -> str:
    """The first sentence behind "The short answer.", which text or a backed cell says."""
    for text in texts:
        if found := re.search(r"\*\*The short answer\.?\*\*:?\s*(.+?[.!?])(?=\s|$)", _flat(text)):
            return found[1]
    return ""


def _seconds(executed: Path) -> float | None:
    if not executed.is_file():
        return None
    stamp = json.loads(executed.read_text(encoding="utf-8"))["metadata"].get("pruning_book", {})
    return float(stamp["seconds"]) if "seconds" in stamp else None


def table(pages: list[Page]) -> str:
    """The pages as a table in Markdown."""
    head = [name.replace("_", " ") for name in Page._fields]
    rows = [
        [f"{v:.0f}" if isinstance(v, float) else "not run" if v is None else str(v) for v in page] for page in pages
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else EXECUTED
    print(table([about(path, folder) for path in find_notebooks()]))
