"""Write one reference page for each module of pruning_core: book/api/*.md, filled by Sphinx from the docstrings."""

import ast
import re
import shutil
import tomllib
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
PAGES = BOOK / "api"
PACKAGE = BOOK.parent / "pruning_core"


def _modules() -> list[str]:
    """The modules, from the front of the house down: layer by layer of the import contract, in a layer by name."""
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    named = [name for layer in layers for name in sorted(re.findall(r"\w+", layer))]
    return [name for name in named if not name.startswith("__") and _parts(name)]


def _parts(name: str) -> dict[str, Path]:
    """The module, or the package and each module in it, with their files."""
    if (file := PACKAGE / f"{name}.py").is_file():
        return {name: file}
    files = sorted((PACKAGE / name).rglob("*.py"))
    parts = (file.relative_to(PACKAGE).with_suffix("").parts for file in files)
    return {".".join(part).removesuffix(".__init__"): file for part, file in zip(parts, files, strict=True)}


def _page(name: str) -> str:
    sections = [] if name in _parts(name) else [f"# {name}\n"]
    for part in _parts(name):
        heading = f"# {name}" if part == name else f"## {part}"
        sections.append(
            f"{heading}\n\n```{{eval-rst}}\n.. automodule:: pruning_core.{part}\n   :members:\n"
            "   :member-order: bysource\n```\n"
        )
    return "\n".join(sections)


def _purpose(name: str) -> str:
    """The first paragraph of the module's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(next(iter(_parts(name).values())).read_text(encoding="utf-8"))) or ""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split("\n\n")[0].split()))
    return "".join(re.sub(r"([|*_$<{\[])", r"\\\1", p) if k % 2 == 0 else p for k, p in enumerate(parts))


def write(folder: Path = PAGES) -> None:
    """(Re)write the pages that changed and remove those whose module is gone."""
    modules = _modules()
    pages = {name: _page(name) for name in modules}
    lines = [
        "# Reference",
        "",
        "Made from the docstrings of `pruning_core`; a module imports only what stands below it.",
        "",
    ]
    lines += ["| module | what it is for |", "|---|---|"]
    lines += [f"| [{name}]({name}.md) | {_purpose(name)} |" for name in modules]
    pages["index"] = "\n".join([*lines, ""])
    folder.mkdir(parents=True, exist_ok=True)
    for stray in set(folder.glob("*.md")) - {folder / f"{name}.md" for name in pages}:
        stray.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # untouched pages are not built again
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    shutil.rmtree(PAGES, ignore_errors=True)
    write()
