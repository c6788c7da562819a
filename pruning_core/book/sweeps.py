"""Sweeps: all notebooks at a long profile, their experiments on the workers of one dask scheduler; how far they are; and what
they cost. A sweep that was stopped, by whatever, is simply started again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_core.book.chapters import executed_path, find_notebooks, run_notebooks
from pruning_core.checks import Whole, check
from pruning_core.errors import known_name
from pruning_core.experiments.engine import noted
from pruning_core.experiments.intervals import require_columns, with_numbers
from pruning_core.experiments.variables import check_variables
from pruning_core.experiments.workers import connect, local_cluster
from pruning_core.records.files import cache_root
from pruning_core.records.locks import is_locked
from pruning_core.records.table import load
from pruning_core.version import PROFILES

if TYPE_CHECKING:
    import pandas

KERNELS_BESIDE = 2
"""How many notebooks wait with experiments of their own while others have the workers."""


def sweep_root(profile: str) -> Path:
    """Where the executed notebooks of a sweep and the lists of its experiments are kept."""
    return cache_root() / "sweep" / known_name("profile", profile, PROFILES)


def sweep(
    names: Iterable[str] = (), profile: str = "standard", *, jobs: int = 2, scheduler: str | None = None
) -> list[Path]:
    """Run the notebooks that changed since the last sweep of ``profile``; their experiments go to ``jobs`` processes of this
    machine, or to the workers of a dask ``scheduler`` ("tcp://host:8786"), which see the same cache folder.

    Returns the notebooks that were run. Raises NotebookFailed, at the end of all, for those that failed, and BadInput when
    there is no scheduler at the address.
    """
    jobs = check("jobs", jobs, Whole(at_least=1))
    notebooks, root = find_notebooks(names), sweep_root(profile)
    check_variables()
    with _scheduler(jobs, scheduler) as address:
        before = os.environ.get("PRUNING_WORKERS")
        os.environ["PRUNING_WORKERS"] = address
        try:
            failed = root / "failed"
            return run_notebooks(
                notebooks, profile, jobs=jobs + KERNELS_BESIDE, executed=root, failed=failed, plans=root
            )
        finally:
            os.environ.pop("PRUNING_WORKERS") if before is None else os.environ.update(PRUNING_WORKERS=before)


@contextmanager
def _scheduler(jobs: int, address: str | None) -> Iterator[str]:
    if address is not None:
        connect(address).close()
        yield address
        return
    with local_cluster(jobs, dashboard=":0") as cluster:
        print(f"dashboard of the workers: {cluster.dashboard_link}")
        yield cluster.scheduler_address


def sweep_status(profile: str = "standard") -> pandas.DataFrame:
    """How far a sweep is, from its files alone: a row a notebook with what its experiments are now.

    Columns: notebook; state (not started, running, finished); experiments asked for so far; done, running, failed, waiting;
    and ``core_hours_left``, by the median time an epoch of the same network on the same data took before (missing where
    none was ever run).
    """
    import pandas as pd

    root, pace = sweep_root(profile), _seconds_an_epoch()
    table = []
    for source in find_notebooks():
        copy = executed_path(source, root)
        plan = copy.with_suffix(".plan")
        asked = noted(plan)
        states = {key: _state(Path(line["record"])) for key, line in asked.items()}
        left = [asked[key] for key, state in states.items() if state in ("running", "waiting")]
        hours = [line["epochs"] * pace.get(_kind(line), float("nan")) / 3600 for line in left]
        state = "finished" if copy.exists() else "running" if plan.exists() else "not started"
        counts = {name: list(states.values()).count(name) for name in ("done", "running", "failed", "waiting")}
        notebook = f"{source.parent.name}/{source.stem}"
        table.append(
            {"notebook": notebook, "state": state, "experiments": len(asked), **counts, "core_hours_left": sum(hours)}
        )
    return pd.DataFrame(table)


def _state(record: Path) -> str:
    if record.exists():
        return "done"
    if is_locked(record):
        return "running"
    return "failed" if record.with_suffix(".error").exists() else "waiting"


def _kind(row: Any) -> tuple[Any, ...]:
    return row["model"], row["data"], row["width"]


def _seconds_an_epoch() -> dict[tuple[Any, ...], float]:
    rows = load()
    rows = rows[rows["epoch"].gt(0) & rows["seconds"].gt(0)]
    return (rows["seconds"] / rows["epoch"]).groupby([rows[c] for c in ("model", "data", "width")]).median().to_dict()


def costs(rows: pandas.DataFrame) -> pandas.DataFrame:
    """What the experiments behind ``rows`` cost: a row a profile, network, data set and kind of device, with the number of
    experiments and the hours that they took, added up."""
    require_columns(rows, ("experiment", "profile", "model", "data", "device", "seconds"))
    rows = with_numbers(rows, ["seconds"])
    last = rows[rows["seconds"].notna() & rows["model"].notna()]
    last = last.sort_values("seconds").groupby("experiment").last().reset_index()
    last["on"] = (
        last["device"].str.contains("NVIDIA|Tesla|GeForce|AMD Instinct", na=False).map({True: "GPU", False: "CPU"})
    )
    groups = last.groupby(["profile", "model", "data", "on"])["seconds"]
    table = groups.agg(experiments="size", hours=lambda s: s.sum() / 3600).reset_index()
    order = {name: k for k, name in enumerate(PROFILES)}
    return table.sort_values(["profile", "hours"], key=lambda c: c.map(order) if c.name == "profile" else -c)
