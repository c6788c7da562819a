"""All pruning methods. Importing this package fills METHODS."""

from pruning_core.methods import cnip  # noqa: F401  # fmt: skip
from pruning_core.methods import efficient_convnets  # noqa: F401  # fmt: skip
from pruning_core.methods import gates  # noqa: F401  # fmt: skip
from pruning_core.methods import grasp  # noqa: F401  # fmt: skip
from pruning_core.methods import greedy  # noqa: F401  # fmt: skip
from pruning_core.methods import hoyer  # noqa: F401  # fmt: skip
from pruning_core.methods import ispasp  # noqa: F401  # fmt: skip
from pruning_core.methods import l0  # noqa: F401  # fmt: skip
from pruning_core.methods import l1  # noqa: F401  # fmt: skip
from pruning_core.methods import magnitude  # noqa: F401  # fmt: skip
from pruning_core.methods import norms  # noqa: F401  # fmt: skip
from pruning_core.methods import pfp  # noqa: F401  # fmt: skip
from pruning_core.methods import polarization  # noqa: F401  # fmt: skip
from pruning_core.methods import random  # noqa: F401  # fmt: skip
from pruning_core.methods import rare_gems  # noqa: F401  # fmt: skip
from pruning_core.methods import rigl  # noqa: F401  # fmt: skip
from pruning_core.methods import rni  # noqa: F401  # fmt: skip
from pruning_core.methods import sipp  # noqa: F401  # fmt: skip
from pruning_core.methods import slimming  # noqa: F401  # fmt: skip
from pruning_core.methods import snap  # noqa: F401  # fmt: skip
from pruning_core.methods import snip  # noqa: F401  # fmt: skip
from pruning_core.methods import synflow  # noqa: F401  # fmt: skip
from pruning_core.methods import thinet  # noqa: F401  # fmt: skip
from pruning_core.methods.base import METHODS
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import as_method
from pruning_core.methods.base import methods_table
from pruning_core.methods.base import register

__all__ = ["METHODS", "Choice", "Method", "View", "as_method", "methods_table", "register"]
