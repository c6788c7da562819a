"""The ledger is well-formed and prints nothing unverified; what is wrong with an entry is one sentence that names it."""

import re
from pathlib import Path

import pytest
import yaml

from pruning_core import records
from pruning_core.book.claims.ledger import Comparison, load_claims
from pruning_core.book.profiles import read_profiles
from pruning_core.errors import BadInput
from pruning_core.methods.base import METHODS
from pruning_core.version import REPOSITORY

BOOK = Path(__file__).parents[3] / "book"
LEDGER = load_claims(BOOK / "claims.yml")

GOOD = {
    "id": "a",
    "paper": "p",
    "where": "w",
    "statement": "RNI is above UCS.",
    "seen": "code",
    "source": "output",
    "value": 1.0,
    "tolerance": 0.1,
    "ours": {"method": "rni", "column": "accuracy"},
}
UNSEEN = {"kind": "unseen", "seen": "unseen", "value": None, "direction": "above"}
OURS = GOOD["ours"]


def write(tmp_path, *entries):
    head = {"papers": {"p": {"title": "P"}}, "pages": {}, "tags": {}, "measured": {}}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(head | {"claims": list(entries)}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statment": "x"}, "unknown key of the claim 'a': 'statment': did you mean 'statement'"),
        ({"source": ""}, "'source' of the claim 'a' must be longer"),
        ({"source": 3}, "'source' of the claim 'a' must be string"),
        ({"value": "high"}, "'value' of the claim 'a' must be number or null"),
        ({"tolerance": -1}, "'tolerance' of the claim 'a' must be bigger than or equal to 0"),
        ({"paper": "q"}, "unknown paper of the claim 'a': 'q'"),
        ({"seen": "mem"}, "unknown seen of the claim 'a'"),
        ({"seen": "unseen"}, "is marked 'unseen' without being of the kind 'unseen'"),
        ({"kind": "unseen"}, "is marked 'unseen' without being of the kind 'unseen'"),
        ({"kind": "cuont"}, "the claim 'a'"),
        ({"kind": "unseen", "seen": "unseen"}, "prints a number that nobody has seen"),
        (UNSEEN | {"statement": "It loses 0.5 points."}, "prints a number that nobody has checked"),
        ({"seen": "own"}, "prints a number that nobody has seen in the paper"),
        ({"tolerance": None}, "has a number but no tolerance"),
        ({"value": None}, "has neither a number nor a direction"),
        ({"direction": "up"}, "unknown direction of the claim 'a': 'up'"),
        ({"profile": "fast"}, "unknown profile"),
        ({"ours": OURS | {"model": "nix"}}, "the selection of the claim 'a' is of no rows: unknown model 'nix'"),
        ({"ours": OURS | {"model": "torchvision/nix"}}, "is of no rows: unknown model 'torchvision/nix'"),
        ({"ours": OURS | {"data": "digit"}}, "is of no rows: unknown data set 'digit': did you mean 'digits'"),
        ({"ours": {"metod": "rni", "column": "accuracy"}}, "unknown column in the selection of the claim 'a': 'metod'"),
        ({"ours": {"method": "rni"}}, "must hold 'column' or 'first' and 'second'"),
        ({"ours": [OURS, OURS]}, "has several settings, but one of them without a name"),
        ({"ours": [OURS | {"scale": "small", "at": "x"}]}, "unknown scale of the claim 'a': 'small'"),
        ({"ours": [OURS | {"over": ["attack"]}]}, "missing dependency rule"),
        ({"ours": [OURS | {"over": ["atack"], "rule": "clear majority of cells"}]}, "unknown column in 'over'"),
        ({"ours": [OURS | {"over": ["asked"], "rule": "best cell"}]}, "unknown rule of the claim 'a': 'best cell'"),
        ({"where": "Table 1\nand 2"}, "'where' of the claim 'a' must be a text of one line"),
        ({"where": ""}, "'where' of the claim 'a' must be"),
        (
            {"ours": [OURS | {"at": "a\u2028b", "scale": "full"}]},
            "'ours.0.at' of the claim 'a' must be a text of one line",
        ),
        ({"ours": None}, "'ours' of the claim 'a' must be array"),
    ],
)
def test_bad_entries_are_refused_in_one_sentence(tmp_path, change, message):
    with pytest.raises(BadInput) as refused:
        load_claims(write(tmp_path, GOOD | change))
    assert message in str(refused.value)
    assert "'a'" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "message"), [("source", "must contain"), ("ours", "nor, in a note, why there is none")]
)
def test_missing_keys_are_refused(tmp_path, key, message):
    with pytest.raises(BadInput, match="the claim 'a'") as refused:
        load_claims(write(tmp_path, {k: v for k, v in GOOD.items() if k != key}))
    assert message in str(refused.value)


def test_ids_are_unique_and_files_must_be_ledgers(tmp_path):
    assert len(load_claims(write(tmp_path, GOOD))) == 1
    with pytest.raises(BadInput, match="the id 'a' is used by 2 claims"):
        load_claims(write(tmp_path, GOOD, GOOD))
    with pytest.raises(BadInput, match="cannot read the ledger"):
        load_claims(tmp_path / "none.yml")
    (tmp_path / "claims.yml").write_text("- a\n- b\n")
    with pytest.raises(BadInput, match="exactly the keys"):
        load_claims(tmp_path / "claims.yml")


def test_a_key_that_stands_twice_is_refused_by_line_and_claim(tmp_path):
    path = write(tmp_path, GOOD)
    text = "claims:\n- id: b\n  unit: points\n  where: table\n  unit: '%'\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"the key 'unit' stands twice in line 5, in the claim 'b'\.$"):
        load_claims(path)
    path.write_text(text.replace("  unit: '%'", "  ours: {method: rni, column: loss, method: ucs}"), encoding="utf-8")
    with pytest.raises(BadInput, match="the key 'method' stands twice in line 5, in the claim 'b'"):
        load_claims(path)


def test_profiles_are_checked_too(tmp_path):
    path = tmp_path / "profiles.yml"
    path.write_text("quick:\n  1_a: {steps: 3}\nquick:\n  1_a: {steps: 4}\n", encoding="utf-8")
    with pytest.raises(BadInput, match="the key 'quick' stands twice in line 3"):
        read_profiles(path, "1_a", "quick")
    path.write_text("quick: {1_a: 3}\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"'quick\.1_a' of the profiles .* must be object or null"):
        read_profiles(path, "1_a", "quick")
    for chapter in (REPOSITORY / "notebooks").glob("*/profiles.yml"):
        notebook = next(chapter.parent.glob("*.ipynb"))
        assert read_profiles(chapter, notebook.stem, "quick") is not None


def test_names_with_digits_are_no_numbers(tmp_path):
    load_claims(write(tmp_path, GOOD | UNSEEN | {"statement": "ResNet-56 and WRN-16-8 on CIFAR-10, VGG16, L1."}))


def test_every_citation_is_in_the_bibliography():
    keys = set(re.findall(r"@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8")))
    assert {c.paper for c in LEDGER} <= keys


def test_the_ledger_holds_what_the_sheets_verified():
    ids = {c.id for c in LEDGER}
    accuracies = [i for i in ids if re.fullmatch(r"rni-(vgg16|resnet56)-cifar100?-\w+-(full|50|90)", i)]
    assert len(accuracies) == 36
    assert {c.paper for c in LEDGER} == {
        "wolfe2022ispasp",
        "baykal2019sipp",
        "liebenwein2020pfp",
        "suteu2022rni",
        "verdenius2020snipit",
        "zhang2024howsparse",
    }
    by_id = {c.id: c for c in LEDGER}
    assert by_id["rni-vgg16-cifar100-slimming-90"].value == 25.81
    assert by_id["ispasp-resnet34-269g-accuracy"].value == 73.5
    assert by_id["pfp-alds-vgg16-pfp-macs"].value == 0.8476


def test_counts_are_numbers_and_every_claim_has_a_page():
    assert sum(c.kind == "count" for c in LEDGER) == 35
    assert all(c.value is not None for c in LEDGER if c.kind == "count")
    for page in {c.page for c in LEDGER}:
        assert (REPOSITORY / "notebooks" / f"{page}.ipynb").is_file()


def test_every_column_of_the_rows_is_a_setting_or_a_measurement():
    columns = set(records.load(REPOSITORY / "data" / "results"))
    tags = set(yaml.safe_load((BOOK / "claims.yml").read_text(encoding="utf-8"))["tags"])
    chosen = {"label", "model", "data", "width", "method", "epoch", "asked", "of"}
    free = LEDGER[0].measured | tags | chosen | {"experiment", "seed", "profile", "code"}
    # the rest are columns of a study that no claim reads: there they count as settings
    assert columns - free <= {"offset", "offset_dense", "as_cut", "repaired", "lost", "commonest", "statistics"}
    assert not tags & LEDGER[0].measured


def test_every_method_and_label_that_a_claim_reads_is_one_that_its_page_writes():
    """A misspelt one would be found by nobody: its claim would wait for such rows for ever."""
    pages = {c.page: (REPOSITORY / "notebooks" / f"{c.page}.ipynb").read_text(encoding="utf-8") for c in LEDGER}
    read = {
        (c.page, value)
        for c in LEDGER
        for setting in c.ours
        for side in (getattr(setting.ours, "first", setting.ours), getattr(setting.ours, "second", setting.ours))
        for column, value in side.where.items()
        if c.kind != "unseen" and column in ("method", "label") and value is not None
    }
    assert len(read) > 60
    assert {
        (page, value)
        for page, value in read
        if value not in METHODS and f'"{value}' not in pages[page].replace("\\", "")
    } == set()


def test_comparisons_name_what_they_compare():
    for c in LEDGER:
        for setting in c.ours:
            if isinstance(setting.ours, Comparison):
                assert setting.ours.first != setting.ours.second, c.id
