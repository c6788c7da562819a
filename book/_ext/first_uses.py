"""Sphinx extension: the first use of a term of the glossary on a page links to it, without being marked by hand.

Running text only: no headings, code, formulas, links, tables or captions. A term that the author has linked on the page is
left to the author.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "glossary"
SKIPPED = ("api/", GLOSSARY, "bibliography", "genindex", "search", "scoreboard", "concordance")
"""Pages, or beginnings of them, that name terms without explaining anything with them."""
EVERYDAY = {"density", "importance", "residual", "sensitivity", "site", "support"}
"""Terms that the text also uses in another sense (a site on the web, rows that support a sentence): linked by hand only."""
CLOSED = (
    nodes.title, nodes.literal, nodes.reference, addnodes.pending_xref, nodes.math, nodes.math_block, nodes.raw, nodes.table,
    nodes.FixedTextElement, nodes.caption, nodes.term, nodes.rubric, nodes.legend, nodes.comment, addnodes.desc,
)  # fmt: skip


def terms(text: str) -> list[str]:
    """The terms of a page's glossary block, in its order."""
    (block,) = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S)
    return [line.strip() for line in block.splitlines() if line and not line.startswith(" ")]


def pattern(names: list[str]) -> re.Pattern[str]:
    """What a use of one of the terms looks like: the term or its plural, the longest that fits; sentences may begin with it."""
    words = []
    for name in sorted(names, key=lambda name: (-len(name), name)):
        first = f"[{name[0]}{name[0].upper()}]" if name[0].islower() else re.escape(name[0])
        rest = re.escape(name[1:]).replace(r"\ ", r"\s+")
        plural = f"{rest[:-1]}(?:y|ies)" if name.endswith("y") else f"{rest}(?:s|es)?"
        words.append(f"(?P<t{names.index(name)}>{first}{plural})")
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])")


def link(document: nodes.document, page: str, names: list[str]) -> Iterator[str]:
    """Put the links into a page's document; yield the terms that were linked."""
    linked = {
        ref["reftarget"].lower() for ref in document.findall(addnodes.pending_xref) if ref.get("reftype") == "term"
    }
    left = [name for name in names if name.lower() not in linked and name not in EVERYDAY]
    for text in list(document.findall(nodes.Text)):
        if not left:
            return
        if _closed(text):
            continue
        parts: list[nodes.Node] = []
        rest = str(text)
        while left and (found := pattern(left).search(rest)):
            (group,) = (name for name, value in found.groupdict().items() if value is not None)
            name = left.pop(int(group[1:]))
            parts += [nodes.Text(rest[: found.start()]), _reference(name, found.group(), page)]
            rest = rest[found.end() :]
            yield name
        if parts:
            text.parent.replace(text, [part for part in [*parts, nodes.Text(rest)] if part.astext()])


def _closed(text: nodes.Node) -> bool:
    """Whether nothing may be linked here: the text stands in no paragraph, or in something closed."""
    above, node = [], text.parent
    while node is not None:
        above.append(node)
        node = node.parent
    return not any(isinstance(node, nodes.paragraph) for node in above) or any(
        isinstance(node, CLOSED) for node in above
    )


def _reference(name: str, words: str, page: str) -> addnodes.pending_xref:
    where = {
        "refdomain": "std",
        "reftype": "term",
        "reftarget": name,
        "refexplicit": True,
        "refwarn": True,
        "refdoc": page,
    }
    shown = nodes.inline("", words, classes=["xref", "std", "std-term", "first-use"])
    return addnodes.pending_xref("", shown, **where)


def _read(app: Any, document: nodes.document) -> None:
    page = app.env.docname
    if not page.startswith(SKIPPED):
        list(link(document, page, app.config.glossary_terms))


def _configure(app: Any, config: Any) -> None:
    config.glossary_terms = terms((Path(app.srcdir) / f"{GLOSSARY}.md").read_text(encoding="utf-8"))


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx; a glossary with other terms makes every page anew."""
    app.add_config_value("glossary_terms", [], "env")
    app.connect("config-inited", _configure)
    app.connect("doctree-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
