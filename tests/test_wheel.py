"""The package as a wheel: a downloaded notebook runs in an empty folder, and what needs the repository says so."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pruning_core.version import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but what the wheel holds, and an environment that looks there first."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # so that nothing is built inside the checkout
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True).split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)  # an archive of sources, and of them the wheel
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty = folder / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "PRUNING_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return site, empty, environment


def ran(installed, *arguments):
    _, empty, environment = installed
    return subprocess.run([sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True)


def test_settings_claims_and_stored_rows_are_found(installed):
    site, *_ = installed
    code = """
import pruning_core as pc
from pruning_core.book import claims, profile_settings
from pruning_core.version import REPOSITORY
print(pc.__file__)
print(profile_settings("4_snip/2_weights", "standard").seeds)
print(len(claims.load_claims(REPOSITORY / "book" / "claims.yml")) > 50)
print(len(pc.records.load(profile="standard")) > 1000)
print(list(pc.prune(pc.build_model("lenet300", "digits"), "magnitude", 0.5).report.removed))
"""
    done = ran(installed, "-c", code)
    assert done.returncode == 0, done.stderr
    place, seeds, *others = done.stdout.splitlines()
    assert Path(place).is_relative_to(site)
    assert int(seeds) >= 3
    assert others == ["True", "True", "['weights', 'channels', 'macs']"]


def test_a_downloaded_notebook_runs_in_an_empty_folder(installed):
    _, empty, _ = installed
    notebook = "2_scores_budgets_schedules.ipynb"
    shutil.copyfile(REPOSITORY / "notebooks" / "0_foundations" / notebook, empty / notebook)
    done = ran(installed, "-m", "papermill", notebook, "out.ipynb", "-p", "profile", "smoke", "--cwd", str(empty))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (empty / "out.ipynb").is_file()
    assert sorted(path.name for path in empty.iterdir()) == [notebook, "out.ipynb"]


@pytest.mark.parametrize("line", ["notebooks 0_foundations/1", "page 0_foundations/1", "scoreboard"])
def test_what_needs_the_repository_says_so(installed, line):
    done = ran(installed, "-m", "pruning_core", *line.split())
    assert done.returncode == 2
    assert "needs a checkout of the book's repository" in done.stderr
    assert len(done.stderr.splitlines()) == 1
