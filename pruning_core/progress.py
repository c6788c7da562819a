"""The progress bar of everything that takes long."""

import os
import threading
from typing import Any

STILL = "PRUNING_STILL"
"""Environment variable: where it is set nobody sits at the screen, and figures with a knob are drawn as pictures."""


def progress_bar(progress: bool, **settings: Any) -> Any:
    """A tqdm bar; none when ``progress`` is False or $TQDM_DISABLE is set, which tqdm's bar for notebooks overlooks."""
    from tqdm.auto import tqdm

    # Its own lock is one for several processes as well, a semaphore of the system that a worker leaves when it is killed.
    if not hasattr(tqdm, "_lock"):
        tqdm.set_lock(threading.RLock())
    return tqdm(**settings, disable=not progress or bool(os.environ.get("TQDM_DISABLE")))
