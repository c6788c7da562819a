"""The package as a wheel: a downloaded notebook runs in an empty folder, and what needs the repository says so."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import colab
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


def test_what_a_failed_notebook_leaves_is_in_the_folder_that_was_asked_for(installed):
    site, empty, _ = installed
    line = "-m pruning_core notebooks 0_foundations/3 --into größe --profile smoke -p sparsity 0.9999999 --jobs 1"
    done = ran(installed, *line.split())
    assert done.returncode == 1
    assert "0_foundations/3_masks_to_networks, cell" in done.stderr
    (kept,) = (empty / "größe").rglob("*.failed.ipynb")
    assert kept.parts[-3] == "_failed"
    assert not (site / "pruning_core" / "_shipped" / "book" / "_failed").exists()
    shutil.rmtree(empty / "größe")


@pytest.fixture(scope="module")
def without_the_package(installed, tmp_path_factory):
    """What Colab offers: a kernel with pip and all other packages, in an environment of its own; its settings."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    others = folder / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "pruning_core" not in entry.name:
            (others / entry.name).symlink_to(entry)
    python = folder / "venv" / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.check_output(where, text=True).strip())
    (site / "others.pth").write_text(f"{others}\n")
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "empty",
              "language": "python"}  # fmt: skip
    (folder / "kernels" / "empty").mkdir(parents=True)
    (folder / "kernels" / "empty" / "kernel.json").write_text(json.dumps(kernel))
    _, _, environment = installed
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    return site, environment | {"JUPYTER_PATH": str(folder)}


def test_the_install_cell_installs_what_is_missing_and_the_notebook_runs(installed, without_the_package, tmp_path):
    site, environment = without_the_package
    (wheel,) = installed[0].parent.glob("*.whl")
    source = json.loads((REPOSITORY / "notebooks" / "0_foundations" / "3_masks_to_networks.ipynb").read_text("utf-8"))
    notebook = colab.with_install(source, f"pruning-core @ {wheel.as_uri()}")
    (tmp_path / "notebook.ipynb").write_text(colab.text(notebook), encoding="utf-8")
    assert not (site / "pruning_core").exists()
    command = ["-m", "papermill", "notebook.ipynb", "out.ipynb", "-k", "empty", "-p", "profile", "smoke"]
    for _ in range(2):  # the second time it is there, and nothing is installed
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (site / "pruning_core" / "_shipped").is_dir()
        cell = json.loads((tmp_path / "out.ipynb").read_text("utf-8"))["cells"][0]
        assert "install" in cell["metadata"]["tags"]
        environment = environment | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    assert cell["outputs"] == []
