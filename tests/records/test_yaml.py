"""YAML that people type or download, crafted or damaged: one sentence, within a second, whoever reads it."""

import time
from pathlib import Path

import pytest

from pruning_core.book.claims import load_claims
from pruning_core.book.profiles import read_profiles
from pruning_core.commands import main
from pruning_core.errors import PruningError
from pruning_core.records.values import DEEPEST, check_shape, read_document, read_value

SHARED = "&a [x, x, x, x, x, x, x, x, x, x]"
LIST_BOMB = f"quick:\n  a: {SHARED}\n" + "".join(
    f"  a{i}: &a{i} [{', '.join(['*a' if i == 0 else f'*a{i - 1}'] * 10)}]\n" for i in range(10)
)
MERGE_BOMB = "quick: &b {k: 1}\n" + "".join(
    f"x{i}: &b{i} {{<<: [{', '.join(['*b' if i == 0 else f'*b{i - 1}'] * 10)}], k: 1}}\n" for i in range(10)
)
DAMAGED = {
    "no UTF-8": b"quick: \xff\xfe",
    "UTF-16": "quick: {}".encode("utf-16"),
    "a zero byte": b"quick: {1_a: \0}",
    "a control character": b"quick: \a",
    "deep": b"quick: " + b"[" * 3000,
    "deeper than the stack": b"quick: " + b"[" * 200_000 + b"]" * 200_000,
    "deep mappings": "\n".join(" " * i + "a:" for i in range(2000)).encode(),
    "aliases of lists": LIST_BOMB.encode(),
    "aliases that merge": MERGE_BOMB.encode(),
    "of itself": b"quick: &a {1_a: *a}",
    "an alias of nothing": b"quick: *nowhere",
    "code": b"quick: !!python/object/apply:os.system [x]",
    "a date that is none": b"quick: 2024-13-01",
    "a number too long": b"quick: " + b"9" * 5000,
    "a list as key": b"? [1]\n: 2",
    "two documents": b"a: 1\n---\nb: 2",
    "another version": b"%YAML 9.9\n---\na: 1",
    "half a bracket": b"quick: [",
    "a time that is none": b"quick: !!timestamp x",
    "a key twice": b"quick: {1_a: {n: 1, n: 2}}",
    "too large": b"# " + b"x" * 10_000_001,
}
READERS = {
    "profiles": lambda path: read_profiles(path, "1_a", "quick"),
    "claims": load_claims,
    "document": read_document,
    "value": lambda path: read_value(path.read_bytes().decode("utf-8", "surrogateescape"), "-p x"),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.yml"


@pytest.mark.parametrize(
    ("damage", "reader"),
    # A line of the shell is never too large.
    [(damage, reader) for damage in DAMAGED for reader in READERS if (damage, reader) != ("too large", "value")],
)
def test_damaged_yaml_gets_one_sentence_at_once(damage, reader, path):
    path.write_bytes(DAMAGED[damage])
    began = time.process_time()
    with pytest.raises(PruningError) as error:
        READERS[reader](path)
    assert time.process_time() - began < 5  # a bomb would take hours
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert str(path) in str(error.value) or reader == "value"


@pytest.mark.parametrize(
    "text", ["quick: {1: {}}", "quick: {true: {}}", "quick: {1_a: {1: 2}}", "1: {}", "quick: {1_a: {n: [{2: 3}]}}"]
)
def test_a_key_that_is_no_text_is_named(text, path):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        PruningError, match=r"the key (1|2|True) of the profiles .* must be a text: put it between quotes\.$"
    ):
        READERS["profiles"](path)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_of_parameters_is_refused_in_one_sentence(damage, path, capsys):
    path.write_bytes(DAMAGED[damage])
    assert main(["notebooks", "0_foundations/1", "--into", str(path.parent / "out"), "-f", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1.0e+999"])
def test_numbers_of_the_book_are_finite(number, path):
    path.write_text(f"quick:\n  1_a: {{rate: {number}}}\n", encoding="utf-8")
    with pytest.raises(PruningError, match=r"is no finite number in line 2"):
        READERS["profiles"](path)


def test_aliases_within_reason_are_taken():
    check_shape("a: &a [1, 2]\n" + "\n".join(f"b{i}: *a" for i in range(1000)))
    check_shape("[" * DEEPEST + "]" * DEEPEST)
    check_shape("a: &a {k: 1}\nb: {<<: *a, k: 2}")


def test_the_files_of_the_book_are_within_reason():
    for file in Path(__file__).parents[2].glob("notebooks/*/profiles.yml"):
        check_shape(file.read_text(encoding="utf-8"))
