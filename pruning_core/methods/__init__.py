"""All pruning methods. Importing this package fills METHODS."""

from . import (  # noqa: F401
    cnip,
    efficient_convnets,
    gates,
    grasp,
    greedy,
    hoyer,
    ispasp,
    l0,
    l1,
    magnitude,
    norms,
    pfp,
    polarization,
    random,
    rare_gems,
    rigl,
    rni,
    sipp,
    slimming,
    snap,
    snip,
    synflow,
    thinet,
)  # fmt: skip
from .base import METHODS, Choice, Method, View, as_method, methods_table, register

__all__ = ["METHODS", "Choice", "Method", "View", "as_method", "methods_table", "register"]
