"""Notebooks whose first cell installs the package where it is missing, in Markdown that is read anywhere:
`python book/_ext/colab.py FOLDER`.

Colab opens single files of a branch, in an environment that has torch but not this package. The notebooks of the
repository do not carry the cell, which would name in every file where the repository lives: it is put in when the book is
published, into the branch that the Colab buttons open (the workflow `book`) and into what the site offers for download.
"""

import json
import sys
from pathlib import Path
from typing import Any

from plain import plain
from repository import ROOT, UNKNOWN, find

TAG = "install"
CELL = """\
# Only where the package is missing, as in Colab: this cell installs it.
import importlib.util

if importlib.util.find_spec("pruning_core") is None:
    %pip install --quiet "{requirement}"
    importlib.invalidate_caches()"""


def with_install(notebook: dict[str, Any], requirement: str) -> dict[str, Any]:
    """A copy of the notebook that begins with the cell, once; pages that are built from it do not show the cell.

    ``requirement`` is what pip shall install, as ``pruning-core @ https://...``.

    >>> with_install({"cells": []}, "pruning-core")["cells"][0]["metadata"]["tags"]
    ['remove-cell', 'install']
    """
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": TAG,
        "metadata": {"tags": ["remove-cell", TAG]},
        "outputs": [],
        "source": CELL.format(requirement=requirement).splitlines(keepends=True),
    }
    others = [c for c in notebook["cells"] if TAG not in c.get("metadata", {}).get("tags", ())]
    return notebook | {"cells": [cell, *others]}


def text(notebook: dict[str, Any]) -> str:
    """A notebook as nbformat writes it."""
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def write(folder: Path, requirement: str, root: Path = ROOT, site: str = "") -> list[Path]:
    """All notebooks of the repository with their cell, readable without MyST, below ``folder``; what was written.
    ``site``: the address of the book's site."""
    written = []
    for source in sorted((root / "notebooks").glob("[0-9]*/[0-9]*.ipynb")):
        target = folder / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        notebook = json.loads(source.read_text(encoding="utf-8"))
        target.write_text(
            text(with_install(plain(notebook, ROOT / source.relative_to(root), site), requirement)), encoding="utf-8"
        )
        written.append(target)
    return written


def main(given: list[str]) -> None:
    """Write the notebooks of this checkout, or say in one sentence why not."""
    if len(given) != 1:
        raise SystemExit("Which folder? For example: python book/_ext/colab.py /tmp/colab")
    if not (place := find()):
        raise SystemExit(UNKNOWN)
    print(
        f"{len(write(Path(given[0]), place.requirement, site=place.site))} notebooks that install {place.requirement}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
