"""Records of what is computed without a training: simulations, costs, times. Computed once, then read."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pruning_core.errors import BadInput, known_name
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import check_batches, find_sites
from pruning_core.methods.base import Method, View, as_method
from pruning_core.models.modes import undisturbed
from pruning_core.records.files import cache_root
from pruning_core.records.files import content_hash
from pruning_core.records.table import environment
from pruning_core.records.table import read_rows, write_rows
from pruning_core.version import PROFILES, code_of


def study(settings: Mapping[str, Any], compute: Callable[[], Iterable[Mapping[str, Any]]], *, profile: str = "quick"):
    """The rows that ``compute()`` gives, as a DataFrame: read from their record when there is one, else recorded.

    ``settings`` name the study and hold all that decides its rows: equal settings, equal record. Each row is joined by the
    profile, the versions and the machine, and by ``seconds`` of the whole study unless it has its own. As with experiments,
    records of smoke and quick are void when the package's code changes.

    Raises BadInput when ``compute`` gives no row.
    """
    import pandas as pd

    known_name("profile", profile, PROFILES)
    code = code_of(profile)
    key = content_hash({"study": dict(settings), "code": code})
    path = cache_root() / "records" / f"{key}.json"
    if path.exists():
        return pd.DataFrame(read_rows(path))
    started = time.perf_counter()
    rows = [dict(row) for row in compute()]
    if not rows:
        raise BadInput(f"the study {dict(settings)} has no rows.")
    about = {"experiment": key, "profile": profile, "code": code, "seconds": time.perf_counter() - started}
    about |= {"study": str(settings.get("name", "studies"))}
    rows = [about | row | environment() for row in rows]
    write_rows(path, rows)
    return pd.DataFrame(read_rows(path))


def seconds_of_choice(
    model: nn.Module, method: str | Method, sparsity: float, batches, *, repeats: int = 3, seed: int = 0
) -> float:
    """Median seconds that a channel method takes to choose, without the search for groups, which all methods share.

    With several repeats a first run is not counted. The network is left as it was.
    """
    chosen = as_method(method)
    given = check_batches(batches, "inputs", chosen.name)
    example = next(iter(given))[0][:1]
    sites = find_sites(model, channels=True, example_input=example, refuses=chosen.refuses)
    budget = Budget(sparsity, of="channels", across="layer")
    times = []
    for _ in range(repeats + (repeats > 1)):
        generator = torch.Generator().manual_seed(seed)
        view = View(model, sites, Masks(), given, torch.nn.functional.cross_entropy, generator, example)
        with undisturbed(model):
            started = time.perf_counter()
            chosen.choose(view, budget)
            times.append(time.perf_counter() - started)
    return statistics.median(times[-repeats:])
