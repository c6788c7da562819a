"""The parameter files of SiPP's and PFP's repositories: networks, kept fractions, training (Baykal et al. 2019, baykal2019sipp;
Liebenwein et al. 2020, liebenwein2020pfp)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pruning_core.errors import known_name
from pruning_core.papers.sipp_pfp.spacings import SPACINGS, Fractions, in_groups


@dataclass(frozen=True)
class FileTraining:
    """How a network is trained or retrained, in the numbers of the file: batch size and rate are those of one GPU.

    The rate is multiplied by ``gamma`` at each milestone (epochs) and rises linearly in the first ``warmup`` epochs.
    ``first_epoch``: training starts there, with the rate of that epoch. ``gpus``: how many the file says it was run on;
    the official code multiplies batch size and rate by it.
    """

    epochs: int
    batch_size: int
    lr: float
    milestones: tuple[int, ...]
    gamma: float = 0.1
    warmup: int = 0
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    first_epoch: int = 0
    gpus: int = 1


@dataclass(frozen=True)
class ParameterFile:
    """One parameter file of the official repositories.

    ``network`` and ``data`` are our names, None where the data are not public. ``kept``: the fractions of the weights that
    stay, in order. ``retrained`` is the number of groups that they are split into (None: each fraction is retrained).
    ``delta`` is the probability of failure from which the size of S, the sample for sensitivities, follows; ``deltas``
    lists a sweep over it. ``nets``: how many networks are trained, from different seeds.
    """

    network: str | None
    data: str | None
    methods: tuple[str, ...]
    kept: Fractions
    training: FileTraining
    retraining: FileTraining
    retrained: int | None = None
    mode: str = "cascade"
    delta: float = 1e-16
    deltas: tuple[float, ...] = ()
    nets: int = 3


def read_files(path: Path) -> dict[str, ParameterFile]:
    """The table in YAML, whose head says how it is written. Raises what the spacings and the two classes raise."""
    table = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def meant(kind: str, given: Any) -> Any:
        return table[kind][given] if isinstance(given, str) else given

    def training(given: str | dict[str, Any]) -> FileTraining:
        fields = {"like": given} if isinstance(given, str) else dict(given)
        settings = table["trainings"][fields.pop("like")] | fields
        return FileTraining(**settings | {"milestones": tuple(settings["milestones"])})

    def fractions(spacings: list[list]) -> Fractions:
        return tuple(
            kept for kind, *numbers in spacings for kept in SPACINGS[known_name("spacing", kind, SPACINGS)](*numbers)
        )

    files = {}
    for name, entry in table["files"].items():
        spacing = entry.pop("spacing")
        read = {
            "methods": tuple(meant("methods", entry["methods"])),
            "kept": fractions(meant("spacings", spacing)),
            "training": training(entry["training"]),
            "retraining": training(entry.get("retraining", entry["training"])),
            "deltas": tuple(entry.get("deltas", ())),
        }
        files[name] = ParameterFile(**entry | read)
    return files


PARAMETER_FILES: dict[str, ParameterFile] = read_files(Path(__file__).with_suffix(".yml"))
"""Name of an official parameter file -> its settings; "pfp/..." and "sipp/..." are those of the later repository."""


def parameter_file(name: str) -> ParameterFile:
    """The entry of PARAMETER_FILES. Raises UnknownName with the nearest name."""
    return PARAMETER_FILES[known_name("parameter file", name, PARAMETER_FILES)]


def kept_fractions(name: str) -> Fractions:
    """All kept fractions of a parameter file, in their order. Raises UnknownName.

    >>> len(kept_fractions("cifar/resnet20"))
    69
    """
    return parameter_file(name).kept


def retrained(name: str) -> Fractions:
    """The kept fractions of a parameter file at which the network is retrained. Raises UnknownName.

    >>> [round(kept, 3) for kept in retrained("cifar/resnet20")[-4:]]
    [0.15, 0.104, 0.062, 0.02]
    """
    return tuple(group[-1] for group in in_groups(kept_fractions(name), parameter_file(name).retrained))
