"""Every official setting by name: the parameter files of SiPP and PFP, the configurations of How Sparse, the README's lines of
SNIP-it, the notebook's settings of RNI, the scripts of i-SpaSP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pruning_core.errors import known_name
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.experiment import Experiment
from pruning_core.papers.how_sparse import official as how_sparse
from pruning_core.papers.how_sparse.configurations import CONFIGURATIONS, FILES, Configuration
from pruning_core.papers.ispasp import official as ispasp
from pruning_core.papers.rni import official as rni
from pruning_core.papers.sipp_pfp.official import experiments_of
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES, ParameterFile
from pruning_core.papers.snipit import official as snipit


@dataclass(frozen=True)
class Official:
    """One official setting.

    ``name`` here; ``system``: short name of the paper; ``room``: its folder in ``papers``; ``paper``: its key; ``command``:
    what the official user types;
    ``plan(asked)``: the experiments at the paper's scale.

    >>> next(iter(CATALOGUE.values())).system
    'SiPP/PFP'
    """

    name: str
    system: str
    room: str
    paper: str
    command: str
    plan: Callable[[Asked], Iterable[Experiment]]


def _sipp_pfp(name: str) -> Official:
    first, _, rest = name.partition("/")
    file = f"paper/{first}/param/{rest}" if first in ("pfp", "sipp") else name
    return of_parameter_file(name, PARAMETER_FILES[name], f"python -m experiment.main {file}.yaml")


def of_parameter_file(name: str, entry: ParameterFile, command: str) -> Official:
    """The setting of a parameter file of SiPP and PFP."""
    paper = "liebenwein2020pfp" if name.startswith("pfp/") else "baykal2019sipp"
    return Official(name, "SiPP/PFP", "sipp_pfp", paper, command, lambda asked: experiments_of(name, entry, asked))


def _how_sparse(name: str) -> Official:
    file = FILES[name.removesuffix("_l1")] + ("_l1" if name.endswith("_l1") else "")
    return of_configuration(name, CONFIGURATIONS[name], f"python main.py --config configs/{file}.yml")


def of_configuration(name: str, entry: Configuration, command: str) -> Official:
    """The setting of a configuration file of How Sparse."""

    def plan(asked: Asked) -> list[Experiment]:
        return how_sparse.experiments(name, entry, asked)

    return Official(name, "How sparse", "how_sparse", "zhang2024howsparse", command, plan)


def _snipit(name: str, words: list[str], line: str) -> Official:
    command = f"python3 main.py {line}".rstrip()
    return Official(
        name, "SNIP-it", "snipit", "verdenius2020snipit", command, lambda asked: snipit.experiments(words, asked)
    )


def _rni(name: str) -> Official:
    arch, data, method = name.split("-")
    strength, b = rni.SETTINGS[arch].strengths[method], rni.SETTINGS[arch].b
    words = [
        f'"{data}"',
        f'"{arch}"',
        f'"{method}"',
        f"{strength:g}" if strength else "",
        f"b={b:g}" if method == "rni" else "",
    ]
    command = f"train({', '.join(filter(None, words))}), prune_finetune at .5 and .9"
    return Official(f"rni/{name}", "RNI", "rni", "suteu2022rni", command, lambda asked: rni.experiments(name, asked))


def _ispasp(name: str) -> Official:
    command = f"python {ispasp.SCRIPTS[name.partition('-')[0]]} {ispasp.LINES[name]}"
    return _of_ispasp(f"ispasp/{name}", name, command)


def _of_ispasp(title: str, name: str, command: str) -> Official:
    return Official(
        title, "i-SpaSP", "ispasp", "wolfe2022ispasp", command, lambda asked: ispasp.experiments(name, asked)
    )


_EVERY = (
    *map(_sipp_pfp, PARAMETER_FILES),
    *map(_how_sparse, CONFIGURATIONS),
    *(_snipit(f"snipit/{name}", words, snipit.README[name]) for name, words in snipit.official_lines().items()),
    *map(_rni, rni.NAMES),
    *map(_ispasp, ispasp.LINES),
)

CATALOGUE: dict[str, Official] = {entry.name: entry for entry in _EVERY}
"""Name -> official setting."""

PROGRAMS = {
    "snipit": _snipit("snipit", [], ""),
    **{script: _of_ispasp(script, script, f"python {script}") for script in ispasp.SCRIPTS.values()},
}
"""Official programs with nothing but the flags that are asked for: SNIP-it's main.py, i-SpaSP's two scripts."""


def official(name: str) -> Official:
    """The setting of that name, or the program: "snipit" is SNIP-it's main.py. Raises UnknownName with the nearest name.

    >>> official("snipit/SNAPit-VGG16-CIFAR10").system
    'SNIP-it'
    """
    return PROGRAMS[name] if name in PROGRAMS else CATALOGUE[known_name("official setting", name, CATALOGUE)]
