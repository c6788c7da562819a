"""The ways to set the project up agree with each other, and nothing in them names a machine or a registry."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = {m[1].lower(): m[2] for m in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", LOCK, re.M)}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _direct() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("requirement", _direct(), ids=str)
def test_the_lock_pins_every_dependency_within_its_bounds(requirement: Requirement) -> None:
    pins = {_canonical(name): version for name, version in PINS.items()}
    assert _canonical(requirement.name) in pins
    assert requirement.specifier.contains(Version(pins[_canonical(requirement.name)]), prereleases=True)


def test_every_pin_of_the_lock_has_a_hash() -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK.strip())
    assert len(blocks) == len([line for line in LOCK.splitlines() if re.match(r"[A-Za-z0-9]", line)])
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_names_no_address() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b", LOCK, re.M)


def test_the_conda_environment_is_in_step() -> None:
    assert CONDA["channels"] == ["conda-forge"]
    conda = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert f"python{PROJECT['requires-python']}" in conda
    assert "pip" in conda
    # pip finds these two in place and brings neither its own torch nor CUDA; conda calls torch by another name
    bounds = {r.name: r.specifier for r in _direct()}
    named = {r.name: r.specifier for r in map(Requirement, conda) if r.name not in ("python", "nodejs", "pip")}
    assert named == {"pytorch": bounds["torch"], "torchvision": bounds["torchvision"]}
    editable = re.fullmatch(r"-e \.\[([a-z,]+)\]", pip[0])
    assert editable
    assert set(editable[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert set(editable[1].split(",")) >= {"book", "test"}
    # whatever else is listed must repeat the bounds of pyproject.toml word for word
    direct = {str(requirement) for requirement in _direct()}
    assert {str(Requirement(text)) for text in pip[1:]} <= direct


def test_torch_and_torchvision_bounds_allow_older_gpu_images() -> None:
    bounds = {r.name: r.specifier for r in _direct()}
    assert bounds["torch"].contains("2.11.0")
    assert bounds["torchvision"].contains("0.26.0")
    assert Version(PINS["torch"]) != Version("2.13.0"), "a CPU-only build of 2.13.0 breaks torchvision on some machines"


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def _text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in names if path.is_file() and path.suffix not in (".npz", ".png", ".parquet")]


@pytest.mark.parametrize("page", ["README.md", "book/how_to_read.md", "book/records.md", "book/index.md"])
def test_make_commands_in_the_prose_exist(page: str) -> None:
    path = ROOT / page
    if not path.is_file():
        pytest.skip(f"{page} is not written yet")
    text = path.read_text(encoding="utf-8")
    commands = set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", text, re.M))
    assert commands <= _targets(), commands - _targets()
    if page == "README.md":
        assert {"book", "test"} <= commands


def test_sub_commands_in_the_prose_exist() -> None:
    from pruning_core.commands import program

    for path in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]:
        if path.is_file():
            for name in re.findall(r"python -m pruning_core ([a-z-]+)", path.read_text(encoding="utf-8")):
                assert name in program.commands, f"{path.name} names the command {name}"


def test_no_file_names_a_registry_or_a_folder_of_this_machine() -> None:
    # written in pieces, or this file would find itself
    words = ["pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "deb.debian" + ".org", str(ROOT) + "/"]
    found = []
    for path in _text_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in words if word in text]
    assert found == []


def test_the_scripts_of_the_machine_room_are_executable() -> None:
    for path in (ROOT / ".ci").iterdir():
        assert path.stat().st_mode & 0o111, path.name
        assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0


def test_citation_and_version_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert set(citation["license"]) == {"Apache-2.0", "CC-BY-4.0"}
