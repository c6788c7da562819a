"""What the site needs beside the executed notebooks: JavaScript, reference, front page, methods, scoreboard, costs."""

import subprocess
import sys
from pathlib import Path

import api_pages
import assets
import front_page
import method_pages

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Prepare book/ for `jupyter-book build`; every step does nothing when its result is up to date."""
    assets.place()
    api_pages.write()
    front_page.write()
    method_pages.write()
    subprocess.run([sys.executable, "-m", "pruning_core", "scoreboard"], cwd=REPOSITORY, check=True)
    with open(REPOSITORY / "book" / "costs.md", "w", encoding="utf-8") as page:
        subprocess.run([sys.executable, "-m", "pruning_core", "costs"], cwd=REPOSITORY, check=True, stdout=page)


if __name__ == "__main__":
    main()
