"""The state before the first stage of a timeline."""

from __future__ import annotations

from typing import Any

import torch

from pruning_core.experiments.stages import Train
from pruning_core.experiments.state import Setting, State
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import Method
from pruning_core.models.build import build_model
from pruning_core.models.cost import output_positions


def start(setting: Setting, timeline) -> State:
    """The state before the first stage: the network built after the seed is set, and prepared for its penalties."""
    model = build_model(seed=setting.seed, **building_options(setting.recipe)).to(setting.device)
    if setting.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(setting, model, Masks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        for method in _penalties(timeline):
            model = method.prepare(model, state.example)
    state.model = model.to(setting.device)
    positions = output_positions(model, state.example)
    weights = find_sites(model, channels=False).weights
    state.dense = {
        "weights": {name: model.get_parameter(name).numel() for name in weights},
        "macs": {n: model.get_parameter(n).numel() * positions.get(n.rpartition(".")[0], 0) for n in weights},
        "channels": {},
        "rows": {name: len(model.get_parameter(name)) for name in weights},
    }
    state.snapshots["init"] = state.snapshot()
    return state


def building_options(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "seed"}


def _penalties(stages) -> list[Method]:
    found: list[Method] = []
    for stage in stages:
        inner = getattr(stage, "stages", ())
        if isinstance(stage, Train) and stage.penalty is not None:
            found += [pair[0] for pair in stage.penalty]  # type: ignore[misc, index]
        found += _penalties(inner)
    return list(dict.fromkeys(found))
