"""The variables of the shell that decide how experiments run, held against what they can be before any work: some of them are
needed only once a training is done."""

import math
import os
import re

from pruning_core.checks import Device, check
from pruning_core.errors import BadInput, shown
from pruning_core.records.files import cache_root
from pruning_core.records.places import check_folder, located

_SCHEDULER = re.compile(r"\A[a-z]+://\S|:[0-9]{1,5}\Z")


def check_address(text: str, where: str = "") -> None:
    """Raise BadInput for what cannot be the address of a scheduler: without a port nobody can be reached, so nobody is asked.
    ``where`` it was given begins the sentence.

    >>> check_address("nowhere:8786")
    """
    if not _SCHEDULER.search(text):
        raise BadInput(
            f"{where}workers is a number of processes or a scheduler's address with its port, such as tcp://10.0.0.5:8786, "
            f"not {shown(text)}."
        )


def check_variables() -> None:
    """Raise BadInput, in one sentence that names it, for a variable ``PRUNING_...`` that cannot be what it says. An empty one
    counts as one that is not set. The place of a relative folder is settled: the one that it names now, also after a change of
    folder, and in processes that begin in another one.

    >>> check_variables()
    """
    cache = check_folder("PRUNING_CACHE", cache_root())
    data = os.environ.get("PRUNING_DATA")
    settled = {"PRUNING_CACHE": str(cache), "PRUNING_DATA": str(located("PRUNING_DATA", data)) if data else ""}
    os.environ.update({name: place for name, place in settled.items() if os.environ.get(name)})
    bound_of_checkpoints()
    workers = os.environ.get("PRUNING_WORKERS") or "1"
    if not re.fullmatch("[0-9]{1,1000}", workers):
        check_address(workers, "PRUNING_WORKERS: ")
    device_of_workers()


def bound_of_checkpoints() -> float:
    """How many bytes checkpoints may take: those of ``$PRUNING_CHECKPOINTS_GB``, or of 10 gigabytes."""
    text = os.environ.get("PRUNING_CHECKPOINTS_GB") or "10"
    try:
        found = float(text) * 1e9
    except ValueError:
        found = math.nan
    if not found >= 0:
        raise BadInput(f"PRUNING_CHECKPOINTS_GB is a number of gigabytes of at least 0, not {shown(text)}.")
    return found


def device_of_workers() -> str | None:
    """``$PRUNING_DEVICE``, where workers compute whatever an experiment says; None where it is not set."""
    named = os.environ.get("PRUNING_DEVICE")
    return check("PRUNING_DEVICE", named, Device()) if named else None
