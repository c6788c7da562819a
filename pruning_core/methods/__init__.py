"""All pruning methods. Importing this package fills METHODS."""

from . import cnip, grasp, ispasp, l0, magnitude, norms, random, sipp, snap, snip, synflow  # noqa: F401
from .base import METHODS, Choice, Method, View, as_method, methods_table, register

__all__ = ["METHODS", "Choice", "Method", "View", "as_method", "methods_table", "register"]
