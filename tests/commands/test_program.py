"""The command line: what it lists, what it refuses in one sentence, every recipe of the catalogue from the shell."""

import errno
import functools
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import click
import pytest

import pruning_core as pc
from pruning_core.commands import main, program
from pruning_core.experiments import recipes
from pruning_core.version import PACKAGE, REPOSITORY


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a line that cannot work."""
    assert main(shlex.split(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    return printed.err


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def heard():
    """No signal is ignored, as SIGHUP is in tests that nohup started."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("how", STOPS)
def test_a_stopped_command_puts_things_in_order_and_says_so(how, capsys, monkeypatch):
    """Whoever presses Ctrl-C again and again does not disturb that."""
    done = []

    @click.command()
    def endless():
        try:
            os.kill(os.getpid(), how)
            pytest.fail("nothing was stopped")
        finally:
            for again in STOPS:
                os.kill(os.getpid(), again)
            done.append("in order")

    monkeypatch.setitem(program.commands, "endless", endless)
    before = [signal.getsignal(number) for number in STOPS]
    assert main(["endless"]) == 128 + how
    assert done == ["in order"]
    assert capsys.readouterr().err.split("\n") == ["", "interrupted; the same command goes on from here", ""]
    assert [signal.getsignal(number) for number in STOPS] == before


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_what_runs_in_the_background_or_under_nohup_does_not_hear_of_it(ignored, capsys, monkeypatch):
    @click.command()
    def goes_on():
        os.kill(os.getpid(), ignored)
        print("goes on")

    monkeypatch.setitem(program.commands, "goes-on", goes_on)
    signal.signal(ignored, signal.SIG_IGN)
    assert main(["goes-on"]) == 0
    assert capsys.readouterr().out == "goes on\n"


# Of a module that everything imports: it says that it is at it, and takes its time.
SLOW_IMPORT = """
import sys, time
print("importing", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", STOPS[:2])
@pytest.mark.parametrize("line", [["methods"], ["run", "dense"], ["notebooks"], ["--help"]], ids=" ".join)
def test_a_command_that_is_stopped_while_it_imports_says_so_without_a_traceback(line, how, tmp_path):
    (tmp_path / "torch.py").write_text(SLOW_IMPORT)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    heard = functools.partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # not so in a shell's background
    with subprocess.Popen(
        [sys.executable, "-m", "pruning_core", *line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "importing\n"
        process.send_signal(how)
        assert process.wait(30) == 128 + how
        assert process.stderr.read() == "interrupted; the same command goes on from here\n"


def test_who_imports_the_package_keeps_the_handlers_of_signals():
    code = (
        "import signal; handlers = lambda: [*map(signal.getsignal, (2, 15))]; before = handlers(); import pruning_core"
    )
    code += "; assert before == handlers()"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# OpenSSL computes for minutes, and Python does not get to the signal.
DEAF = """
import hashlib, multiprocessing, sys, time
import click
from pruning_core.commands.program import as_process, program

@click.command()
def deaf():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

program.add_command(deaf)
as_process()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", STOPS[:2])
def test_a_command_that_hears_nothing_is_ended_all_the_same(how):
    command = [sys.executable, "-c", DEAF, "deaf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        time.sleep(0.1)
        process.send_signal(how)
        assert process.wait(60) == 128 + how
        assert process.stderr.read() == "interrupted; the same command goes on from here\n"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    """Whether there is such a process that is not only waiting to be noticed as dead."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", program.commands)
def test_the_help_of_every_command_ends_with_an_example_of_it(name, capsys):
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"Example: python -m pruning_core {name}\b", text)
    assert "Usage: python -m pruning_core" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nix", "No such command 'nix'"),
        ("run dense -p epochs", "-p' requires 2 arguments"),
        ("run dense --sed 1", "No such option"),
        ("run dense -p epochs 1 --seed x", "'x' is not a valid integer"),
        ("run dense -p epochs 1 --seeds 0", "--seeds must be between 1 and 10000"),
        ("run dense -p epochs 1 --width -1", "width must be finite and above 0"),
        ("run dense -p epochs 1 --limit 0", "limit must be at least 1"),
        ("run dense -p epochs 1 --device gpu", "device must be a device of torch"),
        ("run dense -p epochs 1 --optimizer adm", "unknown optimizer 'adm': did you mean 'adam'"),
        ("run dense -p epochs 1 --optimizer '{name: adam, rate: 1}'", "unknown field of --optimizer 'rate'"),
        ("run dense -p epochs 1 --optimizer '{'", "--optimizer is no YAML"),
        ("run dense -p epochs 1 --learning-rate steep", "unknown learning-rate schedule 'steep'"),
        ("run dense -p epochs 1 --normalise cifar10/sip", "did you mean 'cifar10/sipp'"),
        ("run dense -p epochs 1 --precision float16", "precision"),
        ("run cascade -p method sipp -p kept '[0.5]' -p epochs 1 -p retrain 1 -p sample 8", "did you mean 'samples'"),
        ("run cascade -p method sipp", "cascade needs kept, epochs, retrain"),
        ("run l0 -p strength a -p epochs 1 -p fine_tune 1", "strength"),
        ("run ispasp -p sparsity x -p epochs 1 -p fine_tune 1", "sparsity"),
        ("run dense -p epochs 1 --loss mes", "did you mean 'mse'"),
        ("run dense -p epochs 1 --loss nowhere:loss", "there is no loss 'nowhere:loss'"),
        ("run dense -p epochs 1 --loss math:pi", "loss must be a name"),
        *(
            (f"run dense -p epochs 1 --loss '{wrong}'", "is named as module:function, such as my_losses:halved, not ")
            for wrong in ("..x:y", ".:y", ":y", "x:", ":", "a b:c", "a:b.c", "a:b:c", "../a:b", "a/b:c")
        ),
        ("run dense -p epochs 1 --loss os:system", "loss must be a function of (outputs, labels), which system(command) is"),
        ("run dense -p epochs 1 --loss sys:exit", "loss must be a function of (outputs, labels), which exit(status=None, /)"),
        ("run dense -p epochs 1 --loss os:nix", "there is no loss 'os:nix': module 'os' has no attribute 'nix'."),
        ("official snipit --loss ..x:y", "unknown loss of SNIP-it '..x:y'"),
        ("official fc5_cifar10 --loss ..x:y", "is named as module:function"),
        (f"run dense -p epochs 1 --loss {'x' * 5000}:y", "there is no loss 'xxx"),
        (f"run dense -p epochs 1 --model torchvision/{'x' * 5000} --data digits", "unknown model 'torchvision/...xxx"),
        (f"official {'x' * 300}.yml", "cannot read xxx"),
        (f"official {'x' * 5000}.yml", "cannot read xxx"),
        (f"notebooks {'x' * 300}.ipynb", "unknown notebook 'xxx"),
        (f"page {'x' * 5000}", "unknown notebook 'xxx"),
        (f"run dense -p epochs 1 --data ./{'x' * 300}", "--data must be the path of a file or folder"),
        ("run dense -p epochs 1 --network nowhere", "there is no file"),
        ("run dense -p epochs 1 --network .", "cannot be read"),
        ("run dense -p epochs 1 --max-minutes 0", "max_minutes must be finite and above 0"),
        ("run dense -p epochs 1 --max-minutes nan", "max_minutes must be finite and above 0"),
        ("run dense -p epochs 1 --sign-flips", "--watch FOLDER"),
        ("run dense -p epochs 1 --watch logs --histograms 0", "histograms must be between 1 and 1000000"),
        ("run dense -p epochs 1 --watch logs --elasticities -1", "elasticities must be between 1 and 1000000"),
        ("run dense -p epochs 1 --watch logs --tags snip", "did you mean 'snipit'"),
        ("run dense -p epochs 1 --watch logs --tags sipp --no-tensorboard", "are for TensorBoard"),
        ("official cifar/resnet20 --loss mes", "did you mean 'mse'"),
        ("official cifar/resnet20 --histograms 0", "histograms must be between 1 and 1000000"),
        ("official snipit --loss Hoyer --data digits", "unknown loss of SNIP-it 'Hoyer'"),
        ("official", "give the name of a setting"),
        ("official cifar/resnet21", "did you mean 'cifar/resnet20'"),
        ("official --list nix", "no official setting begins with 'nix'"),
        ("official cifar/resnet20 --methods ALDS", "ALDS, asked for of cifar/resnet20, is not here: it takes layers apart"),
        ("official cifar/resnet20 --methods SVDNet", "SVDNet, asked for of cifar/resnet20, is not here: it takes layers"),
        ("official cifar/resnet20 --methods SiPP2", "unknown method of cifar/resnet20 'SiPP2'"),
        ("official cifar/resnet20 --methods SiPPNet --methods SiPP", "the method 'SiPP' of cifar/resnet20 is asked for twice"),
        ("official mnist/lenet300_100 --methods nix", "unknown method of mnist/lenet300_100 'nix'"),
        ("official fc5_cifar10 --methods nix", "unknown method of fc5_cifar10 'nix': Allowed: magnitude."),
        ("official rni/vgg16-cifar10-rni --methods nix", "'nix': did you mean 'rni'? Allowed: rni."),
        ("official rni/vgg16-cifar10-l1 --methods rni", "unknown method of rni/vgg16-cifar10-l1 'rni': Allowed: l1."),
        ("official ispasp/resnet34 --methods nix", "unknown method of resnet34 'nix': Allowed: ispasp."),
        ("official prune_resnet34_ispasp.py --methods nix", "'nix': Allowed: ispasp."),
        ("official snipit/SNAPit-VGG16-CIFAR10 --methods nix", "unknown method of this line of SNIP-it 'nix'"),
        ("official snipit --methods snip", "'snip': did you mean 'snap'? Allowed: dense, snap."),
        ("official --list --epochs 3", "--list runs nothing, so that --epochs changes nothing: leave one of them out."),
        ("official --list snipit --seeds 2 --plan", "--list runs nothing, so that --plan changes nothing"),
        ("official --list snipit cifar", "--list runs nothing, so that ('cifar',) changes nothing"),
        ("official fc5_cifar10 --plan --workers many", "--workers must be a number of processes"),
        ("official fc5_cifar10 --plan --max-minutes 0", "max_minutes must be finite and above 0"),
        ("official fc5_cifar10 --plan --out /dev/null", "--out is a folder for files to be written to"),
        ("notebooks --check-stripped --profile smoke", "--check-stripped runs nothing, so that --profile changes nothing"),
        ("notebooks --check-stripped -p epochs 1", "--check-stripped runs nothing, so that -p changes nothing"),
        ("run dense -p epochs 1 -p epochs 0", "-p epochs is given twice: '1' and '0'; give it once."),
        ("run dense -p epochs 1 -p epochs 1", "-p epochs is given twice"),
        ("notebooks 0_foundations/1 -p epochs 1 -p seed 1 -p epochs 0", "-p epochs is given twice: '1' and '0'"),
        ("notebooks 0_foundations/1 --profile quick -p profile smoke", "the profile is given twice, as --profile and as -p"),
        ("page 0_foundations/1 -p profile quick -p profile smoke", "-p profile is given twice"),
        ("official cifar/resnet20 --epochs 0", "epochs must be between 1 and 1000000"),
        ("official cifar/resnet20 --points 0", "points must be at least 1"),
        ("official cifar/resnet20 --data digit", "did you mean 'digits'"),
        ("official cifar/resnet20 --prune_freq 4", "takes no '--prune_freq'"),
        ("official driving/deepknight", "the driving data are not public"),
        ("official snipit --modle VGG16", "No such option"),
        ("official snipit --model VGG17", "unknown network of SNIP-it 'VGG17': did you mean 'VGG16'"),
        ("official snipit --data_set OMNIGLOT --prune_criterion SNIP", "OMNIGLOT is not here"),
        ("official snipit --tuning", "--tuning of SNIP-it's main.py is not taken"),
        ("official snipit --l0 --hoyer_square", "only one can be chosen"),
        ("official snipit --checkpoint_name mine --eval", "nothing is unpickled here"),
        ("official ispasp/resnet34 --pruned-path x.pth", "nothing is unpickled here"),
        ("official ispasp/resnet34 --pruned-path x.safetensors", "x.safetensors"),
        ("official ispasp/resnet34 --data-path nowhere/", "there is no folder"),
        ("official ispasp/resnet34 --data nowhere/", "there is no folder"),
        ("run dense -p epochs 1 --watch logs --pictures 2", "give tags that have some"),
        ("official ispasp/mobilenet_v2 --blocks 6,x", "--blocks are numbers"),
        ("official --config nowhere.yml", "cannot read nowhere.yml"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_work_gets_one_sentence(line, message, capsys, empty_cache):
    assert message in refused(line, capsys)
    assert not list(empty_cache.glob("records/*.json"))


ARGUMENTS = {
    "sparsity": "0.5", "epochs": "2", "fine_tune": "1", "rounds": "1", "strength": "1e-4", "retrain": "1",
    "kept": "[0.5, [0.4, 0.3]]",
    "method": "magnitude", "epochs_mine": "2", "epochs_tune": "1", "early": "0",
}  # fmt: skip
SPECIAL = {
    "snip_it_during": {"steps": "1", "every": "1", "after": "0", "epochs": "4"},
    "snap_it_during": {"steps": "1", "every": "1", "after": "0", "epochs": "4"},
    "cnip_it_during": {"steps": "1", "every": "1", "after": "0", "epochs": "4"},
    "during_training": {"steps": "1", "every": "1", "after": "0", "epochs": "4"},
    "magnitude_rewind_during": {"steps": "1", "every": "1", "after": "0", "epochs": "4"},
    "tick_tock": {"sparsity": "0.1", "ticks": "1", "tocks": "1", "epochs": "1"},
    "rare_gems": {"period": "1"},
    "rigl": {"epochs": "3"},
    "l0": {"optimizer": "{name: adam, lr: 0.1}"},
    "receding": {"method": "slimming"},
    "prune_and_shrink": {"method": "l1_norm"},
    "cascade": {"method": "sipp", "batches": "score", "samples": "16"},
}
CHANNELS = {"receding", "scaled_from_scratch", "tick_tock", "ispasp"}
"""Recipes that need the scales of batch norm, or a network whose channels can go."""


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_of_the_catalogue_runs_from_the_shell(name, capsys):
    takes = inspect.signature(recipes.RECIPES[name]).parameters
    needed = {n: ARGUMENTS[n] for n, p in takes.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    model, width = ("vgg8", "0.25") if name in CHANNELS else ("lenet300_snip", "0.1")
    line = ["run", name, "--model", model, "--data", "digits", "--width", width, "--limit", "300", "--profile", "smoke"]
    line += ["--optimizer", "{name: adam, lr: 2e-3, clip: 10}", "--batch-size", "64"]
    for argument, value in (needed | SPECIAL.get(name, {})).items():
        line += ["-p", argument, value]
    assert main(line) == 0, capsys.readouterr().err
    rows = [text for text in capsys.readouterr().out.splitlines() if text.startswith("label=")]
    assert rows
    assert all("accuracy=" in row for row in rows)


def test_the_settings_of_run_reach_the_experiment(empty_cache, tmp_path, capsys):
    line = (
        "run dense -p epochs 1 --data digits --width 0.1 --limit 300 --seeds 2 --learning-rate cosine --batch-size 32"
    )
    assert main([*shlex.split(line), "--profile", "smoke", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "report.md")
    planned = pc.Experiment(
        "lenet300", "digits", recipes.dense(1), seed=1, width=0.1, limit=300, batch_size=32,
        learning_rate=pc.LearningRate("cosine"), profile="smoke",
    )  # fmt: skip
    assert planned.record().exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rows.csv", "curves.csv", "curves.npz", "report.md"}


def test_the_methods_of_a_line_of_snip_it_can_be_chosen(capsys, empty_cache):
    line = "official snipit --prune_criterion SNAP --plan --data digits --seeds 1"
    assert main(shlex.split(line)) == 0
    both = capsys.readouterr().out.splitlines()
    assert main([*shlex.split(line), "--methods", "snap"]) == 0
    (_, one) = capsys.readouterr().out.splitlines()
    assert len(both) == 3
    assert one in both


OWN_LOSS = """
from torch.nn import functional

def halved(outputs, labels):
    return functional.cross_entropy(outputs, labels) / 2
"""
SMALL = "--data digits --width 0.1 --limit 400 --profile smoke"


def test_what_is_asked_besides_reaches_the_run(empty_cache, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_losses.py").write_text(OWN_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    network = pc.build_model("lenet300", "digits", width=0.1, seed=5)
    pc.save_network(network, "own.safetensors")
    line = f"run before_training -p method snip -p sparsity 0.9 -p epochs 2 {SMALL} --loss my_losses:halved"
    line += " --network own.safetensors --measure-cuts --watch logs --sign-flips --elasticities 1 --no-tensorboard"
    assert main(shlex.split(line)) == 0, capsys.readouterr().err
    (record,) = (empty_cache / "records").glob("*.json")
    rows = pc.records.load(record)
    assert rows["label"].tolist() == ["before cut", "after cut", "final"]
    assert set(rows["criterion"]) == {"halved"}
    assert set(rows["network_file"]) == {pc.records.file_sha256("own.safetensors")}
    split = pc.load_data("digits", limit=400).test
    assert rows["loss"][0] == pytest.approx(pc.evaluate(network, split).loss / 2, rel=1e-5)
    (table,) = (tmp_path / "logs").glob("*-training1-*/epochs.csv")
    assert {"sign_flips", "median_elasticity"} <= set(table.read_text().splitlines()[0].split(","))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit(3)", "the loss does not take outputs torch.float32 of shape (2, 10) and labels"),
        ("raise KeyError('a')", "the loss does not take outputs"),
        ("return None", "the loss must return one number, the mean over the samples of a batch, not NoneType"),
        ("return outputs", "the loss must return one number"),
        ("return 3.0", "the loss must return one number"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_sentence(body, message, tmp_path, monkeypatch, capsys, empty_cache):
    (tmp_path / "no_loss.py").write_text(f"def loss(outputs, labels):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "no_loss", raising=False)
    assert message in refused(f"run dense -p epochs 1 {SMALL} --loss no_loss:loss", capsys)
    assert not list(empty_cache.glob("records/*.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit(0)", "there is no loss 'own_module:loss': 0."),
        ("1 / 0", "there is no loss 'own_module:loss': division by zero."),
        ("def loss(:", "there is no loss 'own_module:loss': invalid syntax"),
        ("raise RuntimeError('a\\nb')", "there is no loss 'own_module:loss': a."),
        ("", "has no attribute 'loss'."),
        ("import nix", "No module named 'nix'."),
    ],
)
def test_a_module_that_cannot_be_imported_holds_no_loss(text, message, tmp_path, monkeypatch, capsys, empty_cache):
    (tmp_path / "own_module.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    assert message in refused(f"run dense -p epochs 1 {SMALL} --loss own_module:loss", capsys)


def test_minutes_that_are_over_have_an_exit_status_of_their_own(empty_cache, capsys):
    line = shlex.split(f"run dense -p epochs 2 {SMALL}")
    assert main([*line, "--max-minutes", "1e-9"]) == 75
    assert "after epoch 1, and the same call goes on" in capsys.readouterr().err
    assert main([*line, "--max_training_minutes", "1e-9"]) == 0  # two epochs are done then
    assert "label=final" in capsys.readouterr().out


def test_official_settings_take_the_same_under_their_own_tags(empty_cache, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorboard", reason="an extra")
    monkeypatch.setattr("pruning_core.official.results.FIGURES", ())
    line = "official snipit --model LeNet300 --data_set MNIST --prune_criterion SNIP --pruning_limit 0.9 --epochs 1"
    line += f" --data digits --limit 400 --width 0.1 --loss mse --measure-cuts --track_weights --out {tmp_path}"
    assert main(shlex.split(line)) == 0, capsys.readouterr().err
    assert "(limit 400, width 0.1, data digits, loss mse)" in (tmp_path / "report.md").read_text()
    assert (
        len(list((tmp_path / "watch").glob("*-training1-*/events*"))) == 2
    )  # of the pruned network, and of the dense one
    tables = [path.read_text() for path in (tmp_path / "watch").glob("*/epochs.csv")]
    assert all("sparse/weight" in text and "sign_flips" in text for text in tables)
    rows = (tmp_path / "rows.csv").read_text()
    assert "before cut" in rows
    assert "mse" in rows


@pytest.mark.parametrize("line", ["methods", "official --list", "collect smoke"])
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "at once"])
def test_an_output_that_nobody_reads_ends_the_command_and_nothing_more(line, buffered, tmp_path):
    environment = os.environ | {"PYTHONUNBUFFERED": buffered, "PRUNING_CACHE": str(tmp_path)}
    command = f"{shlex.quote(sys.executable)} -m pruning_core {line}"
    gone = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], env=environment, capture_output=True, text=True
    )
    assert (gone.returncode, gone.stderr) == (0, "")
    full = subprocess.run(["bash", "-c", f"{command} > /dev/full"], env=environment, capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr == "the output cannot be written: no space is left on its device.\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_does_its_work(closed, tmp_path):
    environment = os.environ | {"PRUNING_CACHE": str(tmp_path)}
    words = "run dense --data digits -p epochs 1 --width 0.1 --profile smoke --limit 300"
    line = f"{shlex.quote(sys.executable)} -m pruning_core {words} {closed}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "records").glob("*.json"))) == 1


def test_a_command_in_a_folder_that_was_deleted_gets_one_sentence(tmp_path):
    line = f"mkdir gone && cd gone && rmdir ../gone && {shlex.quote(sys.executable)} -m pruning_core methods"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "the current folder was deleted: change to another one first\n")


SHORT = {
    "memory": [MemoryError(), MemoryError("Unable to allocate 7.45 TiB for an array"), OSError(errno.ENOMEM, "x"),
               RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
               RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), RuntimeError("std::bad_alloc")],
    "files": [OSError(errno.EMFILE, "x"), OSError(errno.ENFILE, "x")],
    "thread": [BlockingIOError(errno.EAGAIN, "x"), RuntimeError("can't start new thread")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "error"), [(word, error) for word, errors in SHORT.items() for error in errors], ids=repr
)
def test_what_the_system_has_too_little_of_is_one_sentence(word, error, capsys, monkeypatch):
    @click.command()
    def short():
        raise error

    monkeypatch.setitem(program.commands, "short", short)
    assert main(["short"]) == 1
    said = capsys.readouterr().err
    assert word in said
    assert len(said.splitlines()) == 1


def test_other_errors_keep_their_traceback(monkeypatch):
    @click.command()
    def broken():
        raise RuntimeError("a mistake of ours")

    monkeypatch.setitem(program.commands, "broken", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(["broken"])


def test_too_little_memory_for_what_is_imported_is_one_sentence():
    line = f"ulimit -v 1000000; {shlex.quote(sys.executable)} -m pruning_core methods"
    done = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"there is too little memory: [^\n]*\.\n", done.stderr)
