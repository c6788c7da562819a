"""The words below a figure and in place of it: captions from ``captions.yml``, alternative texts of a length to be read out,
and the line that says where its numbers come from."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import pandas as pd

from pruning_core.records.files import read_yaml

_P = ParamSpec("_P")
CAPTIONS: dict[str, str] = read_yaml(Path(__file__).with_name("captions.yml"))
LONGEST_ALT = 200  # characters; what a figure says beyond is its description


class Captioned(Protocol):
    """What has a caption: figures and sliders."""

    caption: str


_Drawn = TypeVar("_Drawn", bound=Captioned)


def shortened(text: str, longest: int = LONGEST_ALT) -> str:
    """The sentences of a text that fit; of a first sentence that does not, the words.

    >>> shortened("Two curves. One falls to 0.5; the other rises.", 20)
    'Two curves.'
    >>> shortened("Two curves, of which one falls.", 15)
    'Two curves, of…'
    """
    if len(text) <= longest:
        return text
    whole = text[: longest + 1].rfind(". ")
    return text[: whole + 1] if whole > 0 else text[:longest].rsplit(" ", 1)[0] + "…"


def captioned(draw: Callable[_P, _Drawn]) -> Callable[_P, _Drawn]:
    """Decorate a drawing function: what it draws has the caption of captions.yml, as long as it was given none."""
    words = CAPTIONS[draw.__name__]

    @wraps(draw)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _Drawn:
        drawn = draw(*args, **kwargs)
        if not drawn.caption or drawn.caption in CAPTIONS.values():  # of a figure that this one builds on
            drawn.caption = words
        return drawn

    return wrapped


def facts_of(rows: pd.DataFrame) -> Iterator[str]:
    """Where the numbers of a figure come from, as far as their rows say it: profile, seeds, device, minutes."""
    rows = rows.dropna(axis="columns", how="all")
    if "profile" in rows:
        yield "profile " + ", ".join(sorted(rows["profile"].dropna().unique()))
    if "seed" in rows:
        seeds = rows["seed"].nunique()
        yield f"{seeds} seed{'s'[: seeds > 1]}"
    if "device" in rows:
        yield ", ".join(sorted(rows["device"].dropna().astype(str).unique()))
    if "seconds" in rows:
        per_run = rows.groupby("experiment")["seconds"].max() if "experiment" in rows else rows["seconds"]
        yield f"{per_run.sum() / 60:.1f} min"
