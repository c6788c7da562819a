"""All pruning methods, and what a reader imports of them. Importing this package fills METHODS."""

from pruning_core.methods import activation_sum  # noqa: F401  # fmt: skip
from pruning_core.methods import efficient_convnets  # noqa: F401  # fmt: skip
from pruning_core.methods import gates  # noqa: F401  # fmt: skip
from pruning_core.methods import hoyer  # noqa: F401  # fmt: skip
from pruning_core.methods import imitation  # noqa: F401  # fmt: skip
from pruning_core.methods import l0  # noqa: F401  # fmt: skip
from pruning_core.methods import l1  # noqa: F401  # fmt: skip
from pruning_core.methods import magnitude  # noqa: F401  # fmt: skip
from pruning_core.methods import norms  # noqa: F401  # fmt: skip
from pruning_core.methods import polarization  # noqa: F401  # fmt: skip
from pruning_core.methods import random  # noqa: F401  # fmt: skip
from pruning_core.methods import rare_gems  # noqa: F401  # fmt: skip
from pruning_core.methods import rigl  # noqa: F401  # fmt: skip
from pruning_core.methods import sampling  # noqa: F401  # fmt: skip
from pruning_core.methods import slimming  # noqa: F401  # fmt: skip
from pruning_core.methods import ucs  # noqa: F401  # fmt: skip
from pruning_core.methods import weight_product  # noqa: F401  # fmt: skip
from pruning_core.methods.base import METHODS
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import as_method
from pruning_core.methods.base import methods_table
from pruning_core.methods.base import register
from pruning_core.methods.cnip import official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.ispasp import ISpaSP
from pruning_core.methods.ispasp import two_layer
from pruning_core.methods.pfp import kept_at
from pruning_core.methods.pfp import last_errors
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.rni import receding
from pruning_core.methods.shared.batch_norm_scales import quantile_masks
from pruning_core.methods.shared.draws import error
from pruning_core.methods.shared.draws import water_fill
from pruning_core.methods.shared.elasticities import channel_elasticities
from pruning_core.methods.shared.elasticities import loss_gradients
from pruning_core.methods.shared.elasticities import producing_parameters
from pruning_core.methods.shared.elasticities import weight_elasticities
from pruning_core.methods.shared.sensitivities import sample_size
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.methods.sipp import SiPPHybrid
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from pruning_core.methods.synflow import SynFlow
from pruning_core.methods.thinet import ThiNet

__all__ = [
    "METHODS",
    "Choice",
    "Grasp",
    "Greedy",
    "ISpaSP",
    "Method",
    "RecedingNeurons",
    "SiPPHybrid",
    "Snap",
    "Snip",
    "SynFlow",
    "ThiNet",
    "View",
    "as_method",
    "channel_elasticities",
    "error",
    "kept_at",
    "last_errors",
    "loss_gradients",
    "methods_table",
    "official_shares",
    "producing_parameters",
    "quantile_masks",
    "receding",
    "register",
    "sample_size",
    "sensitivity",
    "two_layer",
    "water_fill",
    "weight_elasticities",
]
