"""The numbers of a notebook in each profile: a notebook asks for them itself (:func:`profile_settings`), so plain papermill,
JupyterLab and ``make book`` all run the same thing."""

import json
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pruning_core.book.tables import check_table, read_table
from pruning_core.checks import A, Device, Flag, OneOf, Real, Several, Text, Whole, check, checked, present
from pruning_core.checks.constraints import Constraint
from pruning_core.checks.vocabulary import NUMBERS
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, BadType, known_name, shown
from pruning_core.experiments.asked import NUMBER_OF_EPOCHS, SEEDS
from pruning_core.methods.base import METHODS
from pruning_core.models.build import known_model
from pruning_core.records.places import file_bytes, located
from pruning_core.training.evaluation import PRECISIONS
from pruning_core.version import CHEAP, LONG, PROFILES, REPOSITORY

KNOBS = ("seeds", "model", "data", "width", "epochs", "methods", "sparsities")
"""The knobs that all notebooks share, as far as they have them, in the order of their parameters cells; at None the profile
decides."""


class Settings(dict):
    """The numbers of one notebook in one profile, as ``settings["epochs"]`` or ``settings.epochs``."""

    def __init__(self, name: str, profile: str, values: Mapping[str, Any]):
        super().__init__(values)
        self._name, self._profile = name, profile

    def __missing__(self, knob: str) -> Any:
        known_name(f"setting of {self._name}", knob, self)

    def __getattr__(self, knob: str) -> Any:
        if knob.startswith("_"):  # copy, pickle and IPython look for such names on every object
            raise AttributeError(knob)
        return self[knob]

    def __repr__(self) -> str:
        text = f"{self._name} at profile {self._profile}: " + ", ".join(f"{k} = {v!r}" for k, v in self.items())
        return textwrap.fill(text, 80, subsequent_indent="    ", break_long_words=False)


def read_profiles(path: Path, stem: str, profile: str) -> Settings:
    """The settings of notebook ``stem`` in ``profile`` out of a ``profiles.yml``.

    Below ``quick`` stand all knobs of a notebook; the other profiles name only those whose numbers differ. ``smoke``
    may leave a notebook out (it then runs as in quick); ``standard`` and ``paper`` must name it, if only with ``{}``,
    so that nobody takes quick numbers for long ones. Raises UnknownName for an unknown profile, notebook or knob, and
    BadInput for a value that a knob cannot have, wherever in the file it stands.
    """
    known_name("profile", profile, PROFILES)
    content = read_table(path, "profiles")
    if content is None:
        raise BadInput(f"the profiles {path} are empty: write `quick:`, and below it the knobs of each notebook.")
    check_table(content, "profiles", f"the profiles {path}")
    for name in content:
        known_name(f"profile in {path}", name, PROFILES)
    name = f"{path.parent.name}/{stem}"
    quick = content.get("quick") or {}
    known_name(f"notebook in the profile quick of {path}", stem, quick)
    base = quick[stem] or {}
    chosen = content.get(profile) or {}
    if profile in LONG and stem not in chosen:
        raise BadInput(f"{name} has no profile {profile!r} in {path}; add it there, or run it as quick.")
    changed = chosen.get(stem) or {}
    for knob in changed:
        known_name(f"setting of {name} in the profile {profile}", knob, base)
    for written, settings in (("quick", base), (profile, changed)):
        for knob, value in settings.items():
            try:
                _check_written(path, stem, knob, value, base[knob])
            except (BadInput, BadType) as error:
                where = f"{knob} of {stem} in the profile {written} of {path}"
                raise type(error)(f"{where} cannot be used: {error}") from error
    return Settings(name, profile, {**base, **changed})


@checked
def profile_settings(name: str, profile: str | Mapping[str, Any], **chosen: Any) -> Settings:
    """What a notebook asks for after its parameters cell: its numbers in ``profile``.

    ``name`` is chapter and stem, ``"0_foundations/1_sparsity"``. ``profile`` is the profile's name, or the notebook's
    ``globals()``, from which its parameters are taken: profile, seed, device, and the knobs that all notebooks share as far
    as this one has them (KNOBS). The chapter's ``profiles.yml`` is looked for from the working directory upwards (so a copy
    of the repository wins over the installed one), then beside the package. ``chosen`` holds further knobs of the
    parameters cell. A knob's value other than None replaces the profile's number.

    In the profiles smoke and quick torch is set to one thread, so that a reader sees the numbers of the page.
    Raises UnknownName for an unknown profile, notebook or knob, BadType or BadInput for a value that a knob cannot have, and
    BadInput when no ``profiles.yml`` is found.

    >>> profile_settings("0_foundations/2_scores_budgets_schedules", "hasty")
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown profile 'hasty': Allowed: paper, quick, smoke, standard.
    """
    chapter, _, stem = name.partition("/")
    here = located("the folder of a notebook", ".")
    places = [base / "notebooks" for base in (here, *here.parents)] + list(here.parents) + [REPOSITORY / "notebooks"]
    files = [place / chapter / "profiles.yml" for place in places]
    found = next((file for file in files if os.path.isfile(file)), None)  # Path.is_file raises for a long name
    if found is None:
        raise BadInput(f"no profiles.yml for {shown(name)} above {here} or in {REPOSITORY / 'notebooks'}.")
    given = profile if isinstance(profile, Mapping) else {"profile": profile}
    chosen_profile: str = check("profile", given.get("profile", "quick"), Text())
    settings = read_profiles(found, stem, chosen_profile)
    if given is profile:
        first = "settings" not in given  # later a notebook may call something else by a name of these
        shared = (*KNOBS, "seed", "device") if first else tuple(knob for knob in KNOBS if knob in settings)
        chosen = {knob: given[knob] for knob in shared if given.get(knob) is not None} | chosen
    values = {knob: value for knob, value in chosen.items() if value is not None}
    for knob, value in values.items():
        if knob not in ("seed", "device"):
            known_name(f"setting of {name}", knob, settings)
        values[knob] = checked_knob(found, stem, knob, value, settings.get(knob))
    if chosen_profile in CHEAP:
        import torch

        torch.set_num_threads(1)
    return Settings(name, chosen_profile, {**settings, **{n: v for n, v in values.items() if n in settings}})


def checked_knob(path: Path, stem: str, knob: str, value: Any, usual: Any) -> Any:
    """``value`` of a knob, if a notebook can work with it: of the kind of the ``usual`` one, and known where it is a name.

    ``path``: the chapter's profiles.yml, whose profiles name the methods that a notebook can compare.
    """
    if knob == "device":
        device = check(knob, value, Device())
        present(device)
        return device
    if knob == "methods":
        known = OneOf(*_methods_in(path, stem), kind=f"method of {path.parent.name}/{stem}")
        return list(check(knob, value, Several(known, at_least=1)))
    if (name := _last_word(knob)) in _NAMES:
        return _NAMES[name](value)
    constraint = _constraint(knob, usual)
    found = value if constraint is None else check(knob, value, constraint)
    if name in _MOST and isinstance(found, int):
        check(knob, found, _MOST[name])
    return list(found) if isinstance(found, tuple) else found


_NAMES: dict[str, Callable[[Any], str]] = {
    "data": lambda value: known_name("data set", value, DATASETS),
    "model": known_model,
    "precision": lambda value: known_name("precision", value, (*PRECISIONS, "auto")),
}


_MOST = {"epochs": Whole(at_most=NUMBER_OF_EPOCHS.at_most), "seeds": Whole(at_most=SEEDS.at_most)}
"""What is more was a slip, and would be planned until the memory is full."""


def _methods_in(path: Path, stem: str) -> Iterator[str]:
    """The methods that a page has in any profile; what cannot be one is refused where its profile is read."""
    for pages in (read_table(path, "profiles") or {}).values():
        methods = ((pages or {}).get(stem) or {}).get("methods")
        yield from (method for method in (methods if isinstance(methods, list) else ()) if isinstance(method, str))


def _check_written(path: Path, stem: str, knob: str, value: Any, usual: Any) -> None:
    """Hold a value of the file itself against what :func:`checked_knob` asks for, and what tables in it hold under the names
    of knobs. ``usual`` is the value below ``quick``, than which a number may be smaller."""
    table = isinstance(usual, Mapping) and knob not in _ALWAYS
    if isinstance(value, Mapping) != table and None not in (value, usual):
        raise BadType(f"{knob} must be {'a mapping' if table else 'no mapping'}, not {shown(value)}.")
    if isinstance(value, Mapping):
        for name, part in value.items():
            for one in part if name == "data" and isinstance(part, list) else [part]:
                _check_written(path, stem, name, one, one)
    elif knob == "methods":  # none: the page shows stored rows
        for method in check(knob, value, Several(Text())):
            if method not in METHODS and not _is_named_by(path.with_name(f"{stem}.ipynb"), method):
                known_name("method", method, METHODS)
    elif value is not None or knob in _ALWAYS:
        checked_knob(path, stem, knob, value, _from_zero(knob, value if usual is None else usual))
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                _check_written(path, stem, knob, part, part)
            elif knob in NUMBERS and isinstance(part, int | float):
                check(knob, part, NUMBERS[knob])


_ALWAYS = (*KNOBS, "batch", "precision")
"""Knobs without which no page that has them can run; others may be null."""


def _from_zero(knob: str, usual: Any) -> Any:
    """A usual value from which :func:`_constraint` tells the kind, and for whole numbers that they are not negative; None
    for a text in the place of a number, which is to have the kind of its name."""
    if isinstance(usual, str) and knob in NUMBERS:
        return None
    if isinstance(usual, list) and usual and all(type(entry) is int for entry in usual):
        return [0]
    return 0 if type(usual) is int else usual


def _is_named_by(page: Path, method: str) -> bool:
    """Whether a page's cells hold the name of a method in quotes: it makes variants and pipelines of its own."""
    try:
        return json.dumps(f'"{method}"')[1:-1] in file_bytes(page).decode("utf-8")
    except (OSError, UnicodeDecodeError):  # its reader says what is wrong with it
        return False


def _last_word(knob: str) -> str:
    """Of ``pixel_data`` the ``data``: pages with several of a kind put a word before its name."""
    return knob.rpartition("_")[2]


def _constraint(knob: str, usual: Any) -> Constraint | None:
    """What a knob must be: as others of its name, and of the kind of its usual value; None where that is unknown."""
    if knob in ("epochs", "batch") or _last_word(knob) == "seeds":
        return Whole(at_least=1)
    if (name := _last_word(knob)) in ("sparsities", "sparsity"):
        one = NUMBERS["sparsity"]
        return Several(one, at_least=1) if name == "sparsities" else one
    if usual is None or isinstance(usual, bool):
        return NUMBERS.get(knob) if usual is None else Flag()
    if isinstance(usual, int | float):
        kind = Whole if isinstance(usual, int) else Real
        named = NUMBERS.get(knob, NUMBERS.get(name))
        return named if type(named) is kind else Whole(at_least=min(usual, 1)) if isinstance(usual, int) else Real()
    if isinstance(usual, list):
        kinds = {type(entry) for entry in usual}
        numbers = Whole(at_least=min(*usual, 1)) if kinds == {int} else Real()
        return Several(numbers if kinds and kinds <= {int, float} else Text() if kinds == {str} else A(object))
    return Text() if isinstance(usual, str) else A(Mapping, "a mapping") if isinstance(usual, dict) else None
