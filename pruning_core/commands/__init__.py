"""The command line, one file a group of commands; ``python -m pruning_core`` starts it."""

from pruning_core.commands.program import main, program

__all__ = ["main", "program"]
