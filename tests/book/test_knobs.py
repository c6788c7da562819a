"""The knobs of notebooks: one list for all, typed and checked before anything runs, a part of a page's stamp; files of them."""

import shlex
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import yaml

from pruning_core.book import chapters, notebooks
from pruning_core.book.chapters import SOURCES, find_notebooks
from pruning_core.book.notebooks import checked_parameters, page_stamp, read_parameters, stamp_of
from pruning_core.book.profiles import KNOBS, profile_settings, read_profiles
from pruning_core.commands import main
from pruning_core.errors import BadInput, BadType, PruningError, UnknownName

NOTEBOOKS = find_notebooks()
FILES = sorted((SOURCES / "parameters").glob("*.yml"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
WEIGHTS = SOURCES / "4_snip" / "2_weights.ipynb"


def settings_of(path: Path, profile: str = "quick") -> Any:
    return read_profiles(path.with_name("profiles.yml"), path.stem, profile)


@every_notebook
def test_a_notebook_takes_the_knobs_that_it_has_in_the_order_of_all(path):
    written, has = list(read_parameters(path)), settings_of(path)
    shared = ["profile", "seed", "device", *(knob for knob in KNOBS if knob in has)]
    assert written[: len(shared)] == shared
    assert not set(written[len(shared) :]) & set(KNOBS)
    knobs = {name: text for name, text in read_parameters(path).items() if name in KNOBS}
    assert set(knobs.values()) <= {"None"}
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    call = f'profile_settings("{path.parent.name}/{path.stem}", globals()'
    assert sum(call in source for source in cells) == 1
    assert call in cells[1], "before any work"


@every_notebook
def test_every_knob_that_a_profile_names_is_taken_and_nonsense_is_not(path, monkeypatch):
    written = read_parameters(path)
    monkeypatch.setattr(notebooks, "read_parameters", lambda _: written)  # papermill takes its time
    for profile in ("smoke", "quick", "standard", "paper"):
        usual = settings_of(path, profile)
        given = {knob: usual[knob] for knob in KNOBS if usual.get(knob) not in (None, [])}
        assert checked_parameters(path, profile, given) == {}  # what the profile says anyway changes nothing
    has = [knob for knob in KNOBS if knob in settings_of(path)]
    for knob in has:
        for value in (0, -1, True, "nix", [], [2.0], {}, 1.5j, object()):
            with pytest.raises(PruningError) as caught:
                checked_parameters(path, "quick", {knob: value})
            assert len(str(caught.value).splitlines()) == 1
    for knob in set(KNOBS) - set(has):
        with pytest.raises(UnknownName):
            checked_parameters(path, "quick", {knob: 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"), ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"epochs": "3"}, "epochs must be a whole number"), ({"seeds": -1}, "seeds must be at least 1"),
        ({"model": "lenet30"}, "did you mean 'lenet300'"), ({"data": "mnist5"}, "did you mean 'mnist5k'"),
        ({"methods": ["snipp"]}, "unknown method of 4_snip/2_weights 'snipp': did you mean 'snip'"),
        ({"methods": "snip"}, "methods must be a list"), ({"methods": []}, "methods must have a length of at least 1"),
        ({"sparsities": [0.5, 1]}, r"each of sparsities must lie in \[0, 1\)"),
        ({"sparsities": 0.5}, "sparsities must be a list"), ({"seed": -1}, "seed must be between"),
        ({"device": "gpu"}, "device must be a device of torch"), ({"width": 0.5}, "unknown setting"),
        ({"profile": "quik"}, "did you mean 'quick'"), ({"profile": 3}, "profile must be a text"),
    ],
)  # fmt: skip
def test_a_knob_set_by_hand_or_by_papermill_is_checked_where_the_settings_are_asked_for(given, message):
    scope = {"profile": "quick", "seed": 0, "device": "cpu", "epochs": None, **given}
    with pytest.raises(PruningError, match=message):
        profile_settings("4_snip/2_weights", scope)


def test_knobs_replace_what_the_profile_says_and_names_of_later_cells_do_not():
    usual = profile_settings("4_snip/2_weights", "quick")
    scope = {"profile": "quick", "seed": 3, "epochs": 4, "sparsities": (0.5, 0.9), "width": None, "strengths": [9.0]}
    found = profile_settings("4_snip/2_weights", scope)
    assert (found.epochs, found.sparsities) == (4, [0.5, 0.9])
    assert {**found, "epochs": 0, "sparsities": 0} == {**usual, "epochs": 0, "sparsities": 0}
    again = {
        **scope,
        "settings": found,
        "width": object(),
    }  # the cell a second time, after others: not a knob of this one
    assert profile_settings("4_snip/2_weights", again) == found


def test_knobs_are_a_part_of_the_stamp_and_usual_ones_are_none():
    stamp = stamp_of(WEIGHTS, "smoke")
    for same in (
        {"epochs": settings_of(WEIGHTS, "smoke").epochs},
        {"seed": 0},
        {"methods": None},
        {"profile": "smoke"},
    ):
        assert stamp_of(WEIGHTS, "smoke", same) == stamp
    changed = [{"epochs": 7}, {"epochs": 8}, {"seed": 1}, {"sparsities": [0.9]}, {"methods": ["snip"]}]
    assert len({stamp, *(stamp_of(WEIGHTS, "smoke", given) for given in changed)}) == 6
    with pytest.raises(BadInput, match="profile is 'paper', and the profile asked for 'smoke'"):
        stamp_of(WEIGHTS, "smoke", {"profile": "paper"})


def test_the_stamp_on_the_page_names_the_knobs_that_were_changed():
    text = page_stamp("quick", {"seed": 2}, {"seeds": 2}, 60.0, {"seed": 2, "epochs": 3, "methods": ["snip"]})
    assert "profile quick · epochs 3 · methods [&#x27;snip&#x27;] · seeds 2, 3 ·" in text
    assert "epochs" not in page_stamp("quick", {"seed": 2}, {"seeds": 2}, 60.0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_parameter_files_hold_what_the_profile_paper_says(file):
    chapter, _, stem = file.stem.partition("-")
    path = SOURCES / chapter / f"{stem}.ipynb"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {"profile", "device"} <= set(values) <= set(read_parameters(path))
    usual = settings_of(path, values["profile"])
    assert {knob: value for knob, value in values.items() if knob in KNOBS and usual[knob] != value} == {}
    assert (
        f"papermill notebooks/{chapter}/{stem}.ipynb out.ipynb -f notebooks/parameters/{file.name}\n"
        in file.read_text()
    )


def test_every_paper_has_parameter_files():
    assert {file.stem.partition("-")[0] for file in FILES} == {path.parent.name for path in NOTEBOOKS}


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[Any]:
    """What the command line asks the runner for."""
    calls: list[Any] = []

    def recorded(found, profile, parameters, **options):
        for path in found:
            checked_parameters(path, profile, parameters)
        calls.append((profile, parameters))
        return found

    monkeypatch.setattr(chapters, "run_notebooks", recorded)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_parameter_file_from_the_shell(asked, tmp_path, capsys):
    (tmp_path / "mine.yml").write_text("profile: smoke\nepochs: 7\nsparsities: [0.5]\n")
    assert main(shlex.split("notebooks 4_snip/2 --into out -f mine.yml -p epochs 8")) == 0
    assert main(shlex.split("notebooks 4_snip/2 --into out -f mine.yml --profile quick")) == 0
    assert main(shlex.split("notebooks 4_snip/2 --into out -p epochs 6 -p profile smoke")) == 0
    assert asked == [
        ("smoke", {"epochs": 8, "sparsities": [0.5]}),
        ("quick", {"epochs": 7, "sparsities": [0.5]}),
        ("smoke", {"epochs": 6}),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p epochs 0", "epochs must be at least 1"), ("-p epochs three", "epochs must be a whole number"),
        ("-p methods '[snipp]'", "did you mean 'snip'"), ("-f none.yml", "cannot read none.yml"),
        ("-f list.yml", "must hold keys and values"), ("-p epoch 3", "did you mean 'epochs'"),
        ("-f list.yml -p epochs 1", "must hold keys and values"), ("-p profile quik", "did you mean 'quick'"),
    ],
)  # fmt: skip
def test_a_wrong_knob_from_the_shell_is_one_sentence_before_any_notebook_starts(
    line, message, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(notebooks, "_executed", lambda *arguments: pytest.fail("it has started"))
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *arguments: pytest.fail("it has started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yml").write_text("[1, 2]\n")
    assert main(["notebooks", "4_snip/2", "--into", "out", *shlex.split(line)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def notebook_with(cell: str, folder: Path) -> Path:
    """A notebook of one's own whose parameters cell this is."""
    node = nbformat.v4.new_code_cell(cell, metadata={"tags": ["parameters"]})
    path = folder / "own.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Own"), node]), path)
    (folder / "profiles.yml").write_text("quick:\n  own: {n: 1}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('name = "a = b"', '"a = b"'),
        ('name = "c"  # one of: a, c = d', '"c"'),
        ("name = dict(a=1)", "dict(a=1)"),
        ('rates = [\n    0.1,\n]\nname: str = "c"', '"c"'),
        ("seed = 0; name = [\n    1,\n    2,\n]", "[1, 2]"),
    ],
)
def test_a_parameter_is_read_however_python_lets_it_be_written(cell, written, tmp_path):
    assert read_parameters(notebook_with(cell, tmp_path))["name"] == written


def test_a_cell_that_is_no_python_holds_no_parameters(tmp_path):
    with pytest.raises(BadInput, match="one assignment a line"):
        read_parameters(notebook_with("name = (", tmp_path))


@pytest.mark.parametrize(
    "cell",
    ["-" * 100_000 + "1", "n = " + "-" * 100_000 + "1", "n = " + "(" * 100_000, "n = " + "not " * 100_000 + "1",
     "m = 2\nn = " + "+".join("1" * 50_000), "n = a" + ".a" * 50_000],
    ids=["minus", "n minus", "brackets", "not", "plus", "points"],
)  # fmt: skip
def test_a_cell_that_is_nested_too_deeply_holds_no_parameters(cell, tmp_path):
    path = notebook_with(cell, tmp_path)
    for ask in (lambda: read_parameters(path), lambda: checked_parameters(path, "quick", {"n": 2})):
        with pytest.raises(BadInput, match="one assignment a line") as caught:
            ask()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "value", [np.arange(3), torch.arange(3), {1, 2}, float("nan"), [1, (2, 3)], {"a": [(1, 2)]}], ids=repr
)
def test_a_value_that_no_notebook_can_be_given_is_refused_in_one_sentence(value, tmp_path):
    path = notebook_with("value = None", tmp_path)
    with pytest.raises(BadType, match=r"hash|give lists"):
        checked_parameters(path, "quick", {"value": value})
    assert checked_parameters(path, "quick", {"value": [1, [2, 3]]}) == {"value": [1, [2, 3]]}
