"""Golden files: found by folder, checked by the longest known prefix of their name, never passed over in silence."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

Check = Callable[[Mapping[str, np.ndarray]], None]


def files(paper: str) -> list[Path]:
    """Every golden file of a paper, below $PRUNING_GOLDEN (default: this folder)."""
    root = Path(os.environ.get("PRUNING_GOLDEN") or Path(__file__).parent)
    return sorted((root / paper).rglob("*.npz"))


def prefix_of(path: Path, known: Mapping[str, object]) -> str | None:
    """The longest known prefix of the file's name, leading digits and underscores ignored."""
    name = re.sub(r"^[\d_]+", "", path.stem)
    fitting = [prefix for prefix in known if name.startswith(prefix)]
    return max(fitting, key=len, default=None)


def check(paper: str, path: Path | None, checks: Mapping[str, Check]) -> None:
    """Run the file's check; fail for a name that nobody knows."""
    if path is None:
        pytest.fail(f"no golden file of {paper} was found; set PRUNING_GOLDEN to the folder that holds {paper}/*.npz")
    prefix = prefix_of(path, checks)
    if prefix is None:
        pytest.fail(f"{path.name}: no check is known for this name")
    with np.load(path, allow_pickle=False) as arrays:
        checks[prefix]({name: arrays[name] for name in arrays.files})


def parameters(paper: str):
    """The files of a paper as parameters of a test; a missing folder is one parameter that fails."""
    found = files(paper)
    return pytest.mark.parametrize("path", found or [None], ids=[path.stem for path in found] or ["no files"])
