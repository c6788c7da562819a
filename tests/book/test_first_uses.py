"""The first use of a term on a page leads to the glossary, and nothing else does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import first_uses
from pruning_core.version import REPOSITORY

BOOK = REPOSITORY / "book"
PAGE = """# A mask and its budget

Masks hold *sparsity*, and a mask holds it again. No {term}`budget` is linked twice; budgets are not.

A site, which supports its maskers, has iterative magnitude pruning. Fine-tuning: `penalty` and $penalty$.

| schedule |
|---|
| schedule |

A penalty, [a schedule](https://example.org), and the Hessian. Rows of hessian do not count.
"""
TERMS = [
    "budget", "fine-tuning", "Hessian", "iterative magnitude pruning", "magnitude pruning", "mask", "penalty", "schedule",
    "site", "sparsity", "support",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    book = tmp_path_factory.mktemp("book")
    ext = str(BOOK / "_ext")
    conf = f'import sys\nsys.path.insert(0, {ext!r})\nextensions = ["myst_parser", "first_uses"]\n'
    (book / "conf.py").write_text(conf + 'myst_enable_extensions = ["dollarmath"]\n', encoding="utf-8")
    entries = "\n\n".join(f"{term}\n  The penalty of a word." for term in TERMS)
    (book / "glossary.md").write_text(f"# Glossary\n\n```{{glossary}}\n{entries}\n```\n", encoding="utf-8")
    (book / "index.md").write_text(PAGE + "\n```{toctree}\nglossary\n```\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-b", "html", str(book), str(book / "site")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "first-use" not in (book / "site" / "glossary.html").read_text(encoding="utf-8")
    return (book / "site" / "index.html").read_text(encoding="utf-8")


def linked(page: str) -> list[str]:
    return re.findall(
        r'<a class="reference internal" href="glossary.html#term-[^"]+"><span class="[^"]*first-use">(.*?)</span>', page
    )


def test_each_term_is_linked_once_where_it_is_first_used(page):
    assert linked(page) == ["Masks", "sparsity", "iterative magnitude pruning", "Fine-tuning", "penalty", "Hessian"]


def test_the_link_leads_to_the_entry(page):
    assert 'href="glossary.html#term-mask"><span class="xref std std-term first-use">Masks</span>' in page
    assert '<a class="reference internal" href="glossary.html#term-penalty">' in page


def test_the_glossary_of_the_book_is_read_and_its_everyday_words_are_in_it():
    names = first_uses.terms((BOOK / "glossary.md").read_text(encoding="utf-8"))
    assert {"mask", "sparsity", "Lanczos method"} <= set(names) and len(names) == len(set(names)) > 70
    assert set(names) >= first_uses.EVERYDAY
    for name in names:
        assert first_uses.pattern(names).fullmatch(name).group() == name


@pytest.mark.parametrize(("words", "term"), [("Ritz values", "Ritz value"), ("penalties", "penalty"), ("Losses", None)])
def test_plurals_are_uses_too(words, term):
    names = ["Ritz value", "penalty", "mask"]
    found = first_uses.pattern(names).fullmatch(words)
    assert (names[int(found.lastgroup[1:])] if found else None) == term


def test_the_site_has_the_extension_and_a_style_for_it():
    assert "first_uses: _ext" in (BOOK / "_config.yml").read_text(encoding="utf-8")
    assert ".first-use" in Path(BOOK / "_assets" / "book.css").read_text(encoding="utf-8")
