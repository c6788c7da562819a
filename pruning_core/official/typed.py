"""Command lines as the official READMEs have them: which setting is meant, and what is asked of it.

``python3 main.py --model VGG16 ...`` may follow this program's name as it stands, or without what runs it. A file of an
official repository need not be there: its name tells its setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.configurations import FILES
from pruning_core.papers.ispasp.official import LAUNCHED
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES

RUNS = re.compile(r"\w+=.*|python[\d.]*|-m")
"""What stands in front of a program: CUDA_VISIBLE_DEVICES=0, python3, -m."""

ELSEWHERE = {
    "gradient.py": "its null rows are part of `pruning_core.predict_limit(model, batches, null_rows=True)`, where the model is "
    "what `official NAME` has trained",
    "gaussian_width.py": "the predicted limit is `pruning_core.predict_limit(model, batches)`, and the measured one "
    "`pruning_core.papers.how_sparse.actual_limits` of the rows that `official NAME` leaves",
    "experiment.util.download_imagenet_weights": "weights are fetched when a setting asks for them",
}
"""Official program -> what takes its place here."""

YAML = (".yaml", ".yml")
FOLDERS = ("param", "paper", "experiment", "src", ".")
"""Folders of the repositories of SiPP and PFP that are no part of a setting's name here."""


def typed(words: Sequence[str], config: Path | None = None) -> tuple[str | Path, tuple[str, ...]]:
    """What a command line means: the name of a setting or the path of a file, and the flags that are left.

    ``config`` is what was given as ``--config``. Raises BadInput where nothing is meant, two things are, or the program has no
    twin here; then it says what takes its place.

    >>> typed(["python3", "main.py", "--model", "VGG16"])
    ('snipit', ('--model', 'VGG16'))
    >>> typed(["python", "-m", "experiment.main", "paper/pfp/param/cifar/resnet20.yaml"])
    ('pfp/cifar/resnet20', ())
    """
    first, *rest = [*_program(words), ""]
    flags = tuple(rest[:-1])
    if first in ELSEWHERE:
        raise BadInput(f"{first} has no command of its own here: {ELSEWHERE[first]}.")
    if first == "main.py" and config is None:
        return "snipit", flags
    if first in ("", "main.py") and config is not None:
        return named_by(config), flags
    if first == "experiment.main" and flags and config is None:
        _no_shares(flags)
        return named_by(Path(flags[0])), flags[1:]
    if first.startswith("-") and config is None:  # main.py left out altogether
        return "snipit", (first, *flags)
    if not first or config is not None:
        raise BadInput("give the name of a setting (see --list), or --config FILE, and not both.")
    if first.endswith(YAML):
        return named_by(Path(first)), flags
    launched = {script: f"ispasp/{network}" for network, script in LAUNCHED.items()}
    return launched.get(first, first), flags


def _program(words: Sequence[str]) -> list[str]:
    """The words from the program's name on; a script without its folder."""
    left = list(words)
    while left and RUNS.fullmatch(left[0]):
        del left[0]
    if left and left[0].endswith(".py"):
        left[0] = PurePosixPath(left[0]).name
    return left


def _no_shares(words: Sequence[str]) -> None:
    for word in words:
        if re.fullmatch(r"-[ji]\d*", word):
            raise BadInput(f"{word} of experiment.main splits a file over processes, which --workers does here.")


def named_by(path: Path) -> str | Path:
    """The file itself; where it is not there but is one of an official repository, the name of its setting.

    >>> named_by(Path("configs/AlexNet_CIFAR10_l1.yml")), named_by(Path("mine.yml"))
    ('alexnet_cifar10_l1', PosixPath('mine.yml'))
    """
    if os.path.exists(path) or path.suffix not in YAML:  # Path.exists raises where nobody may look
        return path
    configurations = {f"{file}{end}": f"{name}{end}" for name, file in FILES.items() for end in ("", "_l1")}
    if path.stem in configurations:
        return configurations[path.stem]
    name = "/".join(part for part in path.with_suffix("").as_posix().split("/") if part not in FOLDERS)
    return name if name in PARAMETER_FILES else path
