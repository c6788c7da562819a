"""The pages "From the official code" name what exists: methods, networks, and objects of the package."""

import re
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import pruning_core as pc

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted(BOOK.glob("from_*.md"))
LISTED = {"method here": pc.METHODS, "network here": pc.MODELS}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Every table of a page: its head and its rows, as cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *rows = ([cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines())
        found.append((head, rows))
    return found


def test_there_is_one_a_system_and_it_stands_in_its_chapter():
    assert [page.stem for page in PAGES] == [
        "from_how_sparse",
        "from_ispasp",
        "from_rni",
        "from_sipp_pfp",
        "from_snipit",
    ]
    contents = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    assert all(f"- file: {page.stem}\n" in contents for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_it_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for head, rows in tables(text):
        for column, known in LISTED.items():
            if column in head:
                named = {word for row in rows for word in words(row[head.index(column)])}
                assert named
                assert named <= set(known)
        assert {len(row) for row in rows} == {len(head)}
    for path in re.findall(r"`(pruning_core(?:\.\w+)+)", text):
        room, _, name = path.rpartition(".")
        assert find_spec(path) if room.endswith(".papers") else hasattr(import_module(room), name), path
    for path in re.findall(r"`pc\.(\w+(?:\.\w+)*)", text):
        reduce(getattr, path.split("."), pc)


def test_the_example_of_rni_runs(empty_cache, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (BOOK / "from_rni.md").read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(code, "from_rni.md", "exec"), {})
    assert "features" in capsys.readouterr().out
