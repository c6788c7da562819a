"""Citations that can be read wherever a notebook is opened, and that are citations of the bibliography on the site.

In a notebook a citation is a link to the paper, ``[Lee et al. (2019)](https://arxiv.org/abs/1810.02340)``, or in brackets
``([Lee et al., 2019](https://arxiv.org/abs/1810.02340))``: JupyterLab, Colab and an editor show it as it is. This Sphinx
extension hands such links to the bibliography when the site is built. ``python book/_ext/citations.py FILES`` turns
``{cite}`` and ``{cite:t}`` of notebooks, which are quicker to type, into links.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pybtex.database import Entry, Person, parse_file
from pybtex.richtext import Text

BIBLIOGRAPHY = Path(__file__).resolve().parents[1] / "references.bib"
_LINK = r"\[(?P<label>[^\[\]]+)\]\((?P<url>https?://[^()\s]+)\)"
_IN_BRACKETS = re.compile(rf"\(({re.sub('[?]P<[a-z]+>', '?:', _LINK)}(?:; )?)+\)")
_ONE = re.compile(_LINK)
_ROLE = re.compile(r"(?P<brace>\{\{?)cite(?P<textual>:t)?(?::p)?\}\}?`(?P<keys>[\w, ]+)`")


class Source(NamedTuple):
    """How a paper is named in a sentence and in brackets, and where it is found."""

    textual: str
    bracketed: str
    url: str


def _surname(person: Person) -> str:
    return str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))


def source(entry: Entry) -> Source:
    """Name and address of an entry of the bibliography; an entry without an address cannot be linked (ValueError)."""
    names = [_surname(person) for person in entry.persons["author"]]
    authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    where = entry.fields
    if not (url := where.get("url") or ("doi" in where and f"https://doi.org/{where['doi']}")):
        raise ValueError(f"{entry.key} has no url and no doi: a notebook cannot link to it.")
    return Source(f"{authors} ({where['year']})", f"{authors}, {where['year']}", url)


@cache
def sources() -> dict[str, Source]:
    """All entries of the bibliography by key."""
    return {key: source(entry) for key, entry in parse_file(str(BIBLIOGRAPHY)).entries.items()}


def linked(text: str) -> str:
    """The text with links in place of ``{cite}`` and ``{cite:t}``, also where a format string doubles their braces.

    >>> linked("As {cite:t}`lee2019snip` say, and others {cite}`lee2019snip`.")
    'As [Lee et al. (2019)](https://arxiv.org/abs/1810.02340) say, and others ([Lee et al., 2019](https://arxiv.org/abs/1810.02340)).'
    """

    def links(match: re.Match[str]) -> str:
        papers = [sources()[key.strip()] for key in match["keys"].split(",")]
        if match["textual"]:
            return ", ".join(f"[{paper.textual}]({paper.url})" for paper in papers)
        return "(" + "; ".join(f"[{paper.bracketed}]({paper.url})" for paper in papers) + ")"

    return _ROLE.sub(links, text)


def cited(text: str) -> str:
    """The inverse of :func:`linked`: links that are named as the bibliography names their paper become citations.

    >>> cited("[Lee et al. (2019)](https://arxiv.org/abs/1810.02340) and [the code](https://arxiv.org/abs/1810.02340)")
    '{cite:t}`lee2019snip` and [the code](https://arxiv.org/abs/1810.02340)'
    """
    textual = {(paper.textual, paper.url): key for key, paper in sources().items()}
    bracketed = {(paper.bracketed, paper.url): key for key, paper in sources().items()}

    def in_brackets(match: re.Match[str]) -> str:
        keys = [bracketed.get((link["label"], link["url"])) for link in _ONE.finditer(match[0])]
        return match[0] if None in keys else "{cite}`" + ",".join(map(str, keys)) + "`"

    def in_sentence(match: re.Match[str]) -> str:
        key = textual.get((match["label"], match["url"]))
        return f"{{cite:t}}`{key}`" if key else match[0]

    return _ONE.sub(in_sentence, _IN_BRACKETS.sub(in_brackets, text))


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def in_notebook(notebook: dict[str, Any], change: Callable[[str], str], code: bool) -> dict[str, Any]:
    """The notebook, changed in place: its texts, the sentences that its cells show, and, where asked for, its code."""
    for cell in notebook["cells"]:
        if code or cell["cell_type"] == "markdown":
            cell["source"] = _lines(change("".join(cell["source"])))
        for output in cell.get("outputs", ()):
            if "text/markdown" in (data := output.get("data", {})):
                data["text/markdown"] = _lines(change("".join(data["text/markdown"])))
    return notebook


def _read(app: Any, page: str, content: list[str]) -> None:
    """Before a notebook is parsed: its links to papers become citations."""
    if app.env.doc2path(page).endswith(".ipynb"):
        content[0] = json.dumps(in_notebook(json.loads(content[0]), cited, code=False))


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main(files: list[str]) -> None:
    """Turn the citations of these notebooks into links."""
    for file in map(Path, files):
        before = file.read_text(encoding="utf-8")
        after = json.dumps(in_notebook(json.loads(before), linked, code=True), ensure_ascii=False, indent=1) + "\n"
        if after != before:
            file.write_text(after, encoding="utf-8")
            print(f"{file.name}: citations are links now")


if __name__ == "__main__":
    main(sys.argv[1:])
