"""Layers of the papers. What a layer may ask of training, and of whoever saves or shrinks it, is in ``protocol``."""

from pruning_core.models.layers.attention import PrunableAttention, prunable_attention
from pruning_core.models.layers.gates import ChannelGate, Gated, HardConcreteGate
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import (
    ClampedBatchNorm1d,
    ClampedBatchNorm2d,
    SigmoidBatchNorm1d,
    SigmoidBatchNorm2d,
)
from pruning_core.models.layers.protocol import project_, to_plain
from pruning_core.models.layers.scored import Scored

__all__ = [
    "ChannelGate",
    "ChannelIndex",
    "ClampedBatchNorm1d",
    "ClampedBatchNorm2d",
    "Gated",
    "HardConcreteGate",
    "PrunableAttention",
    "Scored",
    "SigmoidBatchNorm1d",
    "SigmoidBatchNorm2d",
    "project_",
    "prunable_attention",
    "to_plain",
]
