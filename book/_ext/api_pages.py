"""Write one reference page for each module of pruning_core: book/api/*.md, filled by Sphinx from the docstrings."""

import ast
import re
import shutil
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
PAGES = BOOK / "api"
PACKAGE = BOOK.parent / "pruning_core"

# The order of the house: from values up to experiments; modules that are not named come last.
FLOORS = {
    "The public face": ["pruning", "methods", "experiment", "recipes", "timeline"],
    "Values": [
        "masks",
        "scores",
        "schedules",
        "budgets",
        "groups",
        "discovery",
        "layers",
        "records",
        "errors",
    ],
    "Data and models": ["data", "models"],
    "Training and measuring": ["optimizers", "training", "checkpoints", "measure"],
    "Looking inside": ["sensitivity", "robustness", "observers"],
    "The five papers": ["papers"],
    "The book's own tools": ["claims", "plots", "notebooks", "chapters", "exercises"],
}


def _modules() -> dict[str, list[str]]:
    """Floor -> the modules that exist; everything that no floor names goes to the last one."""
    found = {path.stem for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/")] if path.stem.isidentifier()}
    found = {name for name in found if not name.startswith("__") and _parts(name)}
    rest = sorted(found - {name for names in FLOORS.values() for name in names})
    floors = {title: [name for name in names if name in found] for title, names in FLOORS.items()}
    floors[list(FLOORS)[-1]] += rest
    return {title: names for title, names in floors.items() if names}


def _parts(name: str) -> dict[str, Path]:
    """The module, or the package and each module in it, with their files."""
    if (file := PACKAGE / f"{name}.py").is_file():
        return {name: file}
    files = sorted((PACKAGE / name).rglob("*.py"), key=lambda file: (file.parent, file.stem != "__init__", file))
    dotted = {file: ".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files}
    return {dotted[file].removesuffix(".__init__"): file for file in files}


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
    floors = _modules()
    pages = {name: _page(name) for names in floors.values() for name in names}
    lines = ["# Reference", "", "Made from the docstrings of `pruning_core`, floor by floor.", ""]
    for title, names in floors.items():
        lines += [f"## {title}", "", "| module | what it is for |", "|---|---|"]
        lines += [f"| [{name}]({name}.md) | {_purpose(name)} |" for name in names] + [""]
    pages["index"] = "\n".join(lines)
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
