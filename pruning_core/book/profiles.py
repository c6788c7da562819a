"""The numbers of a notebook in each profile: a notebook asks for them itself (:func:`profile_settings`), so plain papermill,
JupyterLab and ``make book`` all run the same thing."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning_core.book.tables import check_table, read_table
from pruning_core.checks import checked
from pruning_core.errors import BadInput, known_name
from pruning_core.version import CHEAP, LONG, PROFILES, REPOSITORY


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
    so that nobody takes quick numbers for long ones. Raises UnknownName for an unknown profile, notebook or knob.
    """
    known_name("profile", profile, PROFILES)
    content = read_table(path, "profiles") or {}
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
    return Settings(name, profile, {**base, **changed})


@checked
def profile_settings(name: str, profile: str, **chosen: Any) -> Settings:
    """What a notebook asks for after its parameters cell: its numbers in ``profile``.

    ``name`` is chapter and stem, ``"0_foundations/1_sparsity"``. The chapter's ``profiles.yml`` is looked for from the
    working directory upwards (so a copy of the repository wins over the installed one), then beside the package.
    ``chosen`` holds knobs from the parameters cell: a value other than None replaces the profile's number.

    In the profiles smoke and quick torch is set to one thread, so that a reader sees the numbers of the page.
    Raises UnknownName for an unknown profile, notebook or knob, BadInput when no ``profiles.yml`` is found.

    >>> profile_settings("0_foundations/2_scores_budgets_schedules", "hasty")
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown profile 'hasty': Allowed: paper, quick, smoke, standard.
    """
    chapter, _, stem = name.partition("/")
    here = Path.cwd()
    places = [base / "notebooks" for base in (here, *here.parents)] + list(here.parents) + [REPOSITORY / "notebooks"]
    files = [place / chapter / "profiles.yml" for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise BadInput(f"no profiles.yml for {name!r} above {here} or in {REPOSITORY / 'notebooks'}.")
    settings = read_profiles(found, stem, profile)
    for knob in chosen:
        known_name(f"setting of {name}", knob, settings)
    if profile in CHEAP:
        import torch

        torch.set_num_threads(1)
    values = {**settings, **{knob: value for knob, value in chosen.items() if value is not None}}
    return Settings(name, profile, values)
