"""What made a number: the versions, the revision of the code, the processor or GPU."""

import contextlib
import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pruning_core.checks import Device, checked, present
from pruning_core.records.files import is_checkout
from pruning_core.version import REPOSITORY, runs_what_lies_there

DIRTY = "+dirty"
"""What a revision ends with whose code was edited: nobody can look it up."""


def _revision() -> str:
    """The revision behind the code that runs, "+dirty" also where a file of it was edited after it was imported."""
    found = _checked_out()
    if not _checked_out.cache_info().hits:
        runs_what_lies_there(anew=True)
    return found if runs_what_lies_there() or found == "unknown" or found.endswith(DIRTY) else found + DIRTY


@functools.cache
def _checked_out() -> str:
    """The short git hash of the checkout, "+dirty" when the code (not the results) differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        # Variables such as GIT_DIR, set inside of git's own hooks, name another repository.
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10, env=own).strip()

    # Without a .git of its own an installed copy would report the project that it is installed into.
    if not (is_checkout() and (REPOSITORY / ".git").exists()):
        return "unknown"
    try:
        changed = git("status", "--porcelain", "--", "pruning_core", "notebooks")
        return git("rev-parse", "--short", "HEAD") + (DIRTY if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        if named := re.search("^model name.*?:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE):
            return named[1].strip()
    return platform.processor() or platform.machine() or "unknown"


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


@checked(device=Device())
def environment(device: Any = "cpu") -> dict[str, str | int]:
    """What a reader must know about the machine behind a number, as columns of a row: versions, the ``revision`` of the
    checkout, ``device`` (the model name of the processor or GPU), ``threads`` that torch uses on the CPU. Raises BadInput for
    a device that is not there.

    >>> sorted(environment())[:4]
    ['device', 'numpy', 'package', 'python']
    """
    present(device)
    device = torch.device(device)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "numpy")},
        "package": _version("pruning-core"),
        "revision": _revision(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }
