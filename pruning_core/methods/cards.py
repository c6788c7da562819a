"""A model card of a pruned network, as Hugging Face's hub shows them: Markdown under a head in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from torch import nn

from pruning_core.checks import Checked, Constraints, Maybe, Real, Text
from pruning_core.masks.budgets import Budget
from pruning_core.masks.reports import Report
from pruning_core.methods.base import METHODS, Method
from pruning_core.models.cost import count_macs, count_parameters, size_on_disk
from pruning_core.records import environment
from pruning_core.records.markdown import code, escaped

SHOWN = 8  # reasons why layers were left out; a deep network has one for each of its layers


@dataclass(frozen=True)
class Facts(Checked):
    """What the package cannot know, of whoever ships a network: each may be None, and the card then says so or is silent.

    ``before`` and ``after`` are the ``metric`` of the network that was given and of the one that is shipped, on ``dataset``;
    ``licence`` is an identifier of the hub such as "mit", ``task`` one such as "image-classification".
    """

    constraints = Constraints(
        name=Maybe(Text()), before=Maybe(Real()), after=Maybe(Real()), metric=Text(), dataset=Maybe(Text()),
        licence=Maybe(Text()), task=Maybe(Text()),
    )  # fmt: skip

    name: str | None = None
    before: float | None = None
    after: float | None = None
    metric: str = "accuracy"
    dataset: str | None = None
    licence: str | None = None
    task: str | None = None


def told(
    method: Method, asked: float | None, budget: Budget, rounds: int, schedule: str, seed: int
) -> dict[str, object]:
    """What ``prune`` was told, setting by setting; what is at its default and changes nothing is left out."""
    found: dict[str, object] = {"method": method, "sparsity": asked, "of": budget.of, "across": budget.across}
    found |= {"below": budget.below} if budget.below is not None else {}
    found |= {"round_to": budget.round_to} if budget.round_to > 1 else {}
    found |= {"rounds": rounds, "schedule": schedule} if rounds > 1 else {}
    return found | {"seed": seed}


def card(
    report: Report, whole: nn.Module, shipped: nn.Module, example_input: Any, settings: Mapping[str, Any], facts: Facts
) -> str:
    """The text of the card: what was pruned, how, what it costs in accuracy, what it saves, versions and licence.

    ``whole`` has the sizes of the network before the cut, ``shipped`` is what leaves the house; multiply-accumulates are
    counted where ``example_input`` is not None.
    """
    name = facts.name or f"{_kind(whole)}, pruned"
    parts = [
        f"# {escaped(name)}",
        _what(report, whole, shipped),
        "## How it was pruned",
        _how(report, settings),
        "## What it costs and saves",
        _costs(whole, shipped, example_input, facts),
        "## What was left whole",
        _left(report),
        "## How to use it",
        _use(report),
        "## Versions",
        _versions(),
        "## Licence",
        _licence(facts),
    ]
    head = yaml.safe_dump(_head(name, facts), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def _head(name: str, facts: Facts) -> dict[str, Any]:
    head: dict[str, Any] = {"license": facts.licence or "unknown", "library_name": "pytorch"}
    head["tags"] = ["pruning", "pruning-core"]
    if facts.task:
        head["pipeline_tag"] = facts.task
    if facts.task and facts.dataset and facts.after is not None:  # the hub refuses results without any of the three
        dataset = {"type": "-".join(facts.dataset.lower().split()), "name": facts.dataset}
        metrics = [{"type": facts.metric, "value": facts.after, "name": f"{facts.metric} after pruning"}]
        result = {"task": {"type": facts.task}, "dataset": dataset, "metrics": metrics}
        head["model-index"] = [{"name": name, "results": [result]}]
    return head


def _kind(network: nn.Module) -> str:
    recipe = getattr(network, "recipe", None)
    return str(recipe["name"]) if recipe and "name" in recipe else type(network).__name__


def _what(report: Report, whole: nn.Module, shipped: nn.Module) -> str:
    before, after = count_parameters(whole), count_parameters(shipped)
    removed, total = report.removed["weights"]
    kind = f"A {code(_kind(whole))}"
    if after < before:
        return (
            f"{kind} from which whole channels were removed: {after:,} of {before:,} parameters are left, in smaller layers "
            "that need no special software."
        )
    return (
        f"{kind} of which {removed:,} of {total:,} prunable weights were set to zero. The layers have their old sizes: "
        "time and memory are saved only by software that skips zeros."
    )


def _how(report: Report, settings: Mapping[str, Any]) -> str:
    method = METHODS.get(report.method)
    sentence = f"Method {code(report.method)}"
    if method is not None:
        sentence += f" ({_summary(method)}; reference {code(method.citation)})"
    asked = (
        "no fixed share was asked for" if report.asked is None else f"{report.asked:.2%} of {report.of} were asked for"
    )
    lines = [f"{sentence}: {asked}, {report.reached:.2%} were removed."]
    if settings:
        lines += [
            "",
            "| setting | value |",
            "|---|---|",
            *(f"| {key} | {_in_a_cell(value)} |" for key, value in settings.items()),
        ]
    if report.remarks:
        lines += ["", *(f"- {escaped(remark)}" for remark in report.remarks)]
    return "\n".join(lines)


def _summary(method: type[Method]) -> str:
    return escaped((method.__doc__ or "").strip().partition("\n")[0].rstrip("."))


def _in_a_cell(value: Any) -> str:
    return code(value).replace("|", "\\|")


def _costs(whole: nn.Module, shipped: nn.Module, example_input: Any, facts: Facts) -> str:
    rows = [
        ("parameters", *(f"{count_parameters(network):,}" for network in (whole, shipped))),
        ("bytes as safetensors", *(f"{size_on_disk(network):,}" for network in (whole, shipped))),
    ]
    if example_input is not None:
        macs = [f"{count_macs(network, example_input):,}" for network in (whole, shipped)]
        rows.append(("multiply-accumulates for one sample", *macs))
    if facts.before is not None or facts.after is not None:
        measured = escaped(facts.metric + (f" on {facts.dataset}" if facts.dataset else ""))
        rows.append(
            (measured, *("not given" if value is None else f"{value:g}" for value in (facts.before, facts.after)))
        )
    table = "\n".join(["| | before | after |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)])
    if facts.after is None:
        table += (
            "\n\nHow well the network does its task after the cut was not given: measure it on your data before use."
        )
    return table


def _left(report: Report) -> str:
    if not report.not_prunable:
        return "Nothing: every layer that the method prunes took part."
    reasons = [f"- {code(name)}: {escaped(reason)}" for name, reason in [*report.not_prunable.items()][:SHOWN]]
    more = len(report.not_prunable) - SHOWN
    return "\n".join([*reasons, *([f"- and {more} more"] if more > 0 else [])])


def _use(report: Report) -> str:
    return (
        "```python\nimport pruning_core\n\nnetwork = pruning_core.load_pruned(path)  # model=YourClass() for a class of your "
        "own\n```\n\nwhere `path` is the file written by `PruneResult.save` or `save_network`."
    )


def _versions() -> str:
    found = environment()
    return ", ".join(
        f"{name} {found[key]}"
        for name, key in {"pruning-core": "package", "torch": "torch", "Python": "python"}.items()
    )


def _licence(facts: Facts) -> str:
    if facts.licence:
        return f"{code(facts.licence)}, as stated by whoever made this card."
    return "Not stated. Pruned weights are made from the weights of the network given, so its licence holds for them as well."
