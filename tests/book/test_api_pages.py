"""The reference: every module of the package has one page, in its room, in the order of the import contract."""

import importlib.util
import re
from pathlib import Path

import yaml

BOOK = Path(__file__).parents[2] / "book"
PACKAGE = BOOK.parent / "pruning_core"


def api_pages():
    spec = importlib.util.spec_from_file_location("api_pages", BOOK / "_ext" / "api_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_has_one_page():
    pages = api_pages().pages()
    documented = [name for text in pages.values() for name in re.findall(r"automodule:: (\S+)", text)]
    files = [file.relative_to(BOOK.parent).with_suffix("") for file in PACKAGE.rglob("*.py")]
    modules = [".".join(file.parts).removesuffix(".__init__") for file in files]
    assert sorted(documented) == sorted(set(modules) - {"pruning_core", "pruning_core.__main__"})


def test_links_lead_to_pages_and_the_contents_follow_the_contract():
    ext = api_pages()
    pages = ext.pages()
    assert {link for text in pages.values() for link in re.findall(r"\]\((\S+)\.md\)", text)} == set(pages) - {"index"}
    parts = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    (reference,) = [page for part in parts for page in part["chapters"] if page.get("file") == "api/index"]
    assert [page["file"] for page in reference["sections"]] == [f"api/{room}" for room in ext.rooms()]
    for page in reference["sections"]:
        globs = [section["glob"] for section in page.get("sections", [])]
        assert globs == ([f"{page['file']}/*"] if (PACKAGE / Path(page["file"]).name).is_dir() else [])


def test_pages_of_modules_that_are_gone_are_removed(tmp_path):
    ext = api_pages()
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "gone.md").write_text("old")
    ext.write(tmp_path)
    assert not (tmp_path / "records" / "gone.md").exists()
    assert (tmp_path / "records" / "files.md").read_text(encoding="utf-8") == ext.pages()["records/files"]
