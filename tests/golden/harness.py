"""Golden files: found by folder, checked by the longest known prefix of their name, every field read, never in silence."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

Check = Callable[[Mapping[str, np.ndarray]], None]
COMPARISONS = ("assert_allclose", "assert_array_equal", "assert_equal")
STATISTICS_OF_NORMS = r"(.*\W)?(running_mean|running_var|num_batches_tracked)"
"""Entries of a state dict that no weight's score, mask or penalty depends on."""


class Recorded(Mapping[str, np.ndarray]):
    """The arrays of a file, which remember the names that a check has looked at.

    To ask whether a name is there is not to look at it. Running over all values at once would hide what is compared with
    nothing, so a check names its fields.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = dict(arrays)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._arrays[name]
        self.read.add(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def items(self):
        raise TypeError("a check reads its fields by name, not all of them at once.")

    values = items


def files(paper: str) -> list[Path]:
    """Every golden file of a paper, below $PRUNING_GOLDEN (default: this folder)."""
    root = Path(os.environ.get("PRUNING_GOLDEN") or Path(__file__).parent)
    return sorted((root / paper).rglob("*.npz"))


def prefix_of(path: Path, known: Mapping[str, object]) -> str | None:
    """The longest known prefix of the file's name, leading digits and underscores ignored."""
    name = re.sub(r"^[\d_]+", "", path.stem)
    fitting = [prefix for prefix in known if name.startswith(prefix)]
    return max(fitting, key=len, default=None)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def run(name: str, arrays: Mapping[str, np.ndarray], checked: Check, unread: tuple[str, ...] = ()) -> None:
    """Run a check; fail when it compares nothing, skips, or leaves a field unread that no pattern of ``unread`` names."""
    recorded = Recorded(arrays)
    compared = 0

    def counting(comparison: Callable) -> Callable:
        def compare(actual, desired, *args, **options) -> None:
            nonlocal compared
            comparison(actual, desired, *args, **options)
            compared += np.asarray(desired).size

        return compare

    counters = {comparison: counting(getattr(np.testing, comparison)) for comparison in COMPARISONS}
    with mock.patch.multiple(np.testing, **counters):
        try:
            checked(recorded)
        except pytest.skip.Exception as skipped:
            pytest.fail(f"{name}: a golden file is never skipped ({skipped})")
    forgotten = sorted(key for key in set(arrays) - recorded.read if not is_unread(key, unread))
    if forgotten:
        pytest.fail(f"{name}: no check looked at {', '.join(forgotten)}")
    if not compared:
        pytest.fail(f"{name}: the check compared nothing with the file")


def is_unread(key: str, unread: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in unread)


def check(
    paper: str, path: Path | None, checks: Mapping[str, Check], unread: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    """Run the file's check; fail for a name that nobody knows. ``unread``: what each prefix may leave unread (patterns)."""
    if path is None:
        pytest.fail(f"no golden file of {paper} was found; set PRUNING_GOLDEN to the folder that holds {paper}/*.npz")
    prefix = prefix_of(path, checks)
    if prefix is None:
        pytest.fail(f"{path.name}: no check is known for this name")
    run(path.name, arrays_of(path), checks[prefix], (unread or {}).get(prefix, ()))


def parameters(paper: str):
    """The files of a paper as parameters of a test; a missing folder is one parameter that fails."""
    found = files(paper)
    return pytest.mark.parametrize("path", found or [None], ids=[path.stem for path in found] or ["no files"])
