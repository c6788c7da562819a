"""The chapters' profiles.yml: what stands in the file is held against what the command line would take."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from pruning_core.book import chapters
from pruning_core.book.profiles import checked_knob, profile_settings, read_profiles
from pruning_core.errors import BadInput, PruningError, UnknownName
from pruning_core.version import PROFILES

BASE = {
    "model": "lenet300", "data": "digits", "width": 1.0, "batch": 64, "limit": None, "precision": "float32", "epochs": 2,
    "seeds": 1, "methods": ["snip"], "sparsities": [0.5], "steps": 4, "pixel_data": "mnist5k", "slow": False, "large": {},
}  # fmt: skip


def written(folder: Path, profiles: dict) -> Path:
    path = folder / "profiles.yml"
    path.write_text(yaml.safe_dump(profiles), encoding="utf-8")
    return path


@pytest.mark.parametrize("profile", ["quick", "smoke"])
@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("epochs", -1, "epochs must be at least 1, not -1"), ("epochs", None, "epochs must be a whole number"),
        ("epochs", 1.5, "epochs must be a whole number"), ("seeds", 0, "seeds must be at least 1"),
        ("seeds", True, "seeds must be a whole number"), ("seeds", {"a": 1}, "seeds must be"),
        ("sparsities", [2], r"each of sparsities must lie in \[0, 1\)"), ("sparsities", 0.5, "sparsities must be a list"),
        ("sparsities", [], "sparsities must have a length"), ("model", "nix", "unknown model 'nix'"),
        ("model", 3, "unknown model 3"), ("model", "torchvision/nix", "unknown model 'torchvision/nix'"),
        ("model", "torchvision/", "unknown model"), ("model", "torchvision/resnet19", "did you mean 'torchvision/resnet18"),
        ("large", {"model": "torchvision/nix"}, "unknown model 'torchvision/nix'"),
        ("epochs", 10**30, "epochs must be at most 1000000"), ("seeds", 10**9, "seeds must be at most 10000"),
        ("data", "nix", "unknown data set 'nix'"), ("data", ["digits"], "unknown data set"),
        ("pixel_data", "nix", "unknown data set 'nix'"), ("methods", 3, "methods must be a list"),
        ("methods", "snip", "methods must be a list"), ("methods", [None], "each of methods must be a text"),
        ("methods", ["nix"], "unknown method 'nix'"), ("methods", ["snipp"], "did you mean 'snip'"),
        ("methods", None, "methods must be a list"), ("methods", [["snip"]], "each of methods must be a text"),
        ("precision", "float23", "unknown precision 'float23'"), ("width", 0.0, "width must be finite and above 0"),
        ("width", "wide", "width must be"), ("batch", 0, "batch must be at least 1"), ("limit", 0, "limit must be at least 1"),
        ("limit", -5, "limit must be at least 1"), ("limit", "all", "limit must be a whole number"),
        ("steps", 0, "steps must be at least 1"), ("slow", 3, "slow must be"),
        ("large", {"epochs": -1}, "epochs must be at least 1"), ("large", {"methods": ["nix"]}, "unknown method 'nix'"),
        ("large", {"model": "nix"}, "unknown model 'nix'"), ("large", {"data": ["digits", "nix"]}, "unknown data set 'nix'"),
    ],
)  # fmt: skip
def test_a_value_in_the_file_is_checked_like_one_from_the_command_line(profile, knob, value, message, tmp_path):
    profiles = {"quick": {"1_first": BASE}, "smoke": {"1_first": {}}}
    assert read_profiles(written(tmp_path, profiles), "1_first", profile) == BASE
    profiles[profile] = {"1_first": profiles[profile]["1_first"] | {knob: value}}
    if (knob, profile) == ("slow", "quick"):  # there the value says what the knob is
        return
    path = written(tmp_path, profiles)
    with pytest.raises(PruningError, match=message) as caught:
        read_profiles(path, "1_first", profile)
    said = str(caught.value)
    assert said.startswith(f"{knob} of 1_first in the profile {profile} of {path} cannot be used: ")
    assert len(said.splitlines()) == 1


def test_a_page_may_name_variants_of_its_own(tmp_path):
    path = written(tmp_path, {"quick": {"1_first": BASE | {"methods": ["snip", "snip-raw"]}}})
    with pytest.raises(UnknownName, match="unknown method 'snip-raw'"):
        read_profiles(path, "1_first", "quick")
    (tmp_path / "1_first.ipynb").write_text(r'{"source": ["ways = {\"snip-raw\": 1}"]}')
    assert read_profiles(path, "1_first", "quick").methods == ["snip", "snip-raw"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "null\n"])
def test_an_empty_file_says_what_to_write(text, tmp_path):
    path = tmp_path / "profiles.yml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"^the profiles .*profiles\.yml are empty: write `quick:`"):
        read_profiles(path, "1_first", "quick")


@pytest.mark.parametrize("text", ["[]", "false", "0", "quick: [1]", "quick: 3"])
def test_a_file_of_another_form_is_refused(text, tmp_path):
    path = tmp_path / "profiles.yml"
    path.write_text(text)
    with pytest.raises(BadInput, match="must be object"):
        read_profiles(path, "1_first", "quick")


def test_what_another_profile_has_wrong_does_not_break_a_knob(tmp_path):
    path = written(tmp_path, {"quick": {"1_a": BASE}, "smoke": None, "paper": {"1_a": {"methods": 3}, "2_b": None}})
    assert checked_knob(path, "1_a", "methods", ["snip"], ["snip"]) == ["snip"]
    path = written(tmp_path, {"quick": {"1_a": BASE}, "paper": {"1_a": {"methods": [None, [1], {"b": 1}]}}})
    assert checked_knob(path, "1_a", "methods", ["snip"], ["snip"]) == ["snip"]


@pytest.mark.parametrize("profile", PROFILES)
def test_all_profiles_of_the_book_pass(profile):
    read = [read_profiles(n.with_name("profiles.yml"), n.stem, profile) for n in chapters.find_notebooks()]
    assert len(read) > 20
    assert all(read)


def test_a_notebook_that_is_named_twice_runs_once():
    (found,) = chapters.find_notebooks(
        ["0_foundations/1", "0_foundations/1_sparsity", "0_foundations/1_sparsity.ipynb"]
    )
    assert found.stem == "1_sparsity"


@pytest.mark.parametrize("n", [300, 5000])
def test_names_that_are_too_long_for_a_file_are_unknown_ones(n):
    with pytest.raises(BadInput, match=r"no profiles\.yml for 'xxx") as caught:
        profile_settings(f"{'x' * n}/{'x' * n}", "quick")
    assert len(str(caught.value)) < 500
    with pytest.raises(UnknownName, match="unknown notebook 'xxx"):
        chapters.find_notebooks(["x" * n])
    with pytest.raises(BadInput, match="sources must be the path"):
        chapters.find_notebooks(["0_foundations/1"], Path("x" * n))


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_a_device_that_is_not_there_is_refused_by_the_check_of_all(device, monkeypatch):
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False))
    with pytest.raises(BadInput, match=f"^device='{device}' was asked for, but torch "):
        profile_settings("4_snip/2_weights", "quick", device=device)
