"""The state of a run: what stays the same, what changes, and how it is kept on disk so that a killed run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pruning_core.data.loading import Data
from pruning_core.errors import BadInput
from pruning_core.masks.groups import Group
from pruning_core.masks.masks import Masks
from pruning_core.masks.tracing import groups_and_positions
from pruning_core.models.storage import fit_tensors
from pruning_core.records.checkpoints import load_tensors, save_tensors
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer


@dataclass(frozen=True)
class Setting:
    """What stays the same through a run: data, seed, device, and what Train stages fall back to."""

    recipe: dict[str, Any]
    data: Data
    seed: int
    optimizer: Optimizer
    learning_rate: LearningRate
    batch_size: int
    device: str = "cpu"
    channels_last: bool = False


@dataclass
class State:
    """What changes: the network, its masks, snapshots, counters, and the rows measured so far."""

    setting: Setting
    model: nn.Module
    masks: Masks
    snapshots: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    dense: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    training_macs: float = 0.0
    seconds: float = 0.0
    last: dict[str, Any] = field(default_factory=dict)
    _traced: tuple[Any, Any] = (None, None)

    def traced(self) -> tuple[list[Group], dict[str, int]]:
        """The channel groups and output positions of the network as it is now; searched for again when shapes change."""
        shapes = [(name, tensor.shape) for name, tensor in self.model.state_dict().items()]
        if self._traced[0] != shapes:
            self._traced = (shapes, groups_and_positions(self.model, self.example))
        return self._traced[1]

    @property
    def example(self) -> Tensor:
        """One sample, on the device; fixed, so that counts never depend on a shuffle."""
        return next(iter(self.setting.data.train.batches(1)))[0].to(self.setting.device)

    def save(self, path: Path, trainer: Trainer | None = None, step: int = 0) -> None:
        """Write everything needed to go on, atomically."""
        tensors = {f"model:{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"mask:{name}": mask for name, mask in self.masks.items()}
        for label, snapshot in self.snapshots.items():
            tensors |= {f"snapshot:{label}:{name}": tensor for name, tensor in snapshot.items()}
        info: dict[str, Any] = {"kind": "run", "step": step}
        for name in ("dense", "rows", "epoch", "training_macs", "seconds", "last"):
            info[name] = getattr(self, name)
        if trainer is not None:
            inner, info["trainer"] = trainer.state_dict()
            tensors |= {f"trainer:{name}": tensor for name, tensor in inner.items()}
        save_tensors(path, tensors, info)

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Take over a saved state; returns the trainer's own part, if there is one."""
        tensors, info = load_tensors(path)
        if info.get("kind") != "run":
            raise BadInput(f"{path} is not the checkpoint of a run.")
        part = {kind: {} for kind in ("model", "mask", "snapshot", "trainer")}  # type: dict[str, dict[str, Tensor]]
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            part[kind][name] = tensor
        fit_tensors(self.model, part["model"], str(path))
        self.model.to(self.setting.device)
        self.masks = Masks(part["mask"])
        self.snapshots = {}
        for key, tensor in part["snapshot"].items():
            label, _, name = key.partition(":")
            self.snapshots.setdefault(label, {})[name] = tensor
        for name in ("dense", "rows", "epoch", "training_macs", "seconds", "last"):
            setattr(self, name, info[name])
        return (part["trainer"], info["trainer"]) if "trainer" in info else None

    def snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
