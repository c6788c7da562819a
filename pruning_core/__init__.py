"""The public names of the package."""

from .budgets import Budget, allocate
from .errors import PruningError
from .masks import Masks
from .methods import METHODS, Choice, Method, View, methods_table, register
from .networks import load_pruned, save_network
from .pruning import PruneResult, prune
from .scores import Scores

__version__ = "0.1.0"
