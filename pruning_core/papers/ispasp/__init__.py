"""i-SpaSP (Wolfe and Kyrillidis 2022): recovery where the truth is known, and the networks of the paper."""

from pruning_core.papers.ispasp.configurations import cost, mobilenetv2_configuration, resnet34_configuration
from pruning_core.papers.ispasp.recovery import compressible, cosamp, decay, planted, recovery, slope, theory_slope

__all__ = [
    "compressible", "cosamp", "cost", "decay", "mobilenetv2_configuration", "planted", "recovery",
    "resnet34_configuration", "slope", "theory_slope",
]  # fmt: skip
