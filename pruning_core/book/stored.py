"""A stored notebook, held against its format before anything is done with it."""

import json
import os
from collections import Counter
from typing import Any

from pruning_core.errors import BadInput, shown
from pruning_core.records.places import file_bytes

LARGEST = 50_000_000  # bytes; those of the book, which hold no outputs, have a thousandth of that
FORMAT = 4
UNREADABLE = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What Python's parser raises for a cell that it cannot read; the last two for one that is nested too deeply."""
_REMEDY = "fetch it anew (in a checkout: `git restore` and its name), or save it from JupyterLab"


def stored_notebook(path: str | os.PathLike) -> Any:
    """The notebook in a file, as nbformat's node of format 4.

    Raises BadInput, in one sentence that says what is wrong and what to do, for a file that cannot be read, that is no
    notebook or one of another format, and for cells of which two have one id.
    """
    import nbformat

    try:
        text = file_bytes(path, LARGEST).decode("utf-8")
        content = json.loads(text)
    except FileNotFoundError as error:
        raise BadInput(f"there is no notebook {path}.") from error
    except OSError as error:
        raise BadInput(f"the notebook {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "it is no text in UTF-8") from error
    except (ValueError, RecursionError) as error:
        line = f", from line {error.lineno} on" if isinstance(error, json.JSONDecodeError) else ""
        raise _damaged(path, f"it is no JSON{line}") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is no JSON object")
    if type(given := content.get("nbformat")) is not int or given != FORMAT:  # 4.0 is none that nbformat takes
        raise BadInput(
            f"{path} has the notebook format {shown(given)}, not {FORMAT}: open it in JupyterLab and save it."
        )
    if type(content.get("nbformat_minor")) is not int or not isinstance(content.get("cells"), list):
        raise _damaged(path, "it holds no list of cells, or no minor version of its format")
    try:
        wrong = next(nbformat.validator.iter_validate(content), None)
    except Exception as error:  # its validator expects that a kind is a text
        raise _damaged(path, "a part of it is none that the format knows") from error
    if wrong:
        why = " ".join(str(wrong.message).split())  # of a cell that is none, its whole content
        where = f" (at {'.'.join(map(str, wrong.path))})" if wrong.path else ""
        raise _damaged(path, f"{why if len(why) < 100 else 'a part of it is none that the format knows'}{where}")
    ids = Counter(cell["id"] for cell in content["cells"] if "id" in cell)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise _damaged(path, f"{ids[twice[0]]} of its cells have the id {shown(twice[0])}")
    return nbformat.reads(text, as_version=FORMAT)


def _damaged(path: str | os.PathLike, why: str) -> BadInput:
    return BadInput(f"{path} is no notebook: {why}; {_REMEDY}.")
