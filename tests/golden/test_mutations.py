"""A golden check fails when any field of its file holds another value: no field is there for nothing.

One value of one field is changed at a time, in several places, since an entry may be without consequence where its
neighbour is not: a weight of a filter that is cut, a point far inside a bin. Fields that no stored number depends on are
named below with the reason; they are few.
"""

import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pruning_core.training.attacks import attack
from tests.golden.forms import FORMS
from tests.golden.harness import Check, arrays_of, files, is_unread, prefix_of, run
from tests.golden.variations import VARIATIONS

PAPERS = {
    paper: import_module(f"tests.golden.test_{paper}")
    for paper in ("how_sparse", "ispasp", "rni", "sipp_pfp", "snipit")
}
MADE = FORMS | VARIATIONS
LABELS = ("y",)  # of methods that look at no labels: only their range is checked
IDLE: dict[str, tuple[str, ...]] = {
    "adversarial": (r"param/(?!layers\.0\.weight).*",),  # of 25 tensors one is tried: each takes the attacks seconds
    "basic_block": ("bs",),  # the size of batches matters where a norm works by batch
    "inverted_residual": ("bs",),
    "sens_linear": ("bias",),  # sensitivities are those of weights
    "sens_conv": ("bias",),
    "base_wt": LABELS,
    "base_ft": (*LABELS, r"sd\..*num_batches_tracked"),
    "base_soft": (*LABELS, r"sd\..*num_batches_tracked"),
    "sipp_det": LABELS,
    "pfp_det": LABELS,
    "pfp_top_split": (r"b\d+",),  # shifts of outputs that nothing reads
    "sipp_rand_alloc": (r"b\d+",),
    "polarization": ("hist_gamma",),  # one of 420 values moves no threshold; all together do (below)
    "snip": (r"init/.*num_batches_tracked",),
    # Magnitudes are those of weights, norms are not cut, and no output is stored.
    "imp": (r"init/.*(bias|running_\w+|num_batches_tracked)", r"init/(layers\.(1|5|9|13)|conv\.(1|5)|fc\.1)\.weight"),
    # A norm in training mode takes out what the layer in front adds, and has statistics of the batch.
    "gate_decorators": (r"init/.*running_\w+", r"init/layers\.\d+\.bias"),
    # Counts are those of weights; slopes of the picture depend on shifts only where an activation changes its sign.
    "statistics": (r"masked/.*(bias|running_\w+|layers\.[14]\.weight)", r"sal/init/.*(bias|running_mean)"),
}
COSTLY = {"adversarial": ("success/CarliniWagner",)}
"""Fields that take many seconds to check."""
SLOW = (
    "adversarial", "hvp", "l1_training", "mobilenetv2_cost", "network_counts", "pfp", "pipeline", "resnet34_cost", "sizes",
    "sipp_rand_alloc", "snapit", "base_ft_resnet",
)  # fmt: skip
"""Files that take seconds to check, which the fast tests leave out."""


def cases() -> list[tuple[str, str, object]]:
    """(paper, name, arrays or the path of a file): all official files, one of each form that has none, other variations."""
    found = [(paper, path.stem, path) for paper in PAPERS for path in files(paper)]
    return found + [(paper, name, make) for (paper, name), make in MADE.items()]


def opened(paper: str, name: str, source) -> tuple[str, dict[str, np.ndarray], Check, tuple[str, ...]]:
    module = PAPERS[paper]
    prefix = prefix_of(Path(name), module.CHECKS)
    assert prefix is not None
    arrays = arrays_of(source) if isinstance(source, Path) else source()
    return prefix, arrays, module.CHECKS[prefix], getattr(module, "UNREAD", {}).get(prefix, ())


def changed(array: np.ndarray, place: int, much: int = 1) -> np.ndarray:
    """The array with another value in one place: a flag turned over, a word longer, a number clearly larger.

    ``much`` is larger where a README grants a number one more or less.
    """
    if not array.size:
        return np.ones(1, array.dtype)
    new = array.astype(f"<U{array.dtype.itemsize // 4 + 1}") if array.dtype.kind == "U" else array.copy()
    flat, old = new.reshape(-1), array.reshape(-1)[place]
    if array.dtype.kind == "U":
        flat[place] = f"{old}x"
    elif array.dtype.kind in "bui" and set(np.unique(array)) <= {0, 1}:
        flat[place] = not old
    elif array.dtype.kind in "ui":
        flat[place] = old + much * (1 + abs(int(old)) // 7)
    else:
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0))
        flat[place] = (old if np.isfinite(old) else 0) + much * (0.5 + largest / 2)
    return flat.reshape(array.shape)


def places(name: str, array: np.ndarray, most: int = 8) -> list[int]:
    """Some entries of the array, always the same ones: the first, the last, and others between them."""
    seed = np.random.default_rng(zlib.crc32(name.encode()))
    ends = [0, max(array.size - 1, 0)]
    return list(dict.fromkeys([*ends, *seed.integers(0, max(array.size, 1), most).tolist()]))[: max(array.size, 1)]


def mutations(field: str, array: np.ndarray) -> Iterator[np.ndarray]:
    """The array with another value in one place, time and again: first in a few places, then in many.

    In the end numbers become smaller as well: noise on a weight that stays must take it below the threshold to be seen.
    """
    for much in (1, 3):
        yield from (changed(array, place, much) for place in places(field, array))
    if array.dtype.kind == "f":
        yield from (changed(array, place, much) for place in places(field, array, 64) for much in (-1, 1))


def noticed(name: str, arrays, check: Check, unread: tuple[str, ...], field: str, new: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        try:
            run(name, arrays | {field: new}, check, unread)
        except (Exception, pytest.fail.Exception):
            return True
    return False


def is_hollow(name: str, prefix: str, arrays, check: Check, unread: tuple[str, ...], field: str) -> bool:
    """Whether no other value of a field is noticed.

    What is noticed without the fields that take long to check is noticed with them as well, so they come second.
    """
    costly = [other for other in COSTLY.get(prefix, ()) if other in arrays and other != field]
    lighter = {other: array for other, array in arrays.items() if other not in costly}
    return not any(
        noticed(name, part, check, unread, field, new)
        for part in ([lighter, arrays] if costly else [arrays])
        for new in mutations(field, arrays[field])
    )


def fields_of(prefix: str, arrays, unread: tuple[str, ...]) -> list[str]:
    return [field for field in arrays if not is_unread(field, (*unread, *IDLE.get(prefix, ())))]


@pytest.fixture(autouse=True)
def _each_attack_once(monkeypatch):
    """An attack on the same network and images, at the same strengths, ends in the same way, and takes seconds: where only
    what the file says of its success is changed, it is not repeated."""
    known: dict[tuple, object] = {}

    def remembered(model, x, y, name, **options):
        parts = [*model.state_dict().values(), x, y]
        key = (name, repr(sorted(options.items())), *(hash(part.numpy().tobytes()) for part in parts))
        if key not in known:
            known[key] = attack(model, x, y, name, **options)
        return known[key]

    monkeypatch.setattr("tests.golden.snipit.attacks.attack", remembered)


CASES = cases()
NAMES = [f"{paper}/{name}" for paper, name, _ in CASES]
QUICK = [case for case in CASES if not case[1].lstrip("0123456789_").startswith(SLOW)]


@pytest.mark.parametrize(("paper", "name", "source"), QUICK, ids=[f"{paper}/{name}" for paper, name, _ in QUICK])
def test_a_changed_field_is_noticed(paper, name, source):
    """Two fields of every file that is quick to check, always the same ones."""
    prefix, arrays, check, unread = opened(paper, name, source)
    fields = sorted(fields_of(prefix, arrays, unread), key=lambda field: zlib.crc32(f"{name}{field}".encode()))[:2]
    for field in fields:
        assert not is_hollow(name, prefix, arrays, check, unread, field), field


@pytest.mark.slow
@pytest.mark.parametrize(("paper", "name", "source"), CASES, ids=NAMES)
def test_every_changed_field_is_noticed(paper, name, source):
    prefix, arrays, check, unread = opened(paper, name, source)
    fields = fields_of(prefix, arrays, unread)
    hollow = [field for field in fields if is_hollow(name, prefix, arrays, check, unread, field)]
    assert not hollow


def test_all_scales_of_a_histogram_together_are_noticed():
    (path,) = (path for path in files("rni") if path.stem.startswith("polarization"))
    prefix, arrays, check, unread = opened("rni", path.stem, path)
    assert noticed(prefix, arrays, check, unread, "hist_gamma", 1 - arrays["hist_gamma"])


@pytest.mark.parametrize(("paper", "name"), MADE, ids=[f"{paper}/{name}" for paper, name in MADE])
def test_what_no_file_here_holds_passes_too(paper, name):
    """Forms of which there is no official file, and files of the known kinds with other sizes, settings, types."""
    _, arrays, check, unread = opened(paper, name, MADE[paper, name])
    run(name, arrays, check, unread)


def test_the_hybrid_reads_files_of_the_random_variant():
    (path,) = (path for path in files("sipp_pfp") if path.stem.startswith("sipp_rand_alloc"))
    run("sipp_hybrid", arrays_of(path), PAPERS["sipp_pfp"].CHECKS["sipp_hybrid"])
