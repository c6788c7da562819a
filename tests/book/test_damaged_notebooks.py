"""Notebooks that are none: each damage is told in one sentence that says what to do, before any notebook of the book runs."""

import copy
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pruning_core.book import chapters, stored
from pruning_core.book.claims import page
from pruning_core.book.notebooks import run_notebook, stamp_of
from pruning_core.commands import main
from pruning_core.errors import BadInput

WHOLE: dict[str, Any] = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A\n", "page"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "source": "profile = 'quick'", "outputs": [],
         "execution_count": None},
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip


def changed(change: Callable[[Any], Any]) -> bytes:
    notebook = copy.deepcopy(WHOLE)
    change(notebook)
    return json.dumps(notebook).encode()


# What lies in the notebook's place -> words of the message. All of them come from hands, merges, other tools and dying disks.
CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no JSON, from line 1"),
    "no JSON": (b"<<<<<<< HEAD\n{}", "no JSON"),
    "cut off": (json.dumps(WHOLE, indent=1).encode()[:-9], "no JSON, from line"),
    "binary": (b"\x89PNG\r\n\xff\xfe", "no text in UTF-8"),
    "nested without end": (b"[" * 100_000, "no JSON"),
    "a list": (b"[]", "no JSON object"),
    "a number": (b"3", "no JSON object"),
    "nothing in it": (b"{}", "notebook format None, not 4: open it in JupyterLab and save it"),
    "format 3": (changed(lambda n: n.update(nbformat=3)), "notebook format 3, not 4"),
    "format 99": (changed(lambda n: n.update(nbformat=99)), "notebook format 99, not 4"),
    "a format with a point": (changed(lambda n: n.update(nbformat=4.0)), r"notebook format 4\.0, not 4"),
    "a format that is a list": (changed(lambda n: n.update(nbformat=[4])), r"notebook format \[4\], not 4"),
    "a minor version with a point": (changed(lambda n: n.update(nbformat_minor=5.0)), "no minor version"),
    "a minor version that is true": (changed(lambda n: n.update(nbformat_minor=True)), "no minor version"),
    "a minor version below 0": (changed(lambda n: n.update(nbformat_minor=-1)), "No schema for validating"),
    "cells that are null": (changed(lambda n: n.update(cells=None)), "no list of cells"),
    "metadata that are a list": (changed(lambda n: n.update(metadata=[])), "not of type 'object'"),
    "a field of its own": (changed(lambda n: n.update(extra=3)), "Additional properties"),
    "a kernel that is a number": (changed(lambda n: n["metadata"].update(kernelspec=3)), "at metadata.kernelspec"),
    "a kind that is a number": (changed(lambda n: n["cells"][1].update(cell_type=3)), "none that the format knows"),
    "a kind that is a list": (changed(lambda n: n["cells"][1].update(cell_type=["code"])), "none that the format knows"),
    "a format in words": (changed(lambda n: n.update(nbformat="4")), "notebook format '4', not 4"),
    "a minor version in words": (changed(lambda n: n.update(nbformat_minor="5")), "no minor version"),
    "no minor version": (changed(lambda n: n.pop("nbformat_minor")), "no minor version"),
    "no cells": (changed(lambda n: n.pop("cells")), "no list of cells"),
    "cells that are no list": (changed(lambda n: n.update(cells={})), "no list of cells"),
    "a cell that is none": (changed(lambda n: n["cells"].append(3)), "at cells.2"),
    "a cell of no known kind": (changed(lambda n: n["cells"][1].update(cell_type="x")), "none that the format knows"),
    "a cell without source": (changed(lambda n: n["cells"][1].pop("source")), "'source' is a required property"),
    "a cell without name": (changed(lambda n: n["cells"][1].pop("id")), "'id' is a required property"),
    "an id twice": (changed(lambda n: n["cells"][1].update(id="a")), "2 of its cells have the id 'a'"),
    "an id that is a list": (changed(lambda n: n["cells"][1].update(id=[1])), "not of type 'string'"),
    "tags that are no list": (changed(lambda n: n["cells"][1]["metadata"].update(tags=3)), "not of type 'array'"),
    "no metadata": (changed(lambda n: n.pop("metadata")), "'metadata' is a required property"),
    "no parameters": (changed(lambda n: n["cells"].pop()), "no cell tagged 'parameters' .*: tag its first cell of code so"),
}  # fmt: skip
PLACES = ["a folder", "a pipe", "a socket", "a device", "a dangling link", "not there", "closed", "huge"]


def put(kind: str, path: Path) -> str:
    """Put something that is no notebook at ``path``; a pattern of its message."""
    path.unlink(missing_ok=True)
    match kind:
        case "a folder":
            path.mkdir()
            return "it is a folder"
        case "a pipe":
            os.mkfifo(path)
            return "no regular file"
        case "a socket":
            here = Path.cwd()
            os.chdir(path.parent)  # the name of a socket may have a hundred letters
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
            os.chdir(here)
            return "cannot be read"
        case "a device":
            path.symlink_to("/dev/zero")
            return "no regular file"
        case "a dangling link":
            path.symlink_to("nowhere")
            return "there is no notebook"
        case "not there":
            return "there is no notebook"
        case "closed":
            path.write_bytes(b"{}")
            path.chmod(0)
            return "Permission denied"
        case "huge":
            with open(path, "wb") as file:
                file.truncate(stored.LARGEST + 1)
            return "at most 50,000,000 are read"
    content, message = CONTENTS[kind]
    path.write_bytes(content)
    return message


@pytest.fixture
def nobody():
    """Somebody who is not root, for whom no file would be closed."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    chapter = tmp_path / "notebooks" / "9_test"
    chapter.mkdir(parents=True)
    for stem in ("1_first", "2_second"):
        (chapter / f"{stem}.ipynb").write_text(json.dumps(WHOLE))
    (chapter / "profiles.yml").write_text("quick: {1_first: {}, 2_second: {}}")
    return tmp_path


@pytest.mark.parametrize("kind", [*CONTENTS, *PLACES])
def test_each_way_in_refuses_what_is_no_notebook(kind, book, monkeypatch, request, capsys):
    sources, damaged = book / "notebooks", book / "notebooks" / "9_test" / "2_second.ipynb"
    message = put(kind, damaged)
    whole = [sources / "9_test" / "1_first.ipynb", damaged]
    if kind == "closed":
        for folder in (book, *book.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o055)
        request.getfixturevalue("nobody")
    ways: dict[str, Callable[[], Any]] = {
        "run": lambda: run_notebook(damaged),
        "run all": lambda: chapters.run_notebooks(whole, executed=book / "executed"),
    }
    if "parameters" not in kind:
        ways |= {
            "stamp": lambda: stamp_of(damaged, "quick"),
            "stripped": lambda: chapters.unstripped(damaged),
            "gaps": lambda: (
                [stored.stored_notebook(path) for path in whole] and chapters.fill_gaps(sources, book / "executed")
            ),
        }
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: pytest.fail("a notebook has begun"))
    for name, way in ways.items():
        with pytest.raises(BadInput, match=message) as caught:
            way()
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 1000
        assert str(damaged) in str(caught.value)
    assert not (book / "executed").exists()


@pytest.mark.parametrize("line", ["notebooks --check-stripped", "notebooks --profile quick", "page 9_test/1"])
def test_the_commands_refuse_before_they_begin(line, book, monkeypatch, capsys):
    (book / "notebooks" / "9_test" / "2_second.ipynb").write_text("{")
    found = chapters.find_notebooks
    monkeypatch.setattr(chapters, "find_notebooks", lambda names=(): found(names, book / "notebooks"))
    monkeypatch.setattr(chapters, "remove_strays", lambda: None)
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: pytest.fail("a notebook has begun"))
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "2_second.ipynb is no notebook" in printed.err


def test_a_damaged_executed_copy_is_a_gap(book):
    copy_of_first = book / "executed" / "9_test" / "1_first.ipynb"
    copy_of_first.parent.mkdir(parents=True)
    copy_of_first.write_text("{")
    assert [p.stem for p in chapters.fill_gaps(book / "notebooks", book / "executed")] == ["1_first", "2_second"]
    assert json.loads(copy_of_first.read_text()) == WHOLE


def test_the_scoreboard_links_into_notebooks_that_are_whole(book, monkeypatch):
    monkeypatch.setattr(page, "REPOSITORY", book)
    assert page._link("9_test/1_first") == '<a href="notebooks/9_test/1_first.html#a">9_test/1_first</a>'
    (book / "notebooks" / "9_test" / "2_second.ipynb").write_text("{")
    with pytest.raises(BadInput, match="no JSON"):
        page._link("9_test/2_second")
