"""Golden files of SiPP and PFP that need no network: kept fractions, learning rates, commensurate accuracy."""

import math

import numpy as np

from pruning_core.papers.sipp_pfp.commensurate import commensurate
from pruning_core.papers.sipp_pfp.parameter_files import (
    PARAMETER_FILES,
    kept_fractions,
    retrained,
    warm_up_and_cool_down,
)
from pruning_core.papers.sipp_pfp.spacings import SPACINGS, compressed_before, harmonic, in_groups, linear
from pruning_core.training.optimizers import LearningRate
from tests.golden.harness import Check

EPOCHS = 12
# letter -> milestones and warm-up, learning rate, lines of a cool-down that moves the momentum, as the README of the
# golden files says; the momentum is 0.9.
RATES = {
    "a": (LearningRate("multistep", warmup=3, milestones=(6, 9), gamma=0.1), 0.1, None),
    "b": (LearningRate("multistep", milestones=(10,), gamma=0.2), 0.05, {"warmup": 2, "cooldown": 5, "shift": 0.05}),
    "c": (LearningRate("multistep", milestones=(3, 6), gamma=0.5), 0.01, None),
}
ARE = {
    "e_best": lambda found: found.error,
    "siz_best": lambda found: found.size,
    "e5_best": lambda found: found.measures[0],
    "lo_best": lambda found: found.measures[1],
    "flo_best": lambda found: found.costs[0],
}


def keep_ratio_schedules(z):
    names = {key.rpartition(".")[0] for key in z}
    assert names
    for name in names:
        ours = name.removeprefix("paper.").replace(".", "/").replace("/param/", "/")
        assert ours in PARAMETER_FILES
        every, last = kept_fractions(ours), retrained(ours)
        np.testing.assert_allclose(every, z[f"{name}.all"], rtol=1e-12)
        np.testing.assert_allclose(last, z[f"{name}.retrain"], rtol=1e-12)
        sizes = [len(group) for group in in_groups(every, PARAMETER_FILES[ours].retrained)]
        np.testing.assert_array_equal(sizes, z[f"{name}.group_sizes"])


def schedules_misc(z):
    checked = set()
    for kind in ("geometric", "linear", "cubic", "harmonic2"):
        for key in _numbered(z, kind):
            stored = z[key]
            np.testing.assert_allclose(SPACINGS[kind](len(stored), stored[0], stored[-1]), stored, rtol=1e-9)
            checked.add(key)
    for key in _numbered(z, "harmonic"):
        _harmonic(z[key])
        checked.add(key)
    for key in (key for key in z if key.startswith("split_") and "_pre" not in key):
        _split(key, z)
        checked |= {key, *_before(key, z)}
    for key in (key for key in z if key.startswith("lr_")):
        _rates(*RATES[key.removeprefix("lr_")], z[key])
        checked.add(key)
    assert checked == set(z), f"no check is known for {sorted(set(z) - checked)}"


def commensurate_file(z):
    found = commensurate(
        z["error"], z["sizes"], measures=(z["error5"], z["loss"]), costs=(z["flops"],), levels=z["commensurate"]
    )
    for key, ours in ARE.items():
        np.testing.assert_array_equal(ours(found), z[key])


def _numbered(z, kind):
    """The arrays called ``kind``, ``kind_0``, ``kind_1``, ..."""
    return [key for key in z if key == kind or (key.startswith(f"{kind}_") and key[len(kind) + 1 :].isdigit())]


def _harmonic(stored):
    """Neither number of intervals nor smallest fraction is stored: the first fraction tells one, the length the other."""
    power = -math.log2(stored[0])
    n = 2 ** (1 / power) - 1
    n = float(round(n, 9)) if abs(n - round(n, 9)) < 1e-12 else n
    np.testing.assert_allclose(harmonic(n, (len(stored) + 0.5) ** -power), stored, rtol=1e-9)
    if n == 3 and len(stored) == 399:  # 0.05 ** -2 is a rounding error below 400
        np.testing.assert_allclose(harmonic(3, 0.05), stored, rtol=1e-9)


def _before(key, z):
    return [f"{key}_pre{i}" for i in range(len(z[key]))]


def _split(key, z):
    """The stored groups put together again must be split into the same ones."""
    last, before = z[key].tolist(), [z[name].tolist() for name in _before(key, z)]
    mode = key.removeprefix("split_").replace("_", "-")
    cascade = mode.startswith("cascade")
    every = []
    for i, (fraction, compressed) in enumerate(zip(last, before, strict=True)):
        seen = 0 if cascade or i == 0 else len(before[i - 1])
        every += [*compressed[seen:], fraction]
    np.testing.assert_array_equal([group[-1] for group in in_groups(every, len(last))], last)
    assert [list(group) for group in compressed_before(every, len(last), mode)] == before
    if key == "split_retrain" and len(every) == 9:
        np.testing.assert_allclose(every, linear(9, 0.9, 0.1), rtol=1e-9)


def _rates(schedule, rate, lines, stored):
    per_epoch = len(stored) // EPOCHS
    ours = []
    for step in range(len(stored)):
        factor, momentum = schedule.factor(step, per_epoch, EPOCHS), 0.9
        if lines is not None:
            factor, momentum = warm_up_and_cool_down(step / per_epoch, factor, momentum, **lines)
        ours.append((rate * factor, momentum))
    np.testing.assert_allclose(ours, stored, rtol=1e-9, atol=1e-12)


CHECKS: dict[str, Check] = {
    "keep_ratio_schedules": keep_ratio_schedules,
    "schedules_misc": schedules_misc,
    "commensurate": commensurate_file,
}
