"""What a training stage adds to the loss, and which parameters it trains."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.experiments.stages import Train
from pruning_core.experiments.state import State
from pruning_core.methods.base import Method
from pruning_core.models.layers.gates import ChannelGate, HardConcreteGate
from pruning_core.models.layers.scored import Scored


def bound_penalty(stage: Train, state: State):
    if stage.penalty is None:
        return None
    pairs: tuple[tuple[Method, float], ...] = stage.penalty  # type: ignore[assignment]
    return lambda model: torch.stack([s * m.penalty(model, state.masks).reshape(()) for m, s in pairs]).sum()


def trained_only(stage: Train, model: nn.Module):
    """Which parameters a stage trains: None for all."""
    if stage.only is None:
        return None
    gates = _gate_names(model)
    return lambda name: (name in gates) == (stage.only == "gates")


def _gate_names(model: nn.Module) -> set[str]:
    """Parameters of gates, and scores of weights; in a network without either, the scales of batch norm."""
    gates = (HardConcreteGate, ChannelGate, Scored)
    kinds = gates if any(isinstance(module, gates) for module in model.modules()) else _BatchNorm
    return {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if isinstance(module, kinds)
        for leaf, _ in module.named_parameters(recurse=False)
        if leaf != "bias"
    }
