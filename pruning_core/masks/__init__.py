"""Masks: what may be pruned, what a budget takes, which channels go together, and the cut itself."""

from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.groups import Group, Member, expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import remove
from pruning_core.masks.reports import Report, dead_layers, dead_units, layer_density
from pruning_core.masks.schedules import SCHEDULES, fraction_after
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.masks.tracing import find_groups

__all__ = [
    "SCHEDULES",
    "Budget",
    "Group",
    "Masks",
    "Member",
    "Report",
    "Scores",
    "Sites",
    "allocate",
    "dead_layers",
    "dead_units",
    "expand",
    "find_groups",
    "find_sites",
    "fraction_after",
    "layer_density",
    "remove",
]
