"""Playing the stages that change a network without choosing: Rewind, Shrink, RecalibrateBatchNorm."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.errors import BadInput
from pruning_core.experiments.stages import Rewind
from pruning_core.experiments.start import building_options
from pruning_core.experiments.state import State
from pruning_core.experiments.steps import some_batches
from pruning_core.masks.removal import Kept
from pruning_core.masks.sites import find_sites
from pruning_core.methods.shrinking import shrunk
from pruning_core.models.build import build_model
from pruning_core.models.modes import evaluating


@torch.no_grad()
def rewind(state: State, stage: Rewind, seed: int) -> None:
    if stage.to == "new":
        fresh = build_model(seed=seed, **building_options(state.setting.recipe))
        values = dict(fresh.state_dict())
    elif stage.to in state.snapshots:
        values = state.snapshots[stage.to]
    else:
        raise BadInput(f"nothing was saved as {stage.to!r}; saved: {', '.join(sorted(state.snapshots))}.")
    prunable = set(find_sites(state.model, channels=False).weights)
    for name, tensor in state.model.state_dict().items():
        if stage.what == "weights" and name not in prunable:
            continue
        if name not in values or values[name].shape != tensor.shape:
            raise BadInput(f"{name!r} of {stage.to!r} does not fit the network any more; rewind before Shrink.")
        tensor.copy_(values[name])
    state.masks.apply_(state.model)


def shrink(state: State) -> Kept | None:
    sites = find_sites(state.model, channels=True, example_input=state.example, traced=state.traced())
    small, kept = shrunk(state.model, state.masks, sites, state.example)
    state.model, state.masks = small, kept.masks(state.masks)
    for label, snapshot in state.snapshots.items():
        state.snapshots[label] = {name: kept.slice(name, tensor) for name, tensor in snapshot.items()}
    return kept


def recalibrate(model: nn.Module, split, samples: int, seed: int = 0) -> None:
    """Replace the running statistics of batch norm by plain averages over ``samples`` of ``split``, in place."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = {norm: norm.momentum for norm in norms}
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for inputs, _ in some_batches(split, samples, 256, torch.Generator().manual_seed(seed)):
            if len(inputs) > 1:
                model(inputs.to(device))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
