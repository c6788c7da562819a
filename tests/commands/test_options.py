"""Every option and argument of every command, found by introspection, held against tables of bad values: one sentence and
status 2 before any work starts. A new option is tested without further words."""

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pruning_core import records
from pruning_core.book import chapters, sweeps
from pruning_core.commands import main, program
from pruning_core.experiments import runs, workers


class Began(BaseException):
    """Work was about to start: everything that was typed has been taken."""


def _begins(*arguments, **options):
    raise Began


@pytest.fixture(autouse=True)
def _no_work(monkeypatch, empty_cache, tmp_path):
    """What trains, gathers or starts processes is stopped where it begins; the working directory is empty."""
    for module, name in [
        (chapters, "ProcessPoolExecutor"), (sweeps, "local_cluster"), (workers, "local_cluster"), (runs, "start"),
        (records, "collect"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, _begins)
    monkeypatch.setattr(workers, "SECONDS_TO_CONNECT", 0.2)
    monkeypatch.setenv("PRUNING_DATA", "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# A line that each command takes, up to where its work would begin, and the word that stands for its arguments.
LINES = {
    "run": "dense -p epochs 1 --data digits --limit 300 --profile smoke --watch logs",
    "official": "mnist/lenet300_100 --epochs 1 --limit 400 --width 0.1 --data digits --seeds 1",
    "notebooks": "0_foundations/1 --profile smoke --always --jobs 1",
    "sweep": "0_foundations/1 --jobs 1",
    "page": "0_foundations/1",
    "collect": "standard",
}
STRUCTURES = ["[", "{", "'", "&a [*a]", "[" * 3000, "!!python/object:os.system x", "? [1]\n: 2", "2024-13-01"]
ODD = ["", " ", "no such name", "ü" * 3, "a\nb", "\t", "a\0b", "a\udc80b", "x" * 5000, "../..", "/", "~", "$(echo)", "nan",
       "-1"]  # fmt: skip
NO_INTEGER = ["", " ", "x", "1.5", "nan", "inf", "1e3", "0x10", "ü", "a\nb", "a\0b", "²", "9" * 5000, "[1]", "1 2",
              "True"]  # fmt: skip
OUT_OF_RANGE = ["-1", str(-(2**70)), str(2**70)]
NO_NUMBER = ["", "x", "nan", "inf", "-inf", "1e400", "-0.5", "0", "-1", "ü", "a\0b", "1,5", "[1]", "1 2", "None",
             "9" * 5000]  # fmt: skip
PLACES = ["no name", "a zero byte", "a line break", "a file", "below a file", "a pipe", "a socket", "a device",
          "a dangling link", "a link to itself", "closed", "too long", "half a letter", "a stray byte"]  # fmt: skip
NO_CONFIGURATION = [
    "not there",
    "a folder",
    "no text",
    "empty",
    "a number",
    "a list",
    "another table",
    "deep",
    "of itself",
]

# What is a value after all, though it stands in a table above.
TAKEN = {
    *((name, option, str(2**70)) for name in ("run", "official") for option in ("limit", "points", "batch_size")),
    *((name, "parameters", nothing) for name in ("notebooks", "page") for nothing in ("", " ", "~")),  # as if not set
}


def place(kind: str) -> str:
    """A path in the working directory at which no folder can be, and no file be read."""
    here = Path("place")
    match kind:
        case "no name":
            return ""
        case "a zero byte":
            return "a\0b"
        case "a line break":
            return "a\nb"
        case "half a letter":
            return "a\ud800b"
        case "a stray byte":
            return "a\udc80b"
        case "too long":
            return "x" * 300
        case "a file":
            here.write_text("x")
        case "below a file":
            here.write_text("x")
            return "place/below"
        case "a pipe":
            os.mkfifo(here)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(here))
        case "a device":
            here.symlink_to("/dev/null")
        case "a dangling link":
            here.symlink_to("nowhere")
        case "a link to itself":
            here.symlink_to("place")
        case "closed":
            here.mkdir(mode=0)
            return "place/below"
        case "a folder":
            here.mkdir()
        case "no text":
            here.write_bytes(b"\xff\xfe\x00")
        case "empty":
            here.write_text("")
        case "a number":
            here.write_text("1")
        case "a list":
            here.write_text("[1]")
        case "another table":
            here.write_text("a: 1")
        case "deep":
            here.write_text("a: " + "[" * 3000)
        case "of itself":
            here.write_text("model: &a [*a]\ndataset: *a\n")
    return "place"


def values(parameter: click.Parameter) -> list[str]:
    """Which table of bad values is for an option or argument."""
    if isinstance(parameter.type, click.Path):
        return PLACES + (NO_CONFIGURATION if parameter.name in ("config", "files", "network") else [])
    if getattr(parameter, "is_flag", False):
        return ["1", "", "x"]
    if isinstance(parameter.type, click.types.IntParamType):
        return NO_INTEGER + OUT_OF_RANGE
    if parameter.type is click.FLOAT:
        return NO_NUMBER
    return ODD + (STRUCTURES if parameter.name in ("parameters", "optimizer", "learning_rate") else [])


def cases() -> Iterator[tuple[str, click.Parameter, str]]:
    for name, command in program.commands.items():
        for parameter in command.params:
            if not isinstance(parameter, click.Option) or not parameter.is_eager:
                yield from ((name, parameter, value) for value in values(parameter))


def line(name: str, parameter: click.Parameter, value: str) -> list[str]:
    """The words of a command with the value in one place."""
    given = place(value) if isinstance(parameter.type, click.Path) else value
    words = [name, *shlex.split(LINES.get(name, ""))]
    if isinstance(parameter, click.Argument):
        if parameter.type is click.UNPROCESSED:  # flags of an official program
            return [*words, given]
        return [name, "--", given]
    if getattr(parameter, "is_flag", False):
        return [*words, f"{parameter.opts[-1]}={given}"]
    if parameter.name == "config":
        return [name, "--config", given]
    if parameter.nargs == 2:
        words = [*shlex.split(f"{name} {LINES[name]}".replace(" -p epochs 1", ""))]  # a name can be given once
        return [*words, parameter.opts[0], "epochs" if name == "run" else "seed", given]
    return [*words, f"{parameter.opts[-1]}={given}"]


def said(words: list[str], capsys: pytest.CaptureFixture[str], closed: bool = False) -> str:
    """The sentence that refuses a line; empty where it is taken."""
    try:
        if closed and not os.geteuid():  # root may enter every folder
            os.seteuid(65534)
        status = main(words)
    except Began:
        status = 0
    finally:
        os.seteuid(os.getuid())
    printed = capsys.readouterr()
    if status == 0:
        return ""
    assert status == 2
    assert printed.out == ""
    assert printed.err.endswith("\n")
    assert len(printed.err.splitlines()) == 1, printed.err
    assert len(printed.err) < 1500
    return printed.err


ALL = list(cases())


def test_there_are_many_cases():
    assert len({(name, parameter.name, value) for name, parameter, value in ALL} - TAKEN) > 600


@pytest.mark.parametrize("name", program.commands)
def test_the_lines_are_taken_as_far_as_to_their_work(name, capsys):
    if name in LINES:
        with pytest.raises(Began):
            main([name, *shlex.split(LINES[name])])


@pytest.mark.parametrize(
    ("name", "parameter"), dict.fromkeys((n, p) for n, p, _ in ALL), ids=lambda x: getattr(x, "name", x)
)
def test_a_bad_value_is_refused_before_any_work(name, parameter, capsys, monkeypatch, tmp_path):
    wrong: dict[str, str] = {}
    for k, value in enumerate(values(parameter)):
        folder, cache = tmp_path / f"here{k}", tmp_path / f"cache{k}"
        folder.mkdir()
        monkeypatch.setenv("PRUNING_CACHE", str(cache))
        monkeypatch.chdir(folder)
        try:
            words = line(name, parameter, value)
            before = sorted(os.listdir())
            refusal = said(words, capsys, value == "closed")
        except Exception as error:
            wrong[value] = repr(error)[:300]
            continue
        if (not refusal) != ((name, parameter.name, value) in TAKEN):
            wrong[value] = refusal or "taken"
        if sorted(os.listdir()) != before:
            wrong[value] = "left something"
        if cache.exists() if refusal else list(cache.glob("records/*.json")):
            wrong[value] = "wrote to the cache"
    assert wrong == {}
