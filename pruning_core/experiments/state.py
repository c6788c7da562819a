"""The state of a run: what changes, how it begins, and how it is kept on disk so that a killed run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pruning_core.data.loading import Data, load_data
from pruning_core.errors import BadInput
from pruning_core.experiments.stages import Train, every_stage
from pruning_core.masks.groups import Group
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import groups_and_positions
from pruning_core.models.build import build_model
from pruning_core.models.cost import output_positions
from pruning_core.models.storage import fit_tensors
from pruning_core.records.checkpoints import load_tensors, save_tensors
from pruning_core.training.trainer import Trainer

if TYPE_CHECKING:
    from pruning_core.experiments.experiment import Experiment

KEPT_AS_JSON = ("dense", "rows", "epoch", "training_macs", "seconds", "last")


@dataclass
class State:
    """What changes: the network, its masks, snapshots, counters, and the rows measured so far.

    ``dense``: what the network had when it was built, of each "weights", "macs" and "rows" (by weight) and "channels" (by
    group); ``last``: columns of the rows to come, from the last training and the last cut.
    """

    experiment: Experiment
    data: Data
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
        return next(iter(self.data.train.batches(1)))[0].to(self.experiment.device)

    def save(self, path: Path, trainer: Trainer | None = None) -> None:
        """Write everything needed to go on, atomically."""
        tensors = {f"model:{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"mask:{name}": mask for name, mask in self.masks.items()}
        for label, snapshot in self.snapshots.items():
            tensors |= {f"snapshot:{label}:{name}": tensor for name, tensor in snapshot.items()}
        info: dict[str, Any] = {"kind": "run"} | {name: getattr(self, name) for name in KEPT_AS_JSON}
        if trainer is not None:
            inner, info["trainer"] = trainer.state_dict()
            tensors |= {f"trainer:{name}": tensor for name, tensor in inner.items()}
        save_tensors(path, tensors, info)

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Take over a saved state; returns the trainer's own part, if there is one."""
        tensors, info = load_tensors(path)
        if info.get("kind") != "run":
            raise BadInput(f"{path} is not the checkpoint of a run.")
        part: dict[str, dict[str, Tensor]] = {kind: {} for kind in ("model", "mask", "snapshot", "trainer")}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            part[kind][name] = tensor
        fit_tensors(self.model, part["model"], str(path))
        self.model.to(self.experiment.device)
        self.masks = Masks(part["mask"])
        self.snapshots = {}
        for key, tensor in part["snapshot"].items():
            label, _, name = key.partition(":")
            self.snapshots.setdefault(label, {})[name] = tensor
        for name in KEPT_AS_JSON:
            setattr(self, name, info[name])
        return (part["trainer"], info["trainer"]) if "trainer" in info else None

    def snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}


def built(experiment: Experiment, data: Data, seed: int) -> nn.Module:
    """The network of an experiment, with fresh weights."""
    size = (data.shape, data.classes)
    return build_model(experiment.model, size, width=experiment.width, norm=experiment.norm, seed=seed)


def start(experiment: Experiment) -> State:
    """The state before the first stage: the network built after the seed is set, and prepared for its penalties."""
    data = load_data(
        experiment.data,
        device=experiment.device,
        normalise=experiment.normalise,
        augment=experiment.augment,
        limit=experiment.limit,
        random_labels=experiment.random_labels,
    )
    model = built(experiment, data, experiment.seed).to(experiment.device)
    state = State(experiment, data, model, Masks())
    trainings = [stage for stage in every_stage(experiment.timeline) if isinstance(stage, Train)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        for method in dict.fromkeys(method for training in trainings for method, _ in training.penalty or ()):
            model = method.prepare(model, state.example)
    state.model = model.to(experiment.device)
    positions = output_positions(model, state.example)
    weights = {name: model.get_parameter(name) for name in find_sites(model, channels=False).weights}
    state.dense = {
        "weights": {name: weight.numel() for name, weight in weights.items()},
        "macs": {name: weight.numel() * positions.get(name.rpartition(".")[0], 0) for name, weight in weights.items()},
        "channels": {},
        "rows": {name: len(weight) for name, weight in weights.items()},
    }
    state.snapshots["init"] = state.snapshot()
    return state
