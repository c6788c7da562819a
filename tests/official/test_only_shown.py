"""What only shows something downloads nothing, writes nothing and needs no network: plans, lists, tables and help."""

import socket

import pytest

from pruning_core.commands import main, program
from pruning_core.data import loading
from pruning_core.experiments import state
from pruning_core.official import CATALOGUE

NOT_PUBLIC = [name for name in CATALOGUE if name.endswith("deepknight")]
SHOWN = [
    ["official", "--list"], ["official", "--list", "snipit"], ["methods"], ["models"], ["data"], ["sweep-status"], ["costs"],
    ["notebooks", "--check-stripped"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network_and_no_data(monkeypatch, empty_cache, tmp_path):
    def refused(*_, **__):
        raise AssertionError("only to show something, data were asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    for module in (loading, state):
        monkeypatch.setattr(module, "load_data", refused)
    monkeypatch.setattr(loading, "load_raw", refused)
    monkeypatch.setattr(loading, "image_folder", refused)
    monkeypatch.setenv("PRUNING_DATA", str(tmp_path / "no data"))
    yield
    assert not empty_cache.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [[], ["--epochs", "1", "--limit", "400"], ["--data", "cifar100"]])
def test_a_plan_of_any_setting_needs_no_data(how, capsys):
    for name in CATALOGUE:
        status, (out, said) = (
            main(["official", name, "--plan", "--seeds", "1", "--points", "2", *how]),
            capsys.readouterr(),
        )
        if status == 0:
            assert out.startswith("record"), name
            continue
        assert (status, out, len(said.splitlines())) == (2, "", 1), (name, said)
        # Nobody may have the data; or a network or published weights do not fit other images.
        assert name in NOT_PUBLIC or "--data" in how, said


@pytest.mark.parametrize("line", SHOWN, ids=" ".join)
def test_a_table_needs_no_data(line, capsys):
    assert main(line) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", program.commands)
def test_help_needs_no_data(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out
