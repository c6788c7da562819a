"""What a row says of the machine and the code that made it."""

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pruning_core.records.files import is_checkout
from pruning_core.version import REPOSITORY


@functools.cache
def _revision() -> str:
    """The short git hash of the checkout, "+dirty" when the code (not the results) differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()

    # Without a .git of its own an installed copy would report the project that it is installed into.
    if not (is_checkout() and (REPOSITORY / ".git").exists()):
        return "unknown"
    try:
        changed = git("status", "--porcelain", "--", "pruning_core", "notebooks")
        return git("rev-parse", "--short", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def environment(device: Any = "cpu") -> dict[str, str | int]:
    """What a reader must know about the machine behind a number, as columns of a row: versions, the ``revision`` of the
    checkout, ``device`` (the model name of the processor or GPU), ``threads`` that torch uses on the CPU."""
    device = torch.device(device)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "numpy")},
        "package": _version("pruning-core"),
        "revision": _revision(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }
