"""The book's own commands: notebooks and their pages, sweeps, stored rows, the Scoreboard."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pruning_core import records
from pruning_core.commands.options import MANY, PathOf, address_of, alone, command, files, given, parameters, profile
from pruning_core.errors import BadInput, known_name
from pruning_core.records.places import check_folder
from pruning_core.version import LONG, PROFILES, REPOSITORY

names = click.argument("names", nargs=-1, metavar="[NAMES]...")


@command("notebooks", "notebooks 0_foundations/1 --profile smoke -p seed 1")
@names
@profile("quick")
@parameters
@files
@click.option("--jobs", type=click.IntRange(1, MANY), default=2, show_default=True, help="how many side by side")
@click.option(
    "--into", type=PathOf(path_type=Path), help="folder for the executed ones (default: where the book is built from)"
)
@click.option("--always", is_flag=True, help="run also what has not changed")
@click.option("--check-stripped", is_flag=True, help="only check that no outputs are stored")
def notebooks(
    names: tuple[str, ...], profile: str, parameters: Any, files: Any, jobs: int, into: Path | None, **flags: bool
) -> None:
    """Run the notebooks that changed since their last run.

    NAMES: 0_foundations/1_sparsity, or beginnings of such names; none: all.
    """
    from pruning_core.book import chapters

    found = chapters.find_notebooks(list(names))
    if flags["check_stripped"]:
        alone("--check-stripped", "names")
        dirty = {path: wrong for path in found if (wrong := chapters.unstripped(path))}
        for path, wrong in dirty.items():
            print(f"{path}: {', '.join(wrong)}", file=sys.stderr)
        if dirty:
            raise BadInput(f"{len(dirty)} notebooks are stored with traces of a run; `make strip` removes them.")
        print(f"{len(found)} notebooks are stored stripped")
        return
    if into:
        check_folder("--into", into)
    else:
        records.needs_checkout("to run notebooks for the site (without --into FOLDER)")
        if not names:
            chapters.remove_strays()
    how: dict[str, Any] = {"jobs": jobs, "executed": into or chapters.EXECUTED, "always": flags["always"]}
    if into:  # what fails stays there, too: an installed package has no other place
        how["failed"] = into / "_failed"
    profile, asked = _asked(profile, parameters, files)
    ran = chapters.run_notebooks(found, profile, asked, **how)
    print(f"{len(ran)} of {len(found)} notebooks run, the others had not changed since their last run")


def _asked(profile: str, parameters: Any, files: Any) -> tuple[str, dict[str, Any]]:
    """The profile, which may stand among the parameters, and the other parameters; a --profile that is typed wins over that of
    a file."""
    asked = given(parameters, files)
    typed = click.get_current_context().get_parameter_source("profile") is not ParameterSource.DEFAULT
    if typed and "profile" in dict(parameters):
        raise BadInput("the profile is given twice, as --profile and as -p profile: give it once.")
    found = asked.pop("profile", profile)
    return profile if typed else known_name("profile", found, PROFILES), asked


@command("sweep", "sweep 5_how_sparse --profile standard --jobs 8")
@names
@profile("standard")
@click.option(
    "--jobs", type=click.IntRange(1, MANY), default=2, show_default=True, help="how many processes of this machine"
)
@click.option("--scheduler", help="the address of a dask scheduler, whose workers take the place of --jobs")
def sweep(names: tuple[str, ...], profile: str, jobs: int, scheduler: str | None) -> None:
    """Run the notebooks at a long profile, their experiments on many workers.

    NAMES: as for the command notebooks; none: all.
    """
    from pruning_core.book import sweeps

    address = None if scheduler is None else address_of(scheduler, "--scheduler")
    ran = sweeps.sweep(list(names), profile, jobs=jobs, scheduler=address)
    print(f"{len(ran)} notebooks run at profile {profile}, the others had not changed since their last run")


@command("sweep-status", "sweep-status --profile paper")
@profile("standard")
def sweep_status(profile: str) -> None:
    """How far a sweep is: done, running, failed, core-hours left."""
    from pruning_core.book import sweeps

    table = sweeps.sweep_status(profile)
    print(table.to_string(index=False, float_format="{:.1f}".format, na_rep="?"))
    totals = table[["done", "running", "failed", "waiting"]].sum()
    print(", ".join(f"{n} {name}" for name, n in totals.items()), f"of {table['experiments'].sum()} experiments")


@command("page", "page 0_foundations/1_sparsity")
@click.argument("name")
@profile("quick")
@parameters
@files
def page(name: str, profile: str, parameters: Any, files: Any) -> None:
    """Run one notebook and build its page of the site."""
    from pruning_core.book import chapters
    from pruning_core.book.notebooks import check_parameters

    records.needs_checkout("to build a page")
    (source,) = chapters.find_notebooks([name])
    for notebook in chapters.find_notebooks():  # the site has them all
        check_parameters(notebook)
    profile, asked = _asked(profile, parameters, files)
    chapters.run_notebooks([source], profile, asked, jobs=1)
    chapters.remove_strays()
    if gaps := chapters.fill_gaps():
        print(f"{len(gaps)} other notebooks have not run yet: their pages will have no outputs")
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    for line in ([sys.executable, "book/_ext/prepare.py"], [jupyter_book, "build", "book", "-n", "--keep-going", "-q"]):
        # Ctrl-C in the terminal is for this process, which ends the other without its traceback.
        subprocess.run(line, cwd=REPOSITORY, check=True, start_new_session=True)
    print(REPOSITORY / "book" / "_build" / "html" / "notebooks" / source.parent.name / f"{source.stem}.html")


@command("collect", "collect standard")
@click.argument("profiles", nargs=-1)
@click.option("--dirty", is_flag=True, help="also what edited code made, which nobody can look up")
def collect(profiles: tuple[str, ...], dirty: bool) -> None:
    """Copy the records of long runs to data/results, to be committed.

    PROFILES: which (default: standard and paper).
    """
    for name in profiles:
        known_name("profile", name, PROFILES)
    written = records.collect(list(profiles or LONG), dirty=dirty)
    print(f"{len(written)} files have new rows{': ' if written else ''}{', '.join(map(str, written))}")


@command("scoreboard", "scoreboard")
def scoreboard() -> None:
    """Write the page of the papers' claims beside our results."""
    from pruning_core.book import claims
    from pruning_core.plots import scoreboard, show

    records.needs_checkout("to write the Scoreboard")
    book = REPOSITORY / "book"
    board = claims.scoreboard(records.load(), claims.load_claims(book / "claims.yml"))
    picture = show(scoreboard.summary(board))
    records.write_atomically(book / "scoreboard.svg", picture.data)
    claims.write_page(book / "scoreboard.md", board, ("scoreboard.svg", picture.alt))
    print(claims.summary(board))


@command("costs", "costs")
def costs() -> None:
    """What the experiments cost that have records, as a table in Markdown."""
    from pruning_core.book import sweeps
    from pruning_core.records.markdown import escaped, table

    found = sweeps.costs(records.load())
    rows = [[*map(escaped, names), str(n), f"{hours:.2f}"] for *names, n, hours in found.itertuples(index=False)]
    print(table(["profile", "network", "data", "on", "experiments", "hours"], rows))
