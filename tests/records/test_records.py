"""Records: hashes that mean something, files that are whole or absent, tables that leave nothing out."""

import dataclasses
import errno
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy
import pytest

from pruning_core import records, version
from pruning_core.__main__ import main
from pruning_core.errors import BadInput, BadType, CorruptFile, UnknownName
from pruning_core.experiments import run_all
from pruning_core.masks.budgets import Budget
from pruning_core.records import files, hashes, locks, table


@dataclasses.dataclass(frozen=True)
class Setting:
    rate: float = 0.1
    stages: tuple = (1, 2)
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Later(Setting):
    extra: int = dataclasses.field(default=1, metadata=hashes.HASHED_UNLESS_DEFAULT)


Later.__name__ = "Setting"  # what Setting is called after a field has joined it


@dataclasses.dataclass(frozen=True)
class Other:
    rate: float = 0.1
    stages: tuple = (1, 2)


def test_hash_is_a_fixed_function_of_the_content():
    assert records.content_hash({"a": 1, "b": (2.5, None, "x")}) == "4f8233486cf7c740"
    assert records.content_hash({"b": [2.5, None, "x"], "a": 1}) == "4f8233486cf7c740"


def test_hash_tells_settings_apart():
    values = [Setting(), Setting(rate=0.2), Other(), {"rate": 0.1}, 1, 1.0, "1", True, [1], [[1]], None, {}, []]
    assert len({records.content_hash(value) for value in values}) == len(values)
    assert records.content_hash(Setting(note="a")) == records.content_hash(Setting(note="b"))
    assert records.content_hash(Setting(stages=[1, 2])) == records.content_hash(Setting())  # type: ignore[arg-type]


def test_a_field_that_joins_later_voids_no_record():
    assert records.content_hash(Later()) == records.content_hash(Setting())
    assert records.content_hash(Later(extra=2)) != records.content_hash(Later())
    assert records.content_hash(Budget(0.5)) == "2c8814c2e080249c"  # as before it had round_to


@pytest.mark.parametrize(
    "value", [pathlib.Path("x"), {1: 2}, {1, 2}, b"x", float("nan"), numpy.zeros(2), Setting, print]
)
def test_hash_refuses_what_has_no_lasting_meaning(value):
    with pytest.raises(BadType):
        records.content_hash({"deep": [value]})


def test_write_atomically_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    records.write_atomically(path, "one")
    records.write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    records.write_atomically(path, lambda temporary: numpy.savetxt(temporary, numpy.arange(3)))
    assert path.read_text().startswith("0")
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(errno.EIO, "input/output")])
def test_a_failing_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    records.write_atomically(path, "old")

    def writer(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        records.write_atomically(path, writer)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_no_room_is_one_sentence_with_the_path(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"cannot write .*record\.json: no room"):
        records.write_rows(tmp_path / "record.json", [{"seed": 0}])
    assert os.listdir(tmp_path) == []


def test_no_permission_is_one_sentence_with_the_path(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    root = os.geteuid() == 0
    if root:  # root may write anywhere, so that the test has to be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(BadInput, match=r"cannot write .*record\.json: no permission"):
            records.write_rows(folder / "record.json", [{"seed": 0}])
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not a folder"):
        records.write_rows(tmp_path / "file" / "record.json", [])


def _write_often(path, seed):
    for _ in range(30):
        records.write_rows(path, [{"seed": seed, "filler": "x" * 20_000}])


def test_two_processes_write_the_same_record(tmp_path):
    path = tmp_path / "record.json"
    records.write_rows(path, [{"seed": 0}])
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert records.read_rows(path)[0]["seed"] in (0, 1, 2)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert records.read_rows(path)[0]["seed"] in (1, 2)
    assert os.listdir(tmp_path) == ["record.json"]


ROWS = [
    {"experiment": "a", "seed": 0, "accuracy": 91.25, "note": "ü", "tags": {"x": [1, None]}},
    {"experiment": "a", "seed": 1, "accuracy": 0.1 + 0.2, "diverged": True},
]


def test_rows_come_back_exactly(tmp_path):
    records.write_rows(tmp_path / "r.json", ROWS)
    assert records.read_rows(tmp_path / "r.json") == ROWS
    assert json.loads((tmp_path / "r.json").read_text())["format"] == "pruning-core rows 1"
    records.write_rows(tmp_path / "none.json", [])
    assert records.read_rows(tmp_path / "none.json") == []


def test_scalars_are_stored_as_numbers_and_nan_as_missing(tmp_path):
    row = {"a": numpy.float32(0.5), "b": numpy.int64(3), "c": float("nan"), "d": float("inf"), "e": (1, 2)}
    records.write_rows(tmp_path / "r.json", [row])
    assert records.read_rows(tmp_path / "r.json") == [{"a": 0.5, "b": 3, "c": None, "d": None, "e": [1, 2]}]
    with pytest.raises(BadType, match="'where'"):
        records.write_rows(tmp_path / "r.json", [{"where": tmp_path}])
    for name in (1, None, ("a",)):  # as a text one would stand for another, and be lost
        with pytest.raises(BadType, match="the columns of a row have texts as names"):
            records.write_rows(tmp_path / "r.json", [{name: 1, str(name): 2}])


def test_damaged_records_are_refused(tmp_path):
    path = tmp_path / "r.json"
    records.write_rows(path, ROWS)
    whole = path.read_bytes()
    for length in (0, 1, 40, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile, match=r"r\.json"):
            records.read_rows(path)
    for position in range(whole.index(b"91.25"), whole.index(b"91.25") + 5):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CorruptFile):
            records.read_rows(path)


@pytest.mark.parametrize("content", [
    "[]", "{}", '{"format": "other", "rows": []}', "\x00\x01", '"text"',
    '{"format": "pruning-core rows 1", "sha256": "0", "rows": [1]}',
])  # fmt: skip
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(CorruptFile):
        records.read_rows(tmp_path / "r.json")
    with pytest.raises(CorruptFile, match=r"r\.json"):
        records.load(tmp_path)


TWICE = [
    '[{"accuracy": 1, "accuracy": 99}]',
    '[], "rows": [{"a": 99}]',
    '[{"curve": {"a": 0, "a": 1}, "accuracy": 99}]',
]


@pytest.mark.parametrize("rows", TWICE)
def test_a_key_that_stands_twice_is_no_record_although_the_checksum_fits_the_last_one(rows, tmp_path):
    checksum = hashes.digest(json.loads(f'{{"rows": {rows}}}')["rows"])
    (tmp_path / "r.json").write_text(f'{{"format": "{table.FORMAT}", "sha256": "{checksum}", "rows": {rows}}}')
    with pytest.raises(CorruptFile, match=r"r\.json"):
        records.read_rows(tmp_path / "r.json")


@pytest.mark.parametrize("untagged", [5, "label", ["label"], None])
def test_what_tags_stand_for_is_a_mapping(untagged, tmp_path):
    with pytest.raises(BadType, match="the untagged of a row must map columns"):
        records.write_rows(tmp_path / "r.json", [{"experiment": "a", "untagged": untagged}])
    rows = [{"experiment": "a", "untagged": untagged}]
    document = {"format": table.FORMAT, "sha256": hashes.digest(rows), "rows": rows}
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match="its untagged must map columns"):
        records.read_rows(tmp_path / "r.json")


def test_rows_of_a_generator_are_all_stored(tmp_path):
    records.write_rows(tmp_path / "r.json", ({"seed": seed} for seed in range(3)))
    assert [row["seed"] for row in records.read_rows(tmp_path / "r.json")] == [0, 1, 2]


def test_load_reads_filters_and_fills(tmp_path):
    records.write_rows(tmp_path / "one" / "r.json", ROWS)
    records.write_rows(tmp_path / "two" / "s.json", [{"experiment": "b", "seed": 0, "accuracy": 50.0}])
    (tmp_path / "two" / ".partial-1-t.json").write_text("half a rec")
    frame = records.load(tmp_path)
    assert list(frame.columns[: len(records.COLUMNS)]) == list(records.COLUMNS)
    assert "note" in frame
    assert frame["accuracy"].tolist() == [91.25, 0.1 + 0.2, 50.0]
    assert len(records.load(tmp_path, seed=0)) == 2
    assert len(records.load(tmp_path, seed=0, experiment="b")) == 1
    assert len(records.load(tmp_path, seed=[0, 1])) == 3
    assert len(records.load(tmp_path, note=None)) == 2
    assert len(records.load(tmp_path / "one", tmp_path / "two" / "s.json")) == 3
    assert records.load(tmp_path, seed=7).empty
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        records.load(tmp_path, acuracy=50)
    with pytest.raises(BadInput, match="nowhere"):
        records.load(tmp_path / "nowhere")


def test_an_experiment_counts_once(tmp_path):
    records.write_rows(tmp_path / "mine" / "a.json", ROWS)
    records.write_rows(tmp_path / "committed" / "all.json", [{**ROWS[0], "accuracy": 1.0}, {"experiment": "c"}])
    frame = records.load(tmp_path / "mine", tmp_path / "committed")
    assert frame["experiment"].tolist() == ["a", "a", "c"]
    assert frame["accuracy"][0] == 91.25


def test_nothing_to_load_is_an_empty_table(tmp_path, monkeypatch):
    frame = records.load(tmp_path, model="lenet300")
    assert frame.empty
    assert list(frame.columns) == list(records.COLUMNS)
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(table, "results_root", lambda: tmp_path / "absent")
    assert records.cache_root() == tmp_path / "elsewhere"
    assert records.load().empty


def test_environment_names_what_made_a_number():
    row = records.environment()
    assert set(row) == {"python", "torch", "torchvision", "numpy", "package", "revision", "device", "threads"}
    assert all(row.values())
    assert set(row) < set(records.COLUMNS)
    assert row["threads"] >= 1
    assert row["torch"][0].isdigit()


@pytest.mark.parametrize("kind", ["a folder", "a link to nowhere"])
def test_what_lies_in_the_place_of_a_lock_is_named(kind, tmp_path):
    place = tmp_path / ".lock-record.json"
    place.mkdir() if kind == "a folder" else place.symlink_to("nowhere/at/all")
    with (
        pytest.raises(BadInput, match=r"\.lock-record\.json is in the place of a lock .* delete it\."),
        locks.exclusive(tmp_path / "record.json"),
    ):
        pytest.fail("it was locked")
    locks.sweep(tmp_path)


def test_who_waits_for_another_process_says_so(tmp_path):
    code = f"""
from pruning_core.records import locks
locks.SECONDS_IN_SILENCE = 0.1
with locks.exclusive({str(tmp_path / "record.json")!r}):
    print("mine")
"""
    with locks.exclusive(tmp_path / "record.json"):
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr.readline() == "waiting for another process, which makes record.json\n"
        assert waiting.poll() is None
    assert waiting.communicate() == ("mine\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "seeds", [numpy.int64(1), numpy.array(1), [numpy.int64(1)], (s for s in range(1, 2)), range(1, 2), {1}, numpy.array([1])],
    ids=lambda seeds: type(seeds).__name__,
)  # fmt: skip
def test_rows_are_found_whatever_the_type_of_the_number(seeds, tmp_path):
    records.write_rows(tmp_path / "one.json", [{"seed": 0, "accuracy": 1.0}, {"seed": 1, "accuracy": 2.0}])
    assert records.load(tmp_path, seed=seeds)["accuracy"].tolist() == [2.0]


def test_the_revision_is_that_of_this_checkout_inside_of_a_hook_too(tmp_path):
    """git names the repository that it works in by variables, and a hook of another one may run experiments."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    code = "from pruning_core.records.machine import environment; print(environment()['revision'])"
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    foreign = own | {"GIT_DIR": str(tmp_path / ".git"), "GIT_WORK_TREE": str(tmp_path)}
    there, elsewhere = (
        subprocess.check_output([sys.executable, "-c", code], env=e, cwd=version.REPOSITORY, text=True)
        for e in (own, foreign)
    )
    assert there == elsewhere
    assert (there == "unknown\n") == (not (version.REPOSITORY / ".git").exists())


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere"])
def test_collect_says_that_there_is_no_cache(kind, tmp_path, monkeypatch):
    place = tmp_path / "cache"
    place.write_text("x") if kind == "a file" else place.symlink_to("nowhere")
    monkeypatch.setenv("PRUNING_CACHE", str(place))
    with pytest.raises(BadInput, match="the cache is a folder"):
        records.collect(target=tmp_path / "results")


def test_collect_gathers_long_runs_by_network_and_data(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "cache"))
    kept, target = tmp_path / "cache" / "records", tmp_path / "results"

    def record(key, profile, model="torchvision/resnet18", rows=1):
        about = {"experiment": key, "profile": profile, "model": model, "data": "digits", "code": "0.1.0"}
        records.write_rows(kept / f"{key}.json", [about | {"label": str(i), "accuracy": 1.0} for i in range(rows)])

    record("aa", "standard", rows=2)
    record("bb", "paper")
    record("cc", "quick")
    record("dd", "standard", "lenet300")
    record("ee", "standard", "lenet300")
    (kept / ".lock-dd.json").touch()  # a process of now holds it, or one of yesterday left it: no record
    written = records.collect(target=target, skip=["ee"])
    assert [path.name for path in written] == ["lenet300-digits.json", "torchvision-resnet18-digits.json"]
    assert sorted(records.load(target)["experiment"]) == ["aa", "aa", "bb", "dd"]
    assert records.collect(target=target, skip=["ee"]) == []
    record("ff", "paper")
    assert [path.name for path in records.collect(["paper"], target)] == ["torchvision-resnet18-digits.json"]
    assert sorted(records.load(target)["experiment"]) == ["aa", "aa", "bb", "dd", "ff"]


def _record(folder, key, name=None, **row):
    about = {"experiment": key, "profile": "standard", "model": "lenet300", "data": "digits"} | row
    records.write_rows(folder / f"{name or key}.json", [about])


# What lies in a folder of records that must not be gathered -> words of the message; each can be read as JSON, or nearly.
NOT_COLLECTED = {
    "of another experiment": (lambda path: _record(path.parent, "zz", path.stem), "rows of something else than bad: delete"),
    "of two experiments": (
        lambda path: records.write_rows(path, [{"experiment": "bad"}, {"experiment": "worse"}]), "something else than bad"),
    "without rows": (lambda path: records.write_rows(path, []), "something else than bad"),
    "cut off": (lambda path: path.write_text('{"format": "pruning-core rows 1", "sha256": "'), "no record"),
    "binary": (lambda path: path.write_bytes(b"\xff\x00"), "no record"),
    "nested": (lambda path: path.write_text("[" * 100_000), "no record"),
    "NaN": (lambda path: _crafted(path, "NaN", accuracy=float("nan")), "no record"),
    "infinite": (lambda path: _crafted(path, "1e999", accuracy=float("inf")), "a number that is not finite"),
    "a profile that is a list": (lambda path: _crafted(path, profile=["standard"]), "its profile must be a text"),
    "an experiment that is a number": (lambda path: _crafted(path, experiment=3), "its experiment must be a text"),
    "a network that no file is named after": (lambda path: _crafted(path, model="a\nb"), "no file can be named after"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
    "a pipe": (lambda path: os.mkfifo(path), "no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "a link to another record": (lambda path: path.symlink_to("aa.json"), "something else than bad"),
}  # fmt: skip


def _crafted(path, word=None, **row):
    """A record with a fitting checksum, as nobody but an attacker or a broken tool writes one."""
    rows = [{"experiment": "bad", "profile": "standard", "model": "lenet300", "data": "digits"} | row]
    text = json.dumps({"format": table.FORMAT, "sha256": hashes.digest(rows), "rows": rows})
    path.write_text(text if word is None else text.replace("Infinity", word))


@pytest.mark.parametrize("kind", NOT_COLLECTED)
def test_a_record_that_cannot_be_trusted_stops_collect_before_anything_is_written(kind, empty_cache, tmp_path, capsys):
    kept, target = empty_cache / "records", tmp_path / "results"
    _record(kept, "aa")
    make, message = NOT_COLLECTED[kind]
    make(kept / "bad.json")
    with pytest.raises(BadInput, match=message) as caught:
        records.collect(target=target)
    assert str(kept / "bad.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert main(["collect"]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["cut off", "binary", "a folder", "a pipe", "a dangling link"])
def test_stored_rows_that_cannot_be_read_stop_collect_before_anything_is_written(kind, empty_cache, tmp_path):
    _record(empty_cache / "records", "aa", model="a")  # would be written first
    _record(empty_cache / "records", "bb", model="b")
    target = tmp_path / "results"
    target.mkdir()
    NOT_COLLECTED[kind][0](target / "b-digits.json")
    with pytest.raises(BadInput, match=r"b-digits\.json"):
        records.collect(target=target)
    assert os.listdir(target) == ["b-digits.json"]


@pytest.mark.parametrize("model", [".mine", ".."])
def test_what_is_collected_is_found_again_whatever_its_name(model, empty_cache, tmp_path):
    _record(empty_cache / "records", "aaaa", profile="standard", model=model, data="digits", accuracy=90.0)
    (path,) = records.collect(target=tmp_path / "results")
    assert records.load(tmp_path / "results")["model"].tolist() == [model], path


def test_collect_takes_profiles_that_there_are(empty_cache, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'standard'"):
        records.collect(["standrad"], target=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_collected_rows_need_a_folder(empty_cache, tmp_path):
    _record(empty_cache / "records", "aa")
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", "/dev/null"):
        with pytest.raises(BadInput, match="is a folder for files"):
            records.collect(target=place)
    assert (tmp_path / "file").read_text() == "mine"


def test_rows_of_edited_code_are_collected_only_when_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "cache"))
    about = {"profile": "paper", "model": "lenet5", "data": "digits"}
    for key, revision in (("aa", "1a2b3c4"), ("bb", "1a2b3c4+dirty"), ("cc", "1a2b3c4+dirty")):
        rows = [about | {"experiment": key, "revision": revision}]
        records.write_rows(tmp_path / "cache" / "records" / f"{key}.json", rows)
    with pytest.raises(
        BadInput, match=r"2 records are of edited code .*bb\.json the first: .*`collect --dirty`"
    ) as caught:
        records.collect(target=tmp_path / "results")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()
    assert main(["collect"]) == 2
    assert "edited code" in capsys.readouterr().err
    records.collect(target=tmp_path / "some", skip=["bb", "cc"])
    assert records.load(tmp_path / "some")["experiment"].tolist() == ["aa"]
    records.collect(target=tmp_path / "results", dirty=True)
    assert sorted(records.load(tmp_path / "results")["experiment"]) == ["aa", "bb", "cc"]


EDITED = """
import pathlib, subprocess, sys, time
import pruning_core.data  # a part of the package only: the rest is imported when it is needed
from pruning_core import version
from pruning_core.records import environment

told, edited = sys.argv[1:]
first = environment()["revision"] if told == "told" else version.runs_what_lies_there()
time.sleep(0.05)
edit = pathlib.Path("pruning_core", edited)
edit.write_text(edit.read_text() + "# another line\\n")
subprocess.run(["git", "commit", "-qam", "edited"], check=True)  # the checkout is clean again, at another revision
if told == "late":
    import pruning_core.plots
print(first, environment()["revision"], version.source_hash())
"""


@pytest.mark.parametrize(("told", "edited", "dirty"), [
    ("asked", "errors.py", True), pytest.param("told", "errors.py", False, marks=pytest.mark.slow),
    pytest.param("told", "plots/style.py", False, marks=pytest.mark.slow),
    pytest.param("late", "plots/style.py", True, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_revision_is_that_of_the_code_that_runs(tmp_path, told, edited, dirty):
    """A checkout that moves on while a process lives: the new revision is never named as if it had made the process's rows."""
    checkout = tmp_path / "checkout"
    shutil.copytree(version.PACKAGE, checkout / "pruning_core")
    (checkout / "pyproject.toml").touch()
    (checkout / ".gitignore").write_text("__pycache__")
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    run = functools.partial(subprocess.run, cwd=checkout, check=True, capture_output=True, text=True, env=environment)
    for line in ("init -q", "config user.email a@b", "config user.name a", "add .", "commit -qm first"):
        run(["git", *line.split()])
    heads = [run(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()]
    first, revision, code = run([sys.executable, "-c", EDITED, told, edited]).stdout.split()
    heads.append(run(["git", "rev-parse", "--short", "HEAD"]).stdout.strip())
    fresh = run([sys.executable, "-c", "from pruning_core import version; print(version.source_hash())"]).stdout.strip()
    if told == "told":
        assert first == revision == heads[0]
    else:
        assert revision == f"{heads[1]}+dirty"
    assert (code != fresh) == (edited == "errors.py" or told == "late")


def _dead_process() -> int:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert process.pid is not None
    return process.pid


def test_only_what_surely_nobody_writes_any_more_is_swept(tmp_path, monkeypatch):
    mine, dead, week = files.partial_prefix(), _dead_process(), 8 * 24 * 3600
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(files.platform, "node", lambda: "another machine")
        other = files.partial_prefix()
    stays = [
        f"{mine}a-r.json",
        f"{other}b-r.json",
        other.replace(str(os.getpid()), str(dead)) + "c-r.json",
        ".partial-x",
        ".partial-of-1-another",
    ]
    goes = [mine.replace(f"-{os.getpid()}-", f"-{dead}-") + "d-r.json", f"{other}e-r.json"]
    for name in stays + goes:
        (tmp_path / name).write_text("half")
    for old in (tmp_path / goes[-1], tmp_path / stays[-1]):  # the last is no name of ours, and none of our business
        os.utime(old, (old.stat().st_mtime - week,) * 2)
    folder = tmp_path / (mine.replace(f"-{os.getpid()}-", f"-{dead}-") + "f")  # of a killed download
    (folder / "package").mkdir(parents=True)
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(stays)


@pytest.mark.parametrize("other", ["boot", "host", "namespace"])
def test_a_dead_number_of_another_start_host_or_container_may_be_alive_there(tmp_path, monkeypatch, other):
    """Processes are numbered anew after a start, and in each container: the same number is another process."""
    dead, read_text, stat = _dead_process(), pathlib.Path.read_text, os.stat
    with monkeypatch.context() as elsewhere:
        if other == "boot":
            elsewhere.setattr(
                pathlib.Path,
                "read_text",
                lambda path, **how: "another" if path.name == "boot_id" else read_text(path, **how),
            )
        elif other == "host":
            elsewhere.setattr(files.platform, "node", lambda: "another")
        else:
            inode = type("Stat", (), {"st_ino": 1})
            elsewhere.setattr(files.os, "stat", lambda path: inode if path == "/proc/self/ns/pid" else stat(path))
        theirs = files.partial_prefix().replace(f"-{os.getpid()}-", f"-{dead}-")
    ours = files.partial_prefix().replace(f"-{os.getpid()}-", f"-{dead}-")
    assert theirs != ours
    for name in (theirs, ours):
        (tmp_path / name).write_text("half")
    files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [theirs]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_first_file_in_any_folder_takes_the_place_of_what_a_killed_process_left(tmp_path, kind):
    left = tmp_path / files.partial_prefix().replace(f"-{os.getpid()}-", f"-{_dead_process()}-")
    left.write_text("half") if kind == "file" else left.mkdir()
    files.write_atomically(tmp_path / "whole", "whole")
    assert os.listdir(tmp_path) == ["whole"]


def _die_holding(path):
    with locks.exclusive(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_locks_of_dead_processes_are_swept_and_those_of_living_ones_stay(tmp_path):
    dies = multiprocessing.get_context("fork").Process(target=_die_holding, args=(tmp_path / "dead",))
    dies.start()
    dies.join()
    assert os.listdir(tmp_path) == [".lock-dead"]
    with locks.exclusive(tmp_path / "living"):
        locks.sweep(tmp_path)
        assert os.listdir(tmp_path) == [".lock-living"]
        assert locks.is_locked(tmp_path / "living")
    locks.sweep(tmp_path, tmp_path / "nowhere")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["device", "pipe", "dangling link", "folder", "no name", "a zero byte"])
def test_only_files_are_replaced(tmp_path, kind):
    place = {"no name": pathlib.Path(), "a zero byte": tmp_path / "a\0b"}.get(kind, tmp_path / "place")
    if kind == "device":
        place.symlink_to("/dev/null")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        place.mkdir()
    before = os.listdir(tmp_path)
    with pytest.raises(BadInput, match=r"cannot write|path must be") as caught:
        records.write_atomically(place, "new")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == before


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file, link = tmp_path / "elsewhere" / "r.json", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    records.write_atomically(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


@pytest.mark.parametrize(
    "begin", [lambda: run_all([], progress=False), lambda: main(["models"])], ids=["list", "command"]
)
def test_what_begins_removes_what_killed_processes_left_running(begin, empty_cache):
    """Also where nothing is left to do: a worker that was killed after the last record had left its scratch for good."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = files.running_root() / files.partial_prefix().replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    own = files.running_root() / f"{files.partial_prefix()}own"
    for folder in (left, own):
        folder.mkdir(parents=True)
    begin()
    assert not left.exists()
    assert own.exists()


def test_a_temporary_folder_goes_although_somebody_still_writes_there(tmp_path):
    """As a worker does that was killed, and has not yet ended."""
    busy = (
        "import pathlib, sys, time\nplace, end = pathlib.Path(sys.argv[1]), time.monotonic() + 0.5\n"
        "print('begun', flush=True)\nwhile time.monotonic() < end and place.exists():\n"
        "    (place / str(time.monotonic())).touch()\n"
    )
    with files.temporary_folder(tmp_path) as folder:
        for number in range(2000):  # to remove them takes a while, in which others come
            (folder / str(number)).touch()
        writer = subprocess.Popen(
            [sys.executable, "-c", busy, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert writer.stdout.readline()
    writer.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_has_to_end_at_once_removes_what_is_its_own(tmp_path):
    others = tmp_path / ".partial-00000000.1-1-abc"
    others.write_text("of another process")
    with files.temporary_folder(tmp_path) as folder:
        (folder / "inside").write_text("half")

        def write(path):
            path.write_text("half")
            files.remove_own()
            assert [path.name for path in tmp_path.iterdir()] == [others.name]
            path.write_text("whole")

        files.write_atomically(tmp_path / "kept", write)
    assert {path.name for path in tmp_path.iterdir()} == {others.name, "kept"}
