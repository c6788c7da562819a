"""The wheel carries what the package reads from its repository: notebooks, their settings, claims, references, stored rows."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "notebooks/*/*.ipynb", "notebooks/*/profiles.yml", "book/claims.yml", "book/references.bib", "data/results/*.json",
)  # fmt: skip


class WithTheBook(build_py):
    """Copies these files below ``pruning_core/_shipped``, which takes the place of the repository (pruning_core/version.py)."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for file in (file for pattern in SHIPPED for file in sorted(Path().glob(pattern))):
                place = Path(self.build_lib, "pruning_core", "_shipped", file)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)


setup(cmdclass={"build_py": WithTheBook})
