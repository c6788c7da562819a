"""The parameter files of SiPP's and PFP's repositories (Baykal et al. 2019, baykal2019sipp; Liebenwein et al. 2020,
liebenwein2020pfp): networks, kept fractions, training. ``official.py`` makes experiments of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pruning_core.checks import checked
from pruning_core.errors import known_name
from pruning_core.papers.sipp_pfp.spacings import SPACINGS, Fractions, in_groups
from pruning_core.records.files import read_yaml


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
    lists a sweep over it. ``nets``: how many networks are trained, from different seeds. ``augment``: a recipe of
    AUGMENTATIONS; None: that of the repository for this network.
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
    augment: str | None = None


def read_files(path: Path) -> dict[str, ParameterFile]:
    """The table in YAML, whose head says how it is written. Raises what the spacings and the two classes raise."""
    table = read_yaml(path)

    def meant(kind: str, given: Any) -> Any:
        return table[kind][given] if isinstance(given, str) else given

    def training(given: str | dict[str, Any]) -> FileTraining:
        fields = {"like": given} if isinstance(given, str) else dict(given)
        settings = table["trainings"][fields.pop("like")] | fields
        return FileTraining(**settings | {"milestones": tuple(settings["milestones"])})

    files = {}
    for name, entry in table["files"].items():
        spacing = meant("spacings", entry.pop("spacing"))
        parts = [SPACINGS[known_name("spacing", kind, SPACINGS)](*numbers) for kind, *numbers in spacing]
        read = {
            "methods": tuple(meant("methods", entry["methods"])),
            "kept": sum(parts, ()),
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


@checked
def kept_fractions(name: str) -> Fractions:
    """All kept fractions of a parameter file, in their order. Raises UnknownName.

    >>> len(kept_fractions("cifar/resnet20"))
    69
    """
    return parameter_file(name).kept


@checked
def retrained(name: str) -> Fractions:
    """The kept fractions of a parameter file at which the network is retrained. Raises UnknownName.

    >>> [round(kept, 3) for kept in retrained("cifar/resnet20")[-4:]]
    [0.15, 0.104, 0.062, 0.02]
    """
    return tuple(group[-1] for group in in_groups(kept_fractions(name), parameter_file(name).retrained))


def warm_up_and_cool_down(
    epoch: float, scheduled: float, momentum: float, warmup: float, cooldown: float, shift: float
) -> tuple[float, float]:
    """Factor on the learning rate, and momentum, of the official schedule with a cool-down, which no parameter file uses.

    ``epoch`` counts from 0, fractions included; ``warmup`` and ``cooldown`` are lengths above 0 in epochs. The factor is the
    milestones', ``scheduled``, but in the warm-up at most a line from 0 to 1, and in the cool-down at least one back to 0.
    The momentum falls from ``momentum + shift`` to ``momentum - shift`` in the warm-up and rises back in the cool-down.

    >>> [warm_up_and_cool_down(epoch, 0.5, 0.5, 2, 2, 0.25) for epoch in (0, 1, 2, 3, 4)]
    [(0.0, 0.75), (0.5, 0.5), (1.0, 0.25), (0.5, 0.5), (0.5, 0.75)]
    """
    if epoch < warmup:
        line = epoch / warmup
        return min(line, scheduled), momentum + shift - 2 * shift * line
    line = min((epoch - warmup) / cooldown, 1.0)
    return max(1 - line, scheduled), momentum - shift + 2 * shift * line
