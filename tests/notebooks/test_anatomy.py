"""The anatomy of a page: answer first, folded set-ups, short code, no printed tables, what was learnt, four exercises."""

import ast
import contextlib
import io
import itertools
import re
import textwrap
from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from pruning_core.book.chapters import find_notebooks
from pruning_core.book.exercises import EXERCISES, check
from pruning_core.book.judges import JUDGES

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell", "parameters"}
SAYING = (
    "backed(",
    "Markdown(",
    "side_by_side(",
    "print(",
    "refused(",
    "held(",
    "plots.",
    "figures.",
)  # figures have captions
LONGEST, FEWEST = 25, 4  # lines of a visible cell; exercises of a page
PAGES = {f"{path.parent.name}/{path.stem}": path for path in find_notebooks()}
every_page = pytest.mark.parametrize("name", [name for name in PAGES if not name.endswith("/0_opening")])


def cells(name: str) -> list[Any]:
    return nbformat.read(PAGES[name], as_version=4).cells


def words(name: str) -> str:
    return "\n\n".join(cell.source for cell in cells(name) if cell.cell_type == "markdown")


def shows_something(cell: Any) -> bool:
    """Whether a code cell ends with an expression, whose value the page shows."""
    if cell.cell_type != "code" or "hide-cell" in cell.metadata.get("tags", []):
        return False
    last = ast.parse(cell.source).body[-1]
    return isinstance(last, ast.Expr)


@every_page
def test_the_answer_stands_before_the_first_heading(name: str) -> None:
    found = cells(name)
    heading = next(i for i, cell in enumerate(found) if cell.cell_type == "markdown" and "\n## " in f"\n{cell.source}")
    opening = "\n".join(cell.source for cell in found[: heading + 1])
    assert ("**You will learn**" in opening and "**Before:**" in opening) or "**What to know before:**" in opening
    if name != "0_foundations/6_one_footing":  # its answer needs the footing explained first
        assert "The short answer." in opening or "backed(" in opening, "a page opens with its answer"


@every_page
def test_visible_code_is_short(name: str) -> None:
    for cell in cells(name):
        if cell.cell_type == "code" and not FOLDED & set(cell.metadata.get("tags", [])):
            assert len(cell.source.splitlines()) <= LONGEST, f"fold or shorten cell {cell.id}"


@every_page
def test_no_table_is_printed(name: str) -> None:
    assert not any("to_string" in cell.source for cell in cells(name) if cell.cell_type == "code")


@every_page
def test_a_table_of_words_is_escaped(name: str) -> None:
    """A styled table without a format shows words as they are; ``class 'int'`` in angle brackets is then a tag."""
    for cell in cells(name):
        for shown in re.findall(r"\.style\b(?!_)[^\n]*(?:\n[ )].*)*", cell.source):
            formats = (".format(", ".set_caption(")  # numbers, counts under a caption
            assert any(form in shown for form in formats), f"{cell.id}: use text_table for {shown!r}"


@pytest.mark.parametrize("name", PAGES)
def test_no_line_ends_within_a_word(name: str) -> None:
    """Lines of captions and of text are joined with spaces: one that ends with a hyphen tears a word in two."""
    assert [cell.id for cell in cells(name) if re.search(r"[a-z]-\n", cell.source)] == []


@every_page
def test_a_question_outside_the_exercises_is_answered_in_its_paragraph(name: str) -> None:
    _, *rest = words(name).split("\n\n## ")
    for section in rest:
        if section.startswith(("Exercises", "Further reading")):
            continue
        heading, _, text = section.partition("\n")
        assert not heading.rstrip().endswith("?") or text.strip(), heading
        assert not text.rstrip().endswith("?"), f"nobody answers the last question of {heading!r}"


@pytest.mark.parametrize("name", PAGES)
def test_only_a_title_and_the_exercises_leave_a_question_to_what_follows(name: str) -> None:
    """A cell that ends in a question leaves its reader with it: code is no answer."""
    found = [cell for cell in cells(name) if cell.cell_type == "markdown"]
    tasks = next((i for i, cell in enumerate(found) if "{exercise}" in cell.source), len(found))
    asking = [cell.id for cell in found[1:tasks] if cell.source.rstrip().rstrip("*").endswith("?")]
    assert asking == []


@every_page
def test_a_table_or_figure_is_followed_by_words(name: str) -> None:
    """No run of code cells ends at the next heading without a word of what to see, a caption or a backed sentence."""
    found = cells(name)
    for before, after in itertools.pairwise(found):
        if shows_something(before) and after.cell_type == "markdown" and after.source.startswith("## "):
            assert any(word in before.source for word in SAYING), (
                f"cell {before.id} is followed at once by the heading {after.source.splitlines()[0]!r}"
            )


@every_page
def test_it_says_what_was_learnt_and_sets_exercises(name: str) -> None:
    text = words(name)
    learnt = text.split("## What we learnt")[1].split("\n## ")[0]
    assert 3 <= learnt.count("\n- ") <= 5
    exercises, solutions = re.findall(r"\{exercise\} (.+)", text), re.findall(r"\{solution\} (\S+)", text)
    labels = re.findall(r":label: (\S+)", text)
    assert len(exercises) >= FEWEST and solutions == labels
    code = "\n".join(cell.source for cell in cells(name) if cell.cell_type == "code")
    checked = re.findall(r"check\(\"([^\"]+)\"", code)
    assert set(checked) <= set(EXERCISES) and len(checked) >= FEWEST - 1
    assert any(task in JUDGES for task in checked), "at least one exercise asks for code"
    tasks = re.findall(r"\{exercise\}(.*?)```", text, flags=re.DOTALL)
    assert any(re.search(r"\b(run|Prune|Repeat)\b", task) for task in tasks), "at least one exercise changes a run"


def solutions() -> dict[str, Callable]:
    """Exercise -> the function that its page gives as the solution, for pages that print it as code."""
    found = {}
    for name in PAGES:
        tasks = {}
        for cell in cells(name):
            for task, wanted in re.findall(r"check\(\"([^\"]+)\", (\w+)\)", cell.source):
                tasks[wanted] = task
        for block in re.findall(r"```python\n(.*?)```", words(name), flags=re.DOTALL):
            space: dict[str, Any] = {}
            with contextlib.suppress(NameError):
                exec("import numpy as np\nimport torch\n" + textwrap.dedent(block), space)
            found |= {task: space[wanted] for wanted, task in tasks.items() if wanted in space}
    return found


SOLUTIONS = solutions()


@pytest.mark.parametrize("task", sorted(SOLUTIONS))
def test_the_printed_solution_is_right_and_an_empty_function_is_not(task: str) -> None:
    for answer, right in ((SOLUTIONS[task], True), (lambda *values: None, False)):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            check(task, answer)
        assert said.getvalue().startswith("Right.") == right


def test_solutions_were_found() -> None:
    assert len(SOLUTIONS) >= 5


def test_a_judge_compares_shapes_values_and_hands_out_copies() -> None:
    import torch

    from pruning_core.book.judges import computes

    judge = computes(lambda x: x + 1, [(torch.ones(3),)])
    assert judge(lambda x: x.add_(1)) and judge(lambda x: x + 1)
    assert not judge(lambda x: (x + 1)[:2]) and not judge(lambda x: x + 1.01) and not judge(lambda x: x.sum() + 1)
