"""Models: the networks of the papers by name, the layers they are made of, and what they cost."""

from pruning_core.models.activations import layer_inputs
from pruning_core.models.build import MODELS, build_model, rebuild
from pruning_core.models.cost import (
    count_macs,
    count_parameters,
    macs_by_layer,
    output_positions,
    size_on_disk,
    sparsity_of,
)
from pruning_core.models.export import export_network
from pruning_core.models.folding import fold_batch_norm
from pruning_core.models.own import register_model
from pruning_core.models.storage import load_pruned, save_network
from pruning_core.models.timing import csr_speed, latency, latency_in_turns
from pruning_core.models.zoo.base import ModelInfo

__all__ = [
    "MODELS",
    "ModelInfo",
    "build_model",
    "count_macs",
    "count_parameters",
    "csr_speed",
    "export_network",
    "fold_batch_norm",
    "latency",
    "latency_in_turns",
    "layer_inputs",
    "load_pruned",
    "macs_by_layer",
    "output_positions",
    "rebuild",
    "register_model",
    "save_network",
    "size_on_disk",
    "sparsity_of",
]
