"""The papers' own settings from the shell: their names, their command lines, their files."""

from pathlib import Path
from typing import Any

import click

from pruning_core.checks import Maybe, Real, check
from pruning_core.commands.options import PathOf, alone, besides, command, named_images, running, use_root, workers_of
from pruning_core.commands.tables import table
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.besides import Besides
from pruning_core.records.files import cache_root
from pruning_core.records.places import RESULTS, check_folder
from pruning_core.training.losses import LOSSES

EXAMPLE = "official snipit/SNAPit-VGG16-CIFAR10 --epochs 1 --limit 500 --width 0.125"
TYPED = {"ignore_unknown_options": True, "allow_interspersed_args": True}  # words of the official programs


@command("official", EXAMPLE, context_settings=TYPED)
@click.argument("name", required=False)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS OF THE OFFICIAL PROGRAM]...")
@click.option("--list", "listed", is_flag=True, help="all names, with what their own users type")
@click.option("--config", type=PathOf(path_type=Path), help="a file in the form of How Sparse, or of SiPP and PFP")
@click.option("--epochs", type=int, help="of the longest training; all else in proportion")
@click.option("--points", type=int, help="at most so many fractions of a sweep, evenly spread, where there is one")
@click.option("--methods", multiple=True, help="only this method of the setting's; may be given several times")
@click.option(
    "--data", callback=named_images, help="other images: mnist5k, which needs no download, or a folder of pictures"
)
@click.option(
    "--reference", is_flag=True,
    help="what the official code computes, where it differs from its paper (SiPP and PFP: always)",
)  # fmt: skip
@click.option(
    "--plan", is_flag=True, help="only say what would run; --out, --workers and --max-minutes then change nothing"
)
@running
def official_command(
    name: str | None, flags: tuple[str, ...], listed: bool, config: Path | None, **options: Any
) -> None:
    """Run an official setting of the five papers to its report: rows, curves, figures, and the paper's numbers beside ours.

    NAME as in --list, or a command line as the official READMEs have it: `main.py` and `snipit` are SNIP-it's program,
    `experiment.main FILE` is that of SiPP and PFP, `main.py --config FILE` that of How Sparse, and i-SpaSP's scripts have
    their own names. Without --epochs, --limit, --width and --data everything has the paper's scale. The same command goes
    on where a run was stopped.
    """
    from pruning_core import official
    from pruning_core.official.files import settings_of_file

    if listed:
        alone("--list", "name")
        _list(name)
        return
    wanted, flags = official.typed([name, *flags] if name is not None else [], config)
    if config is not None and isinstance(wanted, str):
        print(f"{config} is not here; {wanted} is the setting of that name.")
    use_root(options["root"])
    epochs = options["epochs"]
    if wanted == "snipit" and epochs is not None:  # its own flag: a length, not a shortening
        flags, epochs = (*flags, "--epochs", str(epochs)), None
    if wanted == "snipit" and options["loss"] is not None and options["loss"] not in LOSSES:  # one of its penalties
        flags, options["loss"] = (*flags, "--loss", options["loss"]), None
    asked = Asked(
        options["seeds"], options["points"], options["methods"], options["reference"], flags, options["device"]
    )
    shorter = official.Shorter(epochs, options["limit"], options["width"], options["data"])
    system = (official.official(wanted) if isinstance(wanted, str) else settings_of_file(wanted)[0]).room
    title = wanted.stem if isinstance(wanted, Path) else wanted
    out = options["out"] or cache_root() / "official" / title
    if options["out"] or not options["plan"]:
        check_folder("--out", out, RESULTS)
    workers = workers_of(options["workers"])
    minutes = check("max_minutes", options["max_minutes"], Maybe(Real(above=0)))
    more = besides(options, out / "watch", {"snipit": "snipit", "sipp_pfp": "sipp"}.get(system))
    if options["plan"]:
        _plan(wanted, asked, shorter, more)
        return
    found = official.run_official(wanted, asked, shorter, more, workers=workers, out=out, max_minutes=minutes)
    for row in found.rows.tail(5).to_dict("records"):
        print(
            "  ".join(f"{key}={row[key]}" for key in ("label", "method", "seed", "sparsity", "accuracy") if key in row)
        )
    print(f"{len(found.rows)} rows; the report: {found.report}")


def _list(beginning: str | None) -> None:
    from pruning_core.official import CATALOGUE

    chosen = [entry for name, entry in CATALOGUE.items() if name.startswith(beginning or "")]
    if not chosen:
        raise BadInput(f"no official setting begins with {beginning!r}.")
    print(table(("name", "system", "official call"), [(e.name, e.system, e.command) for e in chosen]))


def _plan(wanted: str | Path, asked: Asked, shorter: Any, more: Besides) -> None:
    from pruning_core.experiments.engine import epochs_of
    from pruning_core.official import official, planned
    from pruning_core.official.files import settings_of_file

    settings = [official(wanted)] if isinstance(wanted, str) else settings_of_file(wanted)
    experiments = [e for setting in settings for e in planned(setting, asked, shorter, more)]
    rows = [
        (e.key, e.model, e.data, e.seed, epochs_of(e.timeline), "done" if e.record().exists() else "")
        for e in experiments
    ]
    print(table(("record", "network", "data", "seed", "epochs", ""), rows))
