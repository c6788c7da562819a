"""Write one reference page for each module of pruning_core: book/api/<room>/*.md, filled by Sphinx from the docstrings."""

import ast
import re
import shutil
import tomllib
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
PAGES = BOOK / "api"
PACKAGE = BOOK.parent / "pruning_core"


def rooms() -> list[str]:
    """Rooms and single modules, from the front of the house down: floor by floor of the import contract, then by name."""
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (floors,) = (c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    names = [name for floor in floors for name in sorted(re.findall(r"\w+", floor))]
    return [name for name in names if not name.startswith("__") and _modules(name)]


def _modules(room: str) -> dict[str, Path]:
    """Dotted name below pruning_core -> file, of the single module, or of the room and everything in it."""
    if (file := PACKAGE / f"{room}.py").is_file():
        return {room: file}
    files = sorted((PACKAGE / room).rglob("*.py"))
    names = (".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def _place(room: str, module: str) -> str:
    """The page of a module, without its ending, seen from the folder of all pages."""
    return module if module == room else f"{room}/{module.removeprefix(room + '.')}"


def _page(room: str, module: str) -> str:
    # Without ignore-module-all the face of a room would list again what its files define.
    text = (
        f"# {module}\n\n```{{eval-rst}}\n.. automodule:: pruning_core.{module}\n   :members:\n   :ignore-module-all:\n"
        "   :member-order: bysource\n```\n"
    )
    inside = {name: file for name, file in _modules(room).items() if name != room}
    return text + "\n" + _table(inside, room) if inside and module == room else text


def _table(modules: dict[str, Path], room: str = "") -> str:
    rows = [f"| [{name}]({_place(room or name, name)}.md) | {_purpose(file)} |" for name, file in modules.items()]
    return "\n".join(["| module | what it is for |", "|---|---|", *rows, ""])


def _purpose(file: Path) -> str:
    """The first paragraph of the module's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split("\n\n")[0].split()))
    return "".join(re.sub(r"([|*_$<{\[])", r"\\\1", p) if k % 2 == 0 else p for k, p in enumerate(parts))


def pages() -> dict[str, str]:
    """Page -> its text: the index, one of each room with the list of its modules, one of each module."""
    fronts = {room: next(iter(_modules(room).values())) for room in rooms()}
    head = "# Reference\n\nMade from the docstrings of `pruning_core`; a room imports only from the rooms below it.\n\n"
    made = {_place(room, module): _page(room, module) for room in fronts for module in _modules(room)}
    return {"index": head + _table(fronts)} | made


def write(folder: Path = PAGES) -> None:
    """(Re)write the pages that changed and remove those whose module is gone."""
    texts = {folder / f"{name}.md": text for name, text in pages().items()}
    for stray in set(folder.rglob("*.md")) - set(texts):
        stray.unlink()
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # untouched pages are not built again
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    shutil.rmtree(PAGES, ignore_errors=True)
    write()
