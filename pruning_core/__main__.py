"""The command line: ``python -m pruning_core`` lists what there is, runs experiments, and makes the book's pages."""

from pruning_core.commands.program import as_process, main

__all__ = ["main"]

if __name__ == "__main__":
    as_process()
