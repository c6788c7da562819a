"""Write one page for each method of the registry, and the gallery of all: book/catalogue.md and book/catalogue/*.

A page holds the formula (docstring of the method's file, with its formulas in TeX from formulas.yml), an example, what the
example printed, a picture of what it kept, the parameters and the pages of the book that use the method. Nothing else on it
is typed: the example is made for what the method needs, run, and its result is drawn beside those of the other methods.
"""

import contextlib
import importlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pandas as pd

import docstrings
import pruning_core as pc
from api_pages import PACKAGE
from pruning_core.book.notebooks import tree_hash
from pruning_core.checks import Flag, Maybe, OneOf, Real
from pruning_core.methods.base import counted, weight_rows
from pruning_core.plots import METHOD_STYLE, catalogue, show, style_of
from pruning_core.plots.axes import percent
from pruning_core.pruning import PruneResult
from pruning_core.records.files import read_yaml

BOOK = Path(__file__).resolve().parents[1]
PAGES = BOOK / "catalogue"
SPARSITY = 0.7
TENTHS = [f"{first}-{first + 10} %" for first in range(0, 100, 10)]
FORMULAS: dict[str, list[str]] = read_yaml(Path(__file__).with_name("formulas.yml"))
STRENGTHS = {"lp": 1e-19}
"""Of the penalties in the examples, where 0.001 is none that training survives."""
NEEDS = {
    "nothing": "nothing but the network",
    "shape": "an example input",
    "inputs": "batches, without their labels",
    "labels": "batches with labels",
}

METHOD = """method = pc.METHODS["{name}"]()
"""
PREPARE = """network = method.prepare(network, digits.train.inputs[:1])
"""
PENALTY = """, penalty=lambda net: {strength:g} * method.penalty(net, pc.Masks())"""
EXAMPLE = """import pruning_core as pc

digits = pc.load_data("digits")
network = pc.build_model("lenet300", digits, seed=0, width=0.4)
{before}pc.fit(network, digits, epochs=5{penalty}, progress=False)
result = pc.prune(network, "{name}", {sparsity}{needs})
print(result.report.summary)
print(f"test accuracy {{pc.evaluate(result.model, digits.test).accuracy:.1f}} %")"""


def names() -> list[str]:
    """The registered methods in the order of the book's palette, which has relatives side by side; others behind them."""
    order = list(METHOD_STYLE)
    return sorted(pc.METHODS, key=lambda name: (order.index(name) if name in order else len(order), name))


def example(name: str) -> str:
    """Code that trains a small network as the method wants it, prunes it, and says what came out."""
    method = pc.METHODS[name]
    before = PREPARE if method.prepare is not pc.Method.prepare else ""
    penalty = ""
    if method.penalty is not pc.Method.penalty:
        penalty = PENALTY.format(strength=STRENGTHS.get(name, 1e-3))
    if before or penalty:
        before = METHOD.format(name=name) + before
    needs = {"nothing": "", "shape": ", example_input=digits.train.inputs[:1]"}
    batches = ", batches=list(digits.score.batches(64))"
    given = {"before": before, "penalty": penalty, "needs": needs.get(method.needs, batches)}
    return EXAMPLE.format(name=name, sparsity=SPARSITY, **given)


def ran(name: str) -> tuple[PruneResult, Any, str]:
    """The example's result, the network that it pruned, and what it printed."""
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(example(name), f"<example of {name}>", "exec"), space)
    return space["result"], space["network"], printed.getvalue().rstrip()


def kept(name: str, result: PruneResult, network: Any) -> pd.DataFrame:
    """Rows of :func:`pruning_core.plots.catalogue.kept_by`: the share kept in each layer, and in each tenth by size."""
    sizes, alive, layers = [], [], []
    if result.sites.groups:
        for number, group in enumerate(result.sites.groups.values(), 1):
            norms = sum(
                network.get_parameter(m.parameter).detach().movedim(m.dim, 0).flatten(1).abs().sum(1)
                for m in weight_rows(group)
            )
            sizes.append(norms / norms.mean())
            alive.append(group.alive(result.masks))
            layers.append(f"layer {number}")
    else:
        for number, parameter in enumerate(result.sites.weights, 1):
            sizes.append(network.get_parameter(parameter).detach().abs().flatten())
            alive.append(result.masks[parameter].flatten())
            layers.append(f"layer {number}")
    parts = [
        pd.DataFrame({"place": layer, "size": size.double().numpy(), "kept": mask.double().numpy()})
        for layer, size, mask in zip(layers, sizes, alive, strict=True)
    ]
    every = pd.concat(parts)
    tenths = every.assign(place=pd.qcut(every["size"].rank(method="first"), 10, labels=TENTHS).astype(str))
    tenths = tenths.sort_values("size")
    found = [frame.groupby("place", sort=False)["kept"].mean().reset_index() for frame in (every, tenths)]
    titles = "by layer, first left", catalogue.SIZES
    return pd.concat([f.assign(panel=t, method=name) for f, t in zip(found, titles, strict=True)], ignore_index=True)


def allowed(constraint: Any) -> str:
    """What a parameter may be, in words."""
    match constraint:
        case Maybe():
            return f"None, or {allowed(constraint.constraint)}"
        case OneOf():
            return " or ".join(f'`"{word}"`' for word in constraint.names)
        case Flag():
            return "`True` or `False`"
        case Real():
            bounds = {"at least": constraint.at_least, "above": constraint.above}
            bounds |= {"at most": constraint.at_most, "below": constraint.below}
            words = [f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) != float("inf")]
            return " ".join([constraint.kind, " and ".join(words)]).strip()
    return ""


def explained(method: type[pc.Method], field: str) -> str:
    """The part of a docstring, of the class or of one that it stands on, that speaks of the field."""
    for base in method.__mro__:
        text = " ".join((vars(base).get("__doc__") or "").split())
        # a sentence or a part between semicolons; a colon may stand in it
        for sentence in re.split(r"(?<=[.;]) (?=``|[A-Z])", text):
            if f"``{field}``" in sentence or f"``{field}=" in sentence:
                return sentence.rstrip(".;")
    return ""


def parameters(method: type[pc.Method]) -> list[tuple[str, str, str, str]]:
    """Name, default, what is allowed and what it does, of each field."""
    constraints: dict[str, Any] = {}
    for base in reversed(method.__mro__):
        constraints |= vars(base).get("constraints", {})
    rows = []
    for field in fields(method):
        default = "" if field.default is MISSING else f"`{field.default!r}`"
        flag = Flag() if isinstance(field.default, bool) else None
        words = allowed(constraints.get(field.name, flag))
        rows.append(
            (f"`{field.name}`", default, words, explained(method, field.name).removeprefix(f"``{field.name}``: "))
        )
    return rows


def typeset(text: str, formulas: list[str]) -> str:
    """A docstring in reStructuredText with its displayed formulas as TeX, or with one behind its first sentence."""
    displayed = re.compile(r"^::\n\n(?:    .*(?:\n|\Z)|\n(?=    ))+", re.M)
    made = [".. math::\n\n" + "\n".join(f"    {line}" for line in formula.splitlines()) + "\n" for formula in formulas]
    if not displayed.search(text):
        first, _, rest = text.partition("\n\n")
        return "\n\n".join(part for part in (first, *made, rest) if part)
    left = iter(made)
    return displayed.sub(lambda found: next(left, found[0]), text)


def pages_that_use() -> dict[str, list[tuple[str, str]]]:
    """Method -> pages (document and title) whose code names it, by its name or by its class."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in pc.METHODS}
    for path in sorted((BOOK.parent / "notebooks").glob("*/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        heads = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        (title, *_) = re.findall(r"^# (.+)$", heads, re.M)
        for name, method in pc.METHODS.items():
            if re.search(rf"""["']{name}["']|\b{method.__name__}\(""", code):
                found[name].append((f"/notebooks/{path.parent.name}/{path.stem}", title))
    return found


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```\n"


def _cited(text: str) -> str:
    """Keys of references.bib as citations where they stand alone, and left out behind a name and a year."""
    keys = "|".join(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.M))
    return re.sub(rf", (?:{keys})\b", "", re.sub(rf"\(({keys})\)", r":cite:p:`\1`", text))


def _cell(text: str) -> str:
    text = re.sub(r":\w+:`[~.]?([^`]+)`", r"`\1`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text).replace("|", "\\|")


def _summary(method: type[pc.Method]) -> str:
    return _cell(" ".join((method.__doc__ or "").strip().split("\n\n")[0].split()))


def _kind(method: type[pc.Method]) -> str:
    unit = "single weights" if method.unit == "weight" else "channels"
    return f"prunes {unit}, needs {NEEDS[method.needs]}; a sparsity counts {counted(method())}"


def page(name: str, printed: str, alt: str, uses: list[tuple[str, str]]) -> str:
    """The page of one method."""
    method, style = pc.METHODS[name], style_of(name)
    module = importlib.import_module(method.__module__)
    home = method.__module__.removeprefix("pruning_core.methods.")
    formula = _cited("\n".join(docstrings.to_rst((module.__doc__ or "").splitlines())).strip())
    formula = typeset(formula, FORMULAS[home])
    rivals = "weights" if method.unit == "weight" else "channels"
    out = [
        f"# {style.label[0].upper()}{style.label[1:]}\n",
        f"{_summary(method)} `{name}` {_kind(method)}. Source: {{cite:t}}`{method.citation}`.\n",
        f"```{{figure}} {name}.svg\n:alt: {alt}\n:class: dark-light\n",
        f"What the example below keeps of a small network, in colour; in grey, every other method for {rivals} with the same "
        f"sparsity. Right: of the smallest tenth of the {rivals}, of the next, and so on to the largest.\n```\n",
        "## Formula\n",
        _fenced(f".. py:currentmodule:: {module.__name__}\n.. highlight:: text\n\n{formula}", "{eval-rst}"),
        "## Example\n",
        _fenced(example(name), "python"),
        "It prints:\n",
        _fenced(printed, "text"),
        "## Parameters\n",
    ]
    if rows := parameters(method):
        made = [" | ".join(map(_cell, row)) for row in rows]
        out.append(
            "\n".join(["| name | default | allowed | what it does |", "|---|---|---|---|", *(f"| {r} |" for r in made)])
        )
        out.append("")
    else:
        out.append("None.\n")
    out += ["## Where the book uses it\n"]
    links = [f"- {{doc}}`{title.replace('`', '')} <{place}>`" for place, title in uses]
    out.append("\n".join(links or ["No chapter compares it; it is here to be tried."]) + "\n")
    out.append(f"Code: {{doc}}`methods/{home}.py </api/methods/{home}>`. All methods: {{doc}}`/catalogue`.\n")
    return "\n".join(out)


def gallery(alts: dict[str, str]) -> str:
    """The page with a picture of every method."""
    out = [
        "# The methods\n",
        f"All {len(pc.METHODS)} methods of `pruning_core`, each with one picture: a small network was trained, and the method "
        f"removed {percent(SPARSITY)} of it. A curve says which share is kept of the smallest tenth (left) to the largest "
        "(right), the other methods of its kind in grey. Pruning by size is a step at the right end; a method that does not "
        "look at size has a flat line. Each page has the formula, an example that runs, and the parameters.\n",
    ]
    for unit, title in (("weight", "Single weights"), ("channel", "Channels")):
        cards = []
        for name in names():
            method = pc.METHODS[name]
            if method.unit == unit:
                cards += [
                    f":::{{grid-item-card}} {style_of(name).label}",
                    f":link: catalogue/{name}\n:link-type: doc\n:img-bottom: catalogue/{name}_small.svg",
                    f":img-alt: {alts[name]}\n:class-img-bottom: dark-light\n\n{_summary(method)}\n:::",
                ]
        out += [f"## {title}\n", "::::{grid} 1 2 3 3\n:gutter: 2\n", *cards, "::::\n"]
    return "\n".join(out)


def made() -> Iterator[tuple[str, str | bytes]]:
    """Files below book/ with their contents: every example is run once."""
    results = {name: ran(name) for name in names()}
    rows = {name: kept(name, result, network) for name, (result, network, _) in results.items()}
    uses, alts = pages_that_use(), {}
    for name, (_, _, printed) in results.items():
        kind = [rows[other] for other in rows if pc.METHODS[other].unit == pc.METHODS[name].unit]
        picture = show(catalogue.kept_by(pd.concat(kind), method=name))
        small = show(catalogue.kept_by(pd.concat(kind), method=name, thumbnail=True))
        alts[name] = small.alt
        yield f"catalogue/{name}.svg", picture.data
        yield f"catalogue/{name}_small.svg", small.data
        yield f"catalogue/{name}.md", page(name, printed, picture.alt, uses[name])
    yield "catalogue.md", gallery(alts)


def write(book: Path = BOOK) -> None:
    """(Re)write the pages, unless neither the package nor a notebook has changed since they were written."""
    stamp = tree_hash(Path(__file__), PACKAGE, *sorted((BOOK.parent / "notebooks").glob("*/*.ipynb")))
    place = book / "catalogue" / ".stamp"
    if place.is_file() and place.read_text(encoding="utf-8") == stamp:
        return
    files = list(made())  # an example that fails leaves the old pages
    shutil.rmtree(book / "catalogue", ignore_errors=True)
    for name, content in files:
        path = book / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    aside = place.with_suffix(".new")
    aside.write_text(stamp, encoding="utf-8")
    os.replace(aside, place)


if __name__ == "__main__":
    write()
