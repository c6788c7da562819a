"""The notebook runner: profiles, stamps, resuming, and failures that nobody can mistake for results."""

import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pruning_core.__main__ import main
from pruning_core.book import chapters, notebooks
from pruning_core.book.notebooks import NotebookFailed, run_notebook, stamp_of
from pruning_core.book.profiles import profile_settings, read_profiles
from pruning_core.errors import BadInput, UnknownName


def write(
    path: Path, *code: str, parameters: str = 'profile = "quick"\nseed = 0\ndevice = "cpu"\nsteps = None'
) -> Path:
    cells: list[Any] = [new_markdown_cell("# A page"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(text) for text in code]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A chapter of its own: two notebooks that count how often they ran."""
    chapter = tmp_path / "notebooks" / "9_test"
    for stem in ("1_first", "2_second"):
        write(
            chapter / f"{stem}.ipynb",
            f"open('../../{stem}.runs', 'a').write('x')",
            "print('steps', steps, 'seed', seed)",
        )
    profiles = {
        "quick": {"1_first": {"steps": 3, "seeds": 2}, "2_second": {"steps": 4}},
        "smoke": {"1_first": {"steps": 1}},
    }
    (chapter / "profiles.yml").write_text(yaml.safe_dump(profiles), encoding="utf-8")
    return tmp_path


def run(book: Path, **options: Any) -> list[str]:
    ran = chapters.run_notebooks(
        chapters.find_notebooks(sources=book / "notebooks"),
        executed=book / "executed",
        failed=book / "failed",
        jobs=1,
        **options,
    )
    return [path.stem for path in ran]


def runs(book: Path, stem: str) -> int:
    path = book / f"{stem}.runs"
    return len(path.read_text()) if path.is_file() else 0


# --- profiles


def test_a_profile_changes_only_what_it_names(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "profiles.yml"
    assert read_profiles(path, "1_first", "quick") == {"steps": 3, "seeds": 2}
    assert read_profiles(path, "1_first", "smoke") == {"steps": 1, "seeds": 2}
    assert read_profiles(path, "2_second", "smoke") == {"steps": 4}


def test_long_profiles_must_be_written_down(book: Path) -> None:
    with pytest.raises(BadInput, match="9_test/1_first has no profile 'paper'"):
        read_profiles(book / "notebooks" / "9_test" / "profiles.yml", "1_first", "paper")


@pytest.mark.parametrize(
    ("stem", "profile", "message"),
    [
        ("1_first", "quik", "unknown profile 'quik': did you mean 'quick'"),
        ("1_frist", "quick", "did you mean '1_first'"),
    ],
)
def test_unknown_names_are_refused(book: Path, stem: str, profile: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        read_profiles(book / "notebooks" / "9_test" / "profiles.yml", stem, profile)


def test_a_knob_that_quick_does_not_have_is_refused(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "profiles.yml"
    path.write_text("quick: {1_first: {steps: 3}}\nsmoke: {1_first: {stesp: 1}}\n", encoding="utf-8")
    with pytest.raises(UnknownName, match="did you mean 'steps'"):
        read_profiles(path, "1_first", "smoke")


def test_a_broken_profile_file_is_one_clear_sentence(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "profiles.yml"
    path.write_text("quick: [", encoding="utf-8")
    with pytest.raises(BadInput, match=r"cannot read the profiles .*profiles\.yml"):
        read_profiles(path, "1_first", "quick")


@pytest.mark.parametrize("place", ["", "notebooks", "notebooks/9_test", "executed/9_test"])
def test_settings_are_found_from_wherever_the_notebook_runs(
    book: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (book / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(book / place)
    settings = profile_settings("9_test/1_first", "quick", steps=None)
    assert settings.steps == settings["steps"] == 3
    assert profile_settings("9_test/1_first", "quick", steps=7).steps == 7
    with pytest.raises(UnknownName, match="did you mean 'steps'"):
        settings.step  # noqa: B018
    with pytest.raises(UnknownName):
        profile_settings("9_test/1_first", "quick", stepps=1)


def test_settings_of_an_unknown_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"no profiles\.yml for '99_none/1_x'"):
        profile_settings("99_none/1_x", "quick")


# --- one notebook


@pytest.mark.notebooks
def test_parameters_reach_the_notebook_and_no_path_stays_in_it(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "1_first.ipynb"
    notebook = run_notebook(path, "smoke", {"seed": 5, "steps": 9})
    text = nbformat.writes(notebook)
    assert "steps 9 seed 5" in text
    assert "profile smoke · steps 9 · seeds 5, 6 ·" in notebook.cells[0].source
    assert str(book) not in text
    assert "papermill" not in notebook.metadata


@pytest.mark.parametrize(("name", "near"), [("step", "steps"), ("sed", "seed")])
def test_a_misspelt_parameter_is_refused_before_anything_runs(book: Path, name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown parameter of 1_first.ipynb '{name}': did you mean '{near}'"):
        run_notebook(book / "notebooks" / "9_test" / "1_first.ipynb", "quick", {name: 1})
    assert runs(book, "1_first") == 0


def test_an_unknown_profile_is_refused_before_anything_runs(book: Path) -> None:
    with pytest.raises(UnknownName, match="unknown profile 'fast'"):
        run_notebook(book / "notebooks" / "9_test" / "1_first.ipynb", "fast")
    assert runs(book, "1_first") == 0


def test_a_notebook_without_parameters_or_no_notebook_at_all(book: Path) -> None:
    bare = book / "notebooks" / "9_test" / "1_first.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), bare)
    with pytest.raises(BadInput, match="no cell tagged 'parameters'"):
        run_notebook(bare)
    bare.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(BadInput, match="is no notebook"):
        run_notebook(bare)
    bare.unlink()
    with pytest.raises(BadInput, match="there is no notebook"):
        run_notebook(bare)


def test_the_short_profiles_use_one_thread_and_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with notebooks.kernel_environment("quick"):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    with notebooks.kernel_environment("standard"):
        assert os.environ["OMP_NUM_THREADS"] == "7"


# --- stamps


def test_a_stamp_follows_source_settings_and_parameters_only(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "1_first.ipynb"
    stamp = stamp_of(path, "quick")
    assert stamp == stamp_of(path, "quick", {})
    assert stamp != stamp_of(path, "smoke")
    assert stamp != stamp_of(path, "quick", {"seed": 1})
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="seen")]
    notebook.cells[2].execution_count = 3
    nbformat.write(notebook, path)
    assert stamp == stamp_of(path, "quick"), "outputs are no part of the source"
    profiles = path.with_name("profiles.yml")
    content = yaml.safe_load(profiles.read_text(encoding="utf-8"))
    content["quick"]["2_second"]["steps"] = 99
    profiles.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert stamp == stamp_of(path, "quick"), "another notebook's numbers are no concern of this one"
    content["quick"]["1_first"]["steps"] = 99
    profiles.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert stamp != stamp_of(path, "quick")


def test_a_stamp_follows_the_package(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book / "notebooks" / "9_test" / "1_first.ipynb"
    before = stamp_of(path, "quick")
    monkeypatch.setattr(notebooks, "tree_hash", lambda *paths: "changed")
    assert stamp_of(path, "quick") != before


# --- many notebooks


@pytest.mark.notebooks
def test_only_what_changed_is_run_again(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads: what is run again does not depend on the worker, and a process would import everything each time.
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers))
    assert run(book) == ["1_first", "2_second"]
    assert run(book) == []
    assert (runs(book, "1_first"), runs(book, "2_second")) == (1, 1)
    write(
        book / "notebooks" / "9_test" / "2_second.ipynb", "open('../../2_second.runs', 'a').write('x')", "print('new')"
    )
    assert run(book) == ["2_second"]
    assert (runs(book, "1_first"), runs(book, "2_second")) == (1, 2)
    executed = book / "executed" / "9_test" / "1_first.ipynb"
    executed.write_bytes(executed.read_bytes()[:-40])  # truncated: no result
    assert run(book) == ["1_first"]


@pytest.mark.notebooks
def test_a_failing_cell_names_itself_and_leaves_no_result(book: Path) -> None:
    bad = write(book / "notebooks" / "9_test" / "1_first.ipynb", "print('so far')", "1 / 0", "print('never')")
    with pytest.raises(NotebookFailed, match=r"9_test/1_first, cell 4: ZeroDivisionError: division by zero") as caught:
        run(book, parameters={"seed": 3})
    assert not (book / "executed" / "9_test" / "1_first.ipynb").exists()
    assert (book / "executed" / "9_test" / "2_second.ipynb").is_file(), "the others are not held up"
    aside = book / "failed" / "9_test" / "1_first.failed.ipynb"
    assert str(aside) in str(caught.value)
    assert "so far" in aside.read_text(encoding="utf-8")
    write(bad, "print('repaired')")
    assert run(book, parameters={"seed": 3}) == ["1_first"]
    assert not aside.exists()


@pytest.mark.notebooks
@pytest.mark.slow
def test_killed_and_started_again_keeps_what_was_finished(book: Path) -> None:
    write(book / "notebooks" / "9_test" / "2_second.ipynb", "import time; time.sleep(60)")
    script = (
        "import sys; from pathlib import Path; from pruning_core.book import chapters\n"
        "if __name__ == '__main__':\n"
        f"    book = Path({str(book)!r})\n"
        "    chapters.run_notebooks(chapters.find_notebooks(sources=book / 'notebooks'),"
        " executed=book / 'executed', failed=book / 'failed', jobs=1)\n"
    )
    (book / "start.py").write_text(script, encoding="utf-8")
    process = subprocess.Popen([sys.executable, "start.py"], cwd=book)
    first, second = (book / "executed" / "9_test" / f"{stem}.ipynb" for stem in ("1_first", "2_second"))
    end = time.monotonic() + 90
    while not first.exists() and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.is_file()
    assert not second.exists()
    write(book / "notebooks" / "9_test" / "2_second.ipynb", "print('quick now')")
    assert run(book) == ["2_second"]
    assert runs(book, "1_first") == 1


def test_jobs_must_be_positive(book: Path) -> None:
    with pytest.raises(BadInput, match="at least 1, not 0"):
        chapters.run_notebooks([], jobs=0)


def test_notebooks_are_found_by_the_beginning_of_their_name(book: Path) -> None:
    sources = book / "notebooks"
    (found,) = chapters.find_notebooks(["9_test/2"], sources)
    assert found.stem == "2_second"
    (found,) = chapters.find_notebooks(["notebooks/9_test/1_first.ipynb"], sources)
    assert found.stem == "1_first"
    with pytest.raises(UnknownName, match="did you mean '9_test/1_first'"):
        chapters.find_notebooks(["9_test/1_frist"], sources)
    with pytest.raises(BadInput, match="several notebooks begin with '9_test/'"):
        chapters.find_notebooks(["9_test/"], sources)


def test_pages_without_a_source_go_and_gaps_are_filled_without_outputs(book: Path) -> None:
    executed = book / "executed"
    stray = write(executed / "9_test" / "3_gone.ipynb")
    chapters.remove_strays(book / "notebooks", executed)
    assert not stray.exists()
    assert [p.stem for p in chapters.fill_gaps(book / "notebooks", executed)] == ["1_first", "2_second"]
    assert chapters.fill_gaps(book / "notebooks", executed) == []
    assert notebooks.stamp_in(executed / "9_test" / "1_first.ipynb") is None


def test_outputs_in_a_stored_notebook_are_found(book: Path) -> None:
    path = book / "notebooks" / "9_test" / "1_first.ipynb"
    assert chapters.unstripped(path) == []
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.cells[2].execution_count = 1
    notebook.metadata["widgets"] = {}
    nbformat.write(notebook, path)
    assert chapters.unstripped(path) == ["metadata 'widgets'", "output in cell 3"]


def test_the_command_line_refuses_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notebooks", "0_fundations/1"]) == 2
    assert "unknown notebook '0_fundations/1'" in capsys.readouterr().err
    assert main(["run", "dens"]) == 2
    assert "did you mean 'dense'" in capsys.readouterr().err
    assert main(["run", "dense"]) == 2
    assert "dense needs epochs" in capsys.readouterr().err


@pytest.mark.parametrize("line", [
    "run dense -p epochs {", "run dense -p epochs nan", "run dense -p epochs 2024-01-01", "run dense -p epoch 2",
    f"run dense -p epochs 1 --seed {2**70}", "run dense -p epochs 1 --seed -1", "run dense -p epochs 1 --profile quik",
    "run dense -p epochs 1 --data digit", "run before_training -p method magnitud -p sparsity .5 -p epochs 1",
    "collect nix", "page nowhere", "page 0_foundations", "notebooks 0_foundations/1 --jobs 0",
    "notebooks 0_foundations/1 -p epoch 1", "notebooks 0_foundations/1 --profile ''", "sweep --jobs 0",
    "sweep-status --profile x",
])  # fmt: skip
def test_a_line_that_cannot_work_gets_one_sentence_and_status_2(line, empty_cache, capsys):
    assert main(shlex.split(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n")
    assert len(printed.err.splitlines()) == 1
    assert not list(empty_cache.glob("records/*.json"))
