"""The house holds: few doors below the root, short files, thin faces, and nobody climbs in through a window."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pruning_core"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file())
FACES = sorted(PACKAGE / room / "__init__.py" for room in ROOMS)
PAPERS = sorted(face.parent.name for face in PACKAGE.glob("papers/*/__init__.py"))
DOORS = {
    "pruning_core",
    *(f"pruning_core.{room}" for room in ROOMS),
    *(f"pruning_core.papers.{paper}" for paper in PAPERS),
    "pruning_core.models.layers",
    "pruning_core.experiments.recipes",
}
READ_BY_ALL = [*ROOT.glob("notebooks/*/*.ipynb"), ROOT / "README.md", *ROOT.glob("book/*.md")]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def code_in(path: Path) -> str:
    """The Python of a notebook or of a page's code blocks, without what only IPython understands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    else:
        text = "\n".join(re.findall(r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```", text, re.M | re.S))
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines())


def imported(code: str) -> Iterator[str]:
    """The modules of the package that the code imports or imports from."""
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.split(".")[0] == "pruning_core")


def test_few_files_and_rooms_lie_below_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 9
    assert len([folder for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"]) <= 13


def test_no_file_is_long() -> None:
    assert {str(path.relative_to(ROOT)): lines(path) for path in FILES if lines(path) > 300} == {}


def test_the_face_of_a_room_is_thin() -> None:
    assert {str(path.relative_to(ROOT)): lines(path) for path in FACES if lines(path) > 40} == {}


@pytest.mark.parametrize("path", READ_BY_ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_readers_enter_through_the_doors(path: Path) -> None:
    assert set(imported(code_in(path))) - DOORS == set()


def test_no_import_is_relative() -> None:
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in FILES]
    assert [p for p, tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []


def test_every_folder_of_tests_is_a_room() -> None:
    others = {"benchmarks", "golden", "networks", "notebooks", "site"}
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")} - {Path(".")}
    assert [f for f in folders if f.parts[0] not in others and not (PACKAGE / f / "__init__.py").is_file()] == []


LATE = {"pandas", "scipy", "matplotlib", "torchvision", "torch_pruning", "torch._dynamo", "sklearn", "numba"}
STARTS: dict[str, tuple[set[str], str]] = {
    "import": (LATE, ""),
    "plots": ({"seaborn", "scipy", "torch._dynamo"}, "pc.plots"),
    "weights": (
        {"torch._dynamo", "torch._inductor", "scipy", "numba"},
        """
        pc.prune(pc.build_model("lenet300", "digits", seed=0), "magnitude", 0.9, example_input=torch.ones(1, 1, 8, 8))
        """,
    ),
    "channels": (
        {"torch._dynamo", "torch._inductor", "scipy", "numba"},
        """
        model, example = pc.build_model("lenet5", "mnist5k", seed=0), torch.ones(1, 1, 28, 28)
        pc.prune(model, "l1_norm", 0.5, across="layer", example_input=example).shrink()
        """,
    ),
}


@pytest.mark.parametrize(("absent", "program"), STARTS.values(), ids=STARTS)
def test_the_package_starts_without_what_only_some_of_it_needs(absent: set[str], program: str) -> None:
    program = f"import sys, torch, pruning_core as pc\n{dedent(program)}\nprint(sorted({absent} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr


def test_what_is_imported_late_is_listed_and_found() -> None:
    import pruning_core

    assert {"plots", "claims", "records", "recipes", *pruning_core.__all__} <= set(dir(pruning_core))
    assert callable(pruning_core.predict_limit)
    with pytest.raises(AttributeError, match="no attribute 'plot'"):
        pruning_core.plot  # noqa: B018
