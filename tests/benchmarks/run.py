"""Speed and memory as ratios of ours to a peer's, compared with the stored baseline. It never fails for being slow.

    python tests/benchmarks/run.py [--only SNAP-it] [--slow] [--turns 3] [--json found.json] [--update]

Times are processor time on one thread, taken in turns; a ratio below 1 says that ours takes less. Brackets hold quartiles of
the ratio over the turns. "missed" marks a claim that a median breaks; the word in front compares with the baseline.
"""

import argparse
import importlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

from pruning_core.progress import progress_bar
from pruning_core.records import environment
from stopwatch import ROWS, Row, measured, word

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"


def chosen(only: list[str], slow: bool) -> list[Row]:
    """The rows whose names contain one of ``only`` (else all), without slow ones unless they are asked for."""
    for file in sorted(HERE.glob("bench_*.py")):
        importlib.import_module(file.stem)
    wanted = [row for name, row in ROWS.items() if not only or any(part.lower() in name.lower() for part in only)]
    return [row for row in wanted if slow or only or not row.slow]


def line(row: Row, found: dict[str, Any], old: dict[str, Any] | None) -> str:
    """One row as it is printed."""
    low, high = found["quartiles"]
    claim = "" if row.at_most is None else f"  <= {row.at_most:g}" + (" MISSED" if found["ratio"] > row.at_most else "")
    scale, unit = (1e3, "ms") if row.unit == "s" else (1, row.unit)
    values = f"{scale * found['ours']:9.4g} {scale * found['peer']:9.4g} {unit:14s}"
    before = f" (was {old['ratio']:.2f})" if old else ""
    remark = f"\n         {found['remark']}" if "remark" in found else ""
    ratio = f"{found['ratio']:6.2f} [{low:.2f}, {high:.2f}]{claim}"
    return f"{word(found, old):7s} {row.name:52s} {values} {ratio}{before}\n         against {row.peer}{remark}"


def store(path: Path, head: dict[str, str], found: dict[str, Any]) -> None:
    """Writes JSON with one row a line; rows that do not exist any more are left out."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found.items() if name in ROWS)
    path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "rows": {{\n{lines}\n }}\n}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="rows whose names contain this; may be repeated")
    parser.add_argument("--slow", action="store_true", help="the largest networks as well")
    parser.add_argument("--turns", type=int, help="how often each row is read (default: what it says itself)")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--update", action="store_true", help="store the numbers as the baseline of these rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = chosen(arguments.only, arguments.slow)
    if not rows:
        parser.error(f"no row is called like {', '.join(arguments.only)}; there are: {'; '.join(ROWS)}")
    stored = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {"rows": {}}
    made = {name: str(value) for name, value in environment().items() if name != "revision"}
    print(
        f"{made['device']}, torch {made['torch']}, Python {platform.python_version()}; baseline: {stored.get('device')}"
    )
    rows_found: dict[str, Any] = {}
    places = [(arguments.json, {})] if arguments.json else []
    places += [(BASELINE, stored["rows"])] if arguments.update else []
    with progress_bar(True, iterable=rows, unit="row") as bar:
        for row in bar:
            bar.set_description(row.name[:40])
            try:
                found = measured(row, arguments.turns)
            except Exception as error:  # the other rows can still be measured
                bar.write(f"failed  {row.name}: {type(error).__name__}: {error}")
                continue
            rows_found[row.name] = found
            bar.write(line(row, found, stored["rows"].get(row.name)))
            for path, kept in places:  # after every row: a run that is stopped leaves what it has found
                store(path, made, kept | rows_found)


if __name__ == "__main__":
    main()
