"""A papermill engine that runs notebooks inside the process of the test, where everything is imported already.

A kernel of its own costs every notebook five seconds of imports. A fresh shell with a fresh namespace does not; what a
notebook may leave behind in the process (registered methods, random states, figures of pyplot) is taken back.
"""

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot
from nbformat.v4 import new_output
from papermill.engines import Engine
from traitlets.config import Config

from pruning_core.methods import METHODS


@contextlib.contextmanager
def as_found() -> Iterator[None]:
    """METHODS, random states, torch's settings, environment and import paths are afterwards what they were."""
    states, numbers, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    main, hook, paths, dtype = sys.modules["__main__"], sys.excepthook, list(sys.path), torch.get_default_dtype()
    try:
        with patch.dict(METHODS), patch.dict(os.environ), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(states)
        np.random.set_state(numbers)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        sys.path[:] = paths
        sys.modules["__main__"], sys.excepthook = main, hook


class InProcess(Engine):
    """Runs the cells one after the other in a shell of IPython, and stops at the first that raises."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: Any) -> None:
        config = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "NoColor"}})
        with as_found():
            pyplot.close("all")  # of earlier tests
            InteractiveShell.clear_instance()
            shell = InteractiveShell.instance(config=config, user_ns={})
            try:
                for index, cell in enumerate(nb_man.nb.cells):
                    nb_man.cell_start(cell, index)
                    if cell.cell_type == "code" and not run_cell(shell, cell):
                        nb_man.cell_exception(cell, index)
                        break
                    nb_man.cell_complete(cell, index)
                assert pyplot.get_fignums() == [], "draw with pruning_core.plots, whose figures carry an alt text"
            finally:
                pyplot.close("all")
                shell.reset(new_session=False)
                InteractiveShell.clear_instance()


def run_cell(shell: InteractiveShell, cell: Any) -> bool:
    """Run one cell and put its outputs into it; False where it raised."""
    with capture_output() as captured:
        result = shell.run_cell(cell.source, store_history=False)
    cell.execution_count = shell.execution_count
    for name, text in (("stdout", captured.stdout), ("stderr", captured.stderr)):
        if text:
            cell.outputs.append(new_output("stream", name=name, text=text))
    for shown in captured.outputs:
        cell.outputs.append(new_output("display_data", data=dict(shown.data), metadata=shown.metadata or {}))
    if result.success:
        return True
    error = result.error_in_exec or result.error_before_exec
    trace = captured.stdout.splitlines()
    cell.outputs.append(new_output("error", ename=type(error).__name__, evalue=str(error), traceback=trace))
    return False
