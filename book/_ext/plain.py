"""Notebooks for readers whose renderer knows Markdown and formulas, but not MyST: Colab, an editor, plain Jupyter.

There the notebooks' exercises would show as blocks of code, with their labels. :func:`plain` writes them as headings with
the solution folded in ``<details>``, gives numbers to formulas, and turns roles such as ``{doc}`` into links. It is applied to
what the Colab buttons open and to what the site offers for download; the notebooks of the repository stay as they are.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from repository import ROOT

_BLOCK = re.compile(
    r"^(?P<fence>`{3,})\{(?P<kind>exercise|solution|admonition)\}(?P<title>[^\n]*)\n(?P<options>(?::[\w-]+:[^\n]*\n)*)"
    r"(?P<body>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_FORMULA = re.compile(r"\$\$(?P<body>(?:(?!\$\$).)+)\$\$[ ]*\((?P<label>eq:[\w-]+)\)", re.DOTALL)
_ROLE = re.compile(
    r"\{\{?(?P<role>[a-z]+(?::[a-z]+)?)\}\}?`(?:(?P<words>[^`<]+?) *<(?P<target>[^`>]+)>|(?P<alone>[^`]+))`"
)


def plain(notebook: dict[str, Any], place: Path, site: str = "") -> dict[str, Any]:
    """A copy of the notebook without MyST's directives, labels and roles, in its texts and in the sentences it shows.

    ``place``: where the notebook lies, below :data:`repository.ROOT`; ``site``: the address of the book's site, where pages
    that are no notebooks can be linked.

    >>> cell = {"cell_type": "markdown", "source": "```{solution} ex-a\\n:class: dropdown\\n\\nIt is 2.\\n```"}
    >>> print("".join(plain({"cells": [cell]}, ROOT / "notebooks" / "a.ipynb")["cells"][0]["source"]))
    <details><summary>Solution</summary>
    <BLANKLINE>
    It is 2.
    <BLANKLINE>
    </details>
    """

    def change(source: str, code: bool) -> str:
        if not code:
            source = _FORMULA.sub(lambda found: _numbered(found, own), _BLOCK.sub(_unfolded, source))
        return _ROLE.sub(lambda found: _without_role(found, place, own, site), source)

    own = labels(notebook)
    cells = []
    for cell in notebook["cells"]:
        changed = change("".join(cell["source"]), cell["cell_type"] == "code")
        cell = cell | {"source": changed.splitlines(keepends=True)}
        if shown := cell.get("outputs"):
            cell["outputs"] = [_output(output, lambda text: change(text, False)) for output in shown]
        cells.append(cell)
    return notebook | {"cells": cells}


def _output(output: dict[str, Any], change: Any) -> dict[str, Any]:
    data = output.get("data", {})
    if "text/markdown" not in data:
        return output
    lines = change("".join(data["text/markdown"])).splitlines(keepends=True)
    return output | {"data": data | {"text/markdown": lines}}


def labels(notebook: dict[str, Any]) -> dict[str, int]:
    """The numbers of the formulas that have a label, in their order."""
    texts = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return {found["label"]: number for number, found in enumerate(_FORMULA.finditer(texts), 1)}


def _unfolded(found: re.Match[str]) -> str:
    title, body = found["title"].strip(), found["body"].strip()
    if found["kind"] == "exercise":
        return f"### Exercise: {title}\n\n{body}"
    if found["kind"] == "solution" or "dropdown" in found["options"]:
        summary = "Solution" if found["kind"] == "solution" else title
        return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *body.splitlines()])


def _numbered(found: re.Match[str], numbers: dict[str, int]) -> str:
    """The number stands in the formula; rows of several lines need an environment, which MyST puts around them by itself."""
    body = found["body"].strip()
    if (r"\\" in body or "&" in body) and r"\begin" not in body:
        body = rf"\begin{{aligned}}{body}\end{{aligned}}"
    return rf"$${body} \tag{{{numbers[found['label']]}}}$$"


def _without_role(found: re.Match[str], place: Path, own: dict[str, int], site: str) -> str:
    role, words = found["role"], found["words"]
    target = found["target"] or found["alone"]
    if role == "doc":
        return _linked(words, target, place, site)
    if role == "eq":
        if target in own:
            return f"({own[target]})"
        for other, numbers in _everywhere().items():
            if target in numbers:
                return f"({numbers[target]}) of {_linked(None, '/' + other, place, site)}"
        return found[0]
    if role in ("func", "class", "meth", "mod", "data", "attr"):
        return f"`{(words or target).lstrip('~.')}`"
    return words or target if role in ("term", "ref") else found[0]


def _linked(words: str | None, target: str, place: Path, site: str) -> str:
    """A link to a notebook as a file, to another page on the site; words alone where the site has no address."""
    path = ROOT / target.lstrip("/") if target.startswith("/") else place.parent / target
    page = Path(*path.resolve().relative_to(ROOT.resolve()).parts).as_posix()
    notebook = ROOT / f"{page}.ipynb"
    if notebook.is_file():
        up = "../" * (len(place.relative_to(ROOT).parts) - 2)
        same = notebook.parent == place.parent
        address = notebook.name if same else up + notebook.relative_to(ROOT / "notebooks").as_posix()
        return f"[{words or _title(notebook)}]({address})"
    words = words or page.rpartition("/")[2].replace("_", " ")
    return f"[{words}]({site.rstrip('/')}/{page}.html)" if site else words


@cache
def _everywhere() -> dict[str, dict[str, int]]:
    """The labels of every notebook of the repository."""
    files = sorted((ROOT / "notebooks").glob("[0-9]*/[0-9]*.ipynb"))
    return {
        file.relative_to(ROOT).with_suffix("").as_posix(): labels(json.loads(file.read_text(encoding="utf-8")))
        for file in files
    }


@cache
def _title(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return first.splitlines()[0].lstrip("# ")
