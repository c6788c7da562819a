"""The command line: ``python -m pruning_core`` lists what there is, runs experiments, and makes the book's pages."""

import argparse
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from pruning_core import DATASETS, MODELS, Experiment, methods_table, recipes, records, run
from pruning_core.errors import BadInput, BadType, PruningError, known_name
from pruning_core.version import LONG, PROFILES, REPOSITORY


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest entry; the last one may run on."""
    lines = [[str(entry) for entry in row] for row in [head, *rows]]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join("  ".join(e.ljust(w) for e, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _methods(arguments: argparse.Namespace) -> None:
    print(methods_table().to_string())


def _models(arguments: argparse.Namespace) -> None:
    rows = [(name, f"{entry.parameters:,}", entry.paper) for name, entry in MODELS.items()]
    print(_table(("model", "parameters", "paper"), rows))
    print("torchvision/<name> builds any of torchvision's networks.")


def _data(arguments: argparse.Namespace) -> None:
    rows = [(name, "x".join(map(str, d.shape)), d.classes, d.licence, d.source) for name, d in DATASETS.items()]
    print(_table(("data", "shape", "classes", "licence", "source"), rows))


def _given(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """``-p name value`` as parameters; the value is read as YAML, as papermill does."""
    try:
        return {name: yaml.safe_load(value) for name, value in pairs}
    except yaml.YAMLError as error:
        raise BadInput(f"a value of -p is no YAML: {' '.join(str(error).split())}") from error


def _run(arguments: argparse.Namespace) -> None:
    recipe = recipes.RECIPES[known_name("recipe", arguments.recipe, recipes.RECIPES)]
    takes = inspect.signature(recipe).parameters
    given = _given(arguments.parameters)
    for name in given:
        known_name(f"argument of {arguments.recipe}", name, takes)
    if missing := [name for name, p in takes.items() if p.default is p.empty and name not in given]:
        raise BadInput(f"{arguments.recipe} needs {', '.join(missing)}: give each as -p NAME VALUE.")
    asked: dict[str, Any] = {"seed": arguments.seed, "profile": arguments.profile, "tags": {"recipe": arguments.recipe}}
    for row in run(Experiment(arguments.model, arguments.data, recipe(**given), **asked)):
        print("  ".join(f"{key}={row[key]}" for key in ("label", "sparsity", "accuracy", "seconds") if key in row))


def _notebooks(arguments: argparse.Namespace) -> None:
    from pruning_core.book import chapters

    notebooks = chapters.find_notebooks(arguments.names)
    if arguments.check_stripped:
        dirty = {path: wrong for path in notebooks if (wrong := chapters.unstripped(path))}
        for path, wrong in dirty.items():
            print(f"{path}: {', '.join(wrong)}", file=sys.stderr)
        if dirty:
            raise BadInput(f"{len(dirty)} notebooks are stored with traces of a run; `make strip` removes them.")
        print(f"{len(notebooks)} notebooks are stored stripped")
        return
    if not arguments.into:
        records.needs_checkout("to run notebooks for the site (without --into FOLDER)")
        if not arguments.names:
            chapters.remove_strays()
    executed = arguments.into or chapters.EXECUTED
    how: dict[str, Any] = {"jobs": arguments.jobs, "executed": executed, "always": arguments.always}
    ran = chapters.run_notebooks(notebooks, arguments.profile, _given(arguments.parameters), **how)
    print(f"{len(ran)} of {len(notebooks)} notebooks run, the others had not changed since their last run")


def _sweep(arguments: argparse.Namespace) -> None:
    from pruning_core.book import sweeps

    how: dict[str, Any] = {"jobs": arguments.jobs, "scheduler": arguments.scheduler}
    ran = sweeps.sweep(arguments.names, arguments.profile, **how)
    print(f"{len(ran)} notebooks run at profile {arguments.profile}, the others had not changed since their last run")


def _sweep_status(arguments: argparse.Namespace) -> None:
    from pruning_core.book import sweeps

    table = sweeps.sweep_status(arguments.profile)
    print(table.to_string(index=False, float_format="{:.1f}".format, na_rep="?"))
    totals = table[["done", "running", "failed", "waiting"]].sum()
    print(", ".join(f"{n} {name}" for name, n in totals.items()), f"of {table['experiments'].sum()} experiments")


def _collect(arguments: argparse.Namespace) -> None:
    for profile in arguments.profiles:
        known_name("profile", profile, PROFILES)
    written = records.collect(arguments.profiles, dirty=arguments.dirty)
    print(f"{len(written)} files have new rows{': ' if written else ''}{', '.join(map(str, written))}")


def _page(arguments: argparse.Namespace) -> None:
    from pruning_core.book import chapters

    records.needs_checkout("to build a page")
    (source,) = chapters.find_notebooks([arguments.name])
    chapters.run_notebooks([source], arguments.profile, _given(arguments.parameters), jobs=1)
    chapters.remove_strays()
    if gaps := chapters.fill_gaps():
        print(f"{len(gaps)} other notebooks have not run yet: their pages will have no outputs")
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    subprocess.run([sys.executable, "book/_ext/prepare.py"], cwd=REPOSITORY, check=True)
    subprocess.run([jupyter_book, "build", "book", "-n", "--keep-going", "-q"], cwd=REPOSITORY, check=True)
    print(REPOSITORY / "book" / "_build" / "html" / "notebooks" / source.parent.name / f"{source.stem}.html")


def _scoreboard(arguments: argparse.Namespace) -> None:
    from pruning_core import records
    from pruning_core.book import claims
    from pruning_core.plots import scoreboard, show

    records.needs_checkout("to write the Scoreboard")
    book = REPOSITORY / "book"
    board = claims.scoreboard(records.load(), claims.load_claims(book / "claims.yml"))
    picture = show(scoreboard.summary(board))
    records.write_atomically(book / "scoreboard.svg", picture.data)
    claims.write_page(book / "scoreboard.md", board, ("scoreboard.svg", picture.alt))
    print(claims.summary(board))


def _costs(arguments: argparse.Namespace) -> None:
    from pruning_core.book import sweeps

    table = sweeps.costs(records.load())
    rows = [[p, m, d, on, str(n), f"{hours:.2f}"] for p, m, d, on, n, hours in table.itertuples(index=False)]
    head = ["profile", "network", "data", "on", "experiments", "hours"]
    print("\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pruning_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default quick)")
    pair: dict[str, Any] = {"nargs": 2, "metavar": ("NAME", "VALUE"), "action": "append", "default": []}
    shared.add_argument("-p", dest="parameters", help="set a parameter; may be given several times", **pair)

    def command(name: str, function: Callable, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=parents)
        sub.set_defaults(function=function)
        return sub

    command("methods", _methods, "table of the pruning methods")
    command("models", _models, "table of the networks that build_model knows")
    command("data", _data, "table of the data sets that load_data knows")
    run = command("run", _run, "run one experiment, or read its record if it has run", shared)
    run.add_argument("recipe", help="a pipeline of recipes; -p sets its arguments")
    run.add_argument("--model", default="lenet300")
    run.add_argument("--data", default="mnist5k")
    run.add_argument("--seed", type=int, default=0)
    notebooks = command("notebooks", _notebooks, "run the notebooks that changed since their last run", shared)
    notebooks.add_argument("names", nargs="*", help="0_foundations/1_sparsity, or its beginning; default: all")
    notebooks.add_argument("--jobs", type=int, default=2, help="how many side by side (default 2)")
    notebooks.add_argument(
        "--into", type=Path, help="folder for the executed ones (default: where the book is built from)"
    )
    notebooks.add_argument("--always", action="store_true", help="run also what has not changed")
    notebooks.add_argument("--check-stripped", action="store_true", help="only check that no outputs are stored")
    sweep = command("sweep", _sweep, "run the notebooks at a long profile, their experiments on many workers")
    sweep.add_argument("names", nargs="*", help="notebooks, as for the command notebooks; default: all")
    sweep.add_argument("--profile", default="standard", help=f"one of {', '.join(PROFILES)} (default standard)")
    sweep.add_argument("--jobs", type=int, default=2, help="how many processes of this machine (default 2)")
    sweep.add_argument("--scheduler", help="the address of a dask scheduler, whose workers take the place of --jobs")
    status = command("sweep-status", _sweep_status, "how far a sweep is: done, running, failed, core-hours left")
    status.add_argument("--profile", default="standard", help=f"one of {', '.join(PROFILES)} (default standard)")
    command("page", _page, "run one notebook and build its page of the site", shared).add_argument("name")
    collect = command("collect", _collect, "copy the records of long runs to data/results, to be committed")
    collect.add_argument("profiles", nargs="*", default=LONG, help=f"which (default: {' '.join(LONG)})")
    collect.add_argument("--dirty", action="store_true", help="also what edited code made, which nobody can look up")
    command("scoreboard", _scoreboard, "write the page of the papers' claims beside our results")
    command("costs", _costs, "what the experiments cost that have records, as a table in Markdown")
    return parser


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Within the block SIGTERM, as from a scheduler or a closed terminal, ends what runs as Ctrl-C does: nothing stays."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(given: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, with one sentence on stderr 2 if it was refused and 1 if it failed."""
    arguments = _parser().parse_args(given)
    try:
        with _ends_in_order():
            arguments.function(arguments)
    except PruningError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadInput | BadType) else 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `python -m pruning_core methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
