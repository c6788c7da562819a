"""Run an official setting from its name, or a file in the official form, to its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pruning_core.data.sets import AUGMENTATIONS, DATASETS
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.besides import Besides
from pruning_core.experiments.engine import epochs_of, run_all
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.own_code import loss_name
from pruning_core.models.build import build_model
from pruning_core.official.catalogue import Official, official
from pruning_core.official.claims import beside_the_paper
from pruning_core.official.files import settings_of_file
from pruning_core.official.results import write_results
from pruning_core.official.shorten import Shorter, shortened

OWN, AS_OFFICIAL, NOTHING = Asked(), Shorter(), Besides()


@dataclass(frozen=True)
class Finished:
    """All rows of a run, and where its report lies (None where none was asked for)."""

    rows: pd.DataFrame
    report: Path | None


def planned(
    setting: Official, asked: Asked, shorter: Shorter = AS_OFFICIAL, more: Besides = NOTHING
) -> list[Experiment]:
    """The experiments of a setting, shortened, with ``more`` asked of each. Raises BadInput where nothing is left to run, or
    a network does not fit.

    With another loss or network they have profile "quick", as shortened ones have: nobody takes their rows for the paper's.

    >>> from pruning_core.official import CATALOGUE
    >>> (setting, *_) = CATALOGUE.values()
    >>> experiments = planned(setting, Asked(), Shorter(epochs=1, data="digits"))
    >>> len(experiments) > 0, {experiment.data for experiment in experiments}
    (True, {'digits'})
    """
    asked = replace(
        asked, data=shorter.data
    )  # what starts from published weights must know whether they fit the images
    experiments = [more.asked_of(shortened(experiment, shorter)) for experiment in setting.plan(asked)]
    if more.loss or more.network:
        experiments = [replace(experiment, profile="quick") for experiment in experiments]
    if not experiments:
        raise BadInput(f"{setting.name} has nothing to run: all of its methods are outside this book.")
    for experiment in experiments:
        _check_network(experiment.model, experiment.data, experiment.augment, experiment.width, experiment.norm)
    return experiments


@cache
def _check_network(model: str, data: str, augment: str | None, width: float, norm: str) -> None:
    """Builds the network without its memory: what does not fit the images is refused before anything runs."""
    info, side = DATASETS[data], AUGMENTATIONS[augment].side if augment else None
    channels, height, width_of_images = info.shape
    with torch.device("meta"):
        build_model(model, ((channels, side or height, side or width_of_images), info.classes), width=width, norm=norm)


def run_official(
    name: str | Path,
    asked: Asked = OWN,
    shorter: Shorter = AS_OFFICIAL,
    more: Besides = NOTHING,
    *,
    workers: int | str | None = None,
    out: Path | None = None,
    progress: bool = True,
    max_minutes: float | None = None,
) -> Finished:
    """Run the official setting ``name`` (see CATALOGUE), or that of a file in the official form, given as a path.

    What has run before is read from its record; a run that was stopped goes on. ``out``: a folder for rows, curves, figures
    and the report, in which the paper's numbers stand beside ours. ``more``: another loss, a network to begin with, what is
    watched, measuring beside cuts. ``workers`` and ``max_minutes`` as of run_all. Raises UnknownName or BadInput for what
    cannot be, before anything runs; ExperimentsFailed, OutOfTime.

    >>> from pruning_core.official import Shorter, run_official
    >>> from pruning_core.experiments.asked import Asked
    >>> small = Shorter(epochs=1, limit=400, width=0.1, data="digits")
    >>> found = run_official("mnist/lenet300_100", Asked(seeds=1, points=1, methods=("WT",)), small, progress=False)
    >>> found.rows["label"].tolist()
    ['dense', 'step pruned', 'step']
    """
    settings = [official(name)] if isinstance(name, str) else settings_of_file(name)
    plans = [(setting, planned(setting, asked, shorter, more)) for setting in settings]
    rows = run_all([e for _, plan in plans for e in plan], workers=workers, progress=progress, max_minutes=max_minutes)
    if out is None:
        return Finished(rows, None)
    setting, plan = plans[0]
    about = _about(setting, plan, rows, shorter, more)
    return Finished(rows, write_results(rows, out, setting.name, about))


def _about(setting: Official, plan: list[Experiment], rows: pd.DataFrame, shorter: Shorter, more: Besides) -> list[str]:
    first = plan[0]
    whole: Any = next(iter(setting.plan(Asked(seeds=1))))
    changed = {n: v for n, v in vars(shorter).items() if v is not None}
    own = DATASETS[first.data].folder is not None and first.profile != "paper"  # a folder that an official flag names
    changed |= {"data": first.data} if own else {}
    changed |= {"loss": loss_name(more.loss)} if more.loss else {}
    changed |= {"network file": more.network.sha256[:8]} if more.network else {}
    scale = "at the paper's scale"
    if changed:
        changes = ", ".join(f"{name} {value}" for name, value in changed.items())
        kind = "shortened" if changed.keys() & vars(shorter) else "changed"
        scale = f"**{kind}** ({changes}): these numbers are not to be compared with the paper's"
    return [
        f"Official call: `{setting.command}`",
        f"{setting.system}: {first.model} on {first.data}, {len(plan)} experiments, {scale}. The longest trains "
        f"{max(epochs_of(e.timeline) for e in plan)} epochs in batches of {first.batch_size}. What differs from the official "
        f"code is named in `pruning_core.papers.{setting.room}.official`.",
        "## The paper's numbers and ours",
        beside_the_paper(rows, setting.paper, whole.model, whole.data),
    ]
