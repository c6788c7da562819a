"""All pruning methods, and what a reader imports of them. Importing this package fills METHODS."""

from importlib import import_module
from pkgutil import iter_modules

from pruning_core.methods.base import METHODS, Choice, Method, View, as_method, methods_table, register
from pruning_core.methods.cnip import official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.ispasp import ISpaSP, two_layer
from pruning_core.methods.pfp import kept_at, last_errors
from pruning_core.methods.rni import RecedingNeurons, receding
from pruning_core.methods.shared.batch_norm_scales import quantile_masks
from pruning_core.methods.shared.draws import error, water_fill
from pruning_core.methods.shared.elasticities import (
    channel_elasticities,
    loss_gradients,
    producing_parameters,
    weight_elasticities,
)  # fmt: skip
from pruning_core.methods.shared.sensitivities import sample_size, sensitivity
from pruning_core.methods.sipp import SiPPHybrid
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from pruning_core.methods.synflow import SynFlow
from pruning_core.methods.thinet import ThiNet

for module in iter_modules(__path__):
    import_module(f"{__name__}.{module.name}")

__all__ = [
    "METHODS", "Choice", "Grasp", "Greedy", "ISpaSP", "Method", "RecedingNeurons", "SiPPHybrid", "Snap", "Snip", "SynFlow",
    "ThiNet", "View", "as_method", "channel_elasticities", "error", "kept_at", "last_errors", "loss_gradients",
    "methods_table", "official_shares", "producing_parameters", "quantile_masks", "receding", "register", "sample_size",
    "sensitivity", "two_layer", "water_fill", "weight_elasticities",
]  # fmt: skip
