"""The command line: ``python -m pruning_core`` lists what there is, runs experiments, and makes the book's pages."""

import sys

from pruning_core.commands import main

if __name__ == "__main__":
    sys.exit(main())
