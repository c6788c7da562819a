"""i-SpaSP (Wolfe and Kyrillidis 2022): recovery where the truth is known, and the networks of the paper."""

from pruning_core.papers.ispasp.configurations import cost
from pruning_core.papers.ispasp.configurations import mobilenetv2_configuration
from pruning_core.papers.ispasp.configurations import resnet34_configuration
from pruning_core.papers.ispasp.recovery import compressible
from pruning_core.papers.ispasp.recovery import cosamp
from pruning_core.papers.ispasp.recovery import decay
from pruning_core.papers.ispasp.recovery import planted
from pruning_core.papers.ispasp.recovery import recovery
from pruning_core.papers.ispasp.recovery import slope
from pruning_core.papers.ispasp.recovery import theory_slope

__all__ = [
    "compressible",
    "cosamp",
    "cost",
    "decay",
    "mobilenetv2_configuration",
    "planted",
    "recovery",
    "resnet34_configuration",
    "slope",
    "theory_slope",
]
