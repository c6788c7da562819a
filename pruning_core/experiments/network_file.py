"""A network of one's own, from a file, as the beginning of an experiment: known by what the file holds, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pruning_core.errors import BadInput
from pruning_core.models.storage import load_pruned
from pruning_core.records.checkpoints import LARGEST, load_tensors
from pruning_core.records.files import file_sha256
from pruning_core.records.places import located


@dataclass(frozen=True)
class NetworkFile:
    """A file of ``save_network``: its SHA-256, which decides the key of an experiment, and where it lies, which does not."""

    sha256: str
    path: str = field(default="", compare=False)


def network_file(given: Any) -> NetworkFile | None:
    """The file at a path. Raises BadInput where nothing can be read, CorruptFile for what is no file of a network."""
    if given is None or isinstance(given, NetworkFile):
        return given
    path = located("network", given)
    _, info = load_tensors(path)
    if (what := info.get("kind")) != "network":
        raise BadInput(f"{path} holds {what if isinstance(what, str) else 'something else'}, and not a network.")
    return NetworkFile(file_sha256(path), str(path))


def begun(file: NetworkFile, built: nn.Module) -> nn.Module:
    """The network of a file, in training mode; ``built`` has its architecture, at full size. Raises BadInput where the file
    is another by now, or of another architecture."""
    if file_sha256(file.path, LARGEST) != file.sha256:
        raise BadInput(f"{file.path} was changed after the experiment was made of it; make the experiment again.")
    return load_pruned(file.path, model=built).train()
