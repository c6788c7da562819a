"""Studies: the records of what is computed without a training, such as simulations, costs and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pruning_core.checks import checked
from pruning_core.checks.constraints import plain
from pruning_core.errors import BadInput, known_name
from pruning_core.records.files import cache_root, replaceable
from pruning_core.records.hashes import content_hash
from pruning_core.records.locks import exclusive
from pruning_core.records.machine import environment
from pruning_core.records.table import read_rows, recorded, write_rows
from pruning_core.version import PROFILES, code_of


@checked
def study(settings: Mapping[str, Any], compute: Callable[[], Iterable[Mapping[str, Any]]], *, profile: str = "quick"):
    """The rows that ``compute()`` gives, as a DataFrame: read from their record when there is one, else recorded.

    ``settings`` name the study and hold all that decides its rows: equal settings, equal record, whether a number is 1, 1.0
    or a scalar of numpy. Each row is joined by the
    profile, the versions and the machine, and by ``seconds`` of the whole study unless it has its own. As with experiments,
    records of smoke and quick are void when the package's code changes, and two processes never compute the same study.

    Raises BadInput when ``compute`` gives no row.

    >>> study({"name": "squares", "upto": 2}, lambda: [{"n": n, "square": n * n} for n in (1, 2)])["square"].tolist()
    [1, 4]
    """
    import pandas as pd

    known_name("profile", profile, PROFILES)
    code = code_of(profile)
    try:
        key = content_hash({"study": _in_one_form(settings), "code": code})
    except RecursionError:
        raise BadInput("the settings of a study hold themselves, so no key can name them.") from None
    path = cache_root() / "records" / f"{key}.json"
    if not path.exists():
        with exclusive(path):
            if not path.exists():
                replaceable(path)  # a link that leads nowhere: found now, and not after the work
                origin, started = environment(), time.perf_counter()
                rows = [dict(row) for row in compute()]
                if not rows:
                    raise BadInput(f"the study {dict(settings)} has no rows.")
                about = {"experiment": key, "profile": profile, "code": code, "seconds": time.perf_counter() - started}
                about |= {"study": str(settings.get("name", "studies"))}
                write_rows(path, [about | row | origin for row in rows])
                return pd.DataFrame(read_rows(path))
    return pd.DataFrame(recorded(path, key))


def _in_one_form(value: Any) -> Any:
    """``value`` with every number that it holds in the one form that is hashed: a whole one as an int, no zero negative."""
    if isinstance(value, Mapping):
        return {name: _in_one_form(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_in_one_form(entry) for entry in value]
    value = plain(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
