"""What the front page and the lecturer's page show and nobody typed: findings, a figure that moves, hours, slides.

A finding is a sentence with a condition on the stored rows; where one no longer holds the build stops, as on every page.
"""

import base64
import html
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning_core.book import clear, gaps, means, stored_rows
from pruning_core.book.chapters import executed_path, find_notebooks
from pruning_core.book.exercises import EXERCISES
from pruning_core.book.notebooks import stamp_in
from pruning_core.book.sentences import supported
from pruning_core.plots import SliderFigure, slider_figure, style_of
from pruning_core.plots.axes import percent

BOOK = Path(__file__).resolve().parents[1]
PAGES = BOOK / "front"
READ = 200
"""Words that a reader reads in a minute."""


def findings() -> Iterator[str]:
    """What the book found, in five sentences, each with the page that shows it."""
    rows = stored_rows(model="lenet300_snip", data="digits", label="final")
    chance = {m: clear(gaps(rows, m, "random")) for m in ("snip-it", "synflow", "magnitude")}
    level = means(rows[rows["method"] == "random"], "asked")
    yield supported(
        f"**Mild cuts need no method.** With {percent(0.8)} of the weights gone before training, a random mask ends at "
        f"{level[0.8].mean:.0f} %, and neither SNIP-it nor SynFlow nor magnitude can be told from it; at {percent(0.98)} the "
        f"random mask is down at {level[0.98].mean:.0f} %, and all three are clearly ahead "
        "({doc}`notebooks/4_snip/2_weights`).",
        all(sides[0.8] == "open" and sides[0.98] == "ahead" for sides in chance.values()),
        level[0.8].mean > 95 > 60 > level[0.98].mean,
    )
    half = stored_rows(footing="one", of="weights", label="fine-tuned", asked=0.5)
    others = sorted(set(half["method"]) - {"random_channels"})
    better = {m for m in others if clear(gaps(half, m, "random_channels"))[0.5] == "ahead"}
    yield supported(
        f"**Simple criteria win for channels.** Of {len(others)} ways to halve the weights of a ResNet-20, {len(better)} are "
        "clearly better than random channels after fine-tuning, the norms of the filters and ThiNet "
        "({doc}`notebooks/0_foundations/6_one_footing`).",
        better == {"l1_norm", "l2_norm", "thinet"},
    )
    lenet5 = stored_rows(model="lenet5", data="mnist5k", label=["pruned", "fine-tuned"])
    cut, tuned = (lenet5[lenet5["label"] == name] for name in ("pruned", "fine-tuned"))
    at_once, after = gaps(cut, "pfp", "random_channels"), gaps(tuned, "pfp", "thinet")
    yield supported(
        f"**Fine-tuning levels the methods.** Right after the cut PFP is ahead of random channels by "
        f"{at_once[0.8].mean:.0f} points at {percent(0.8)}; retrained, it cannot be told from ThiNet at any sparsity "
        "({doc}`notebooks/2_sensitivity/3_filters`).",
        set(clear(at_once).values()) == {"ahead"},
        set(clear(after).values()) == {"open"},
    )
    chain = stored_rows(model="vgg8", label="pruned")
    importances = means(chain[chain["method"] == "rni"], "asked")
    yield supported(
        "**A network can show what it does not need.** Trained so that weak channels recede, it keeps "
        f"{importances[0.5].mean:.0f} % accuracy with half of its channels cut out and no fine-tuning, and "
        f"{importances[0.7].mean:.0f} % with {percent(0.7)}, beyond what has receded "
        "({doc}`notebooks/3_rni/3_prune_fine_tune`).",
        importances[0.5].mean > 95,
        importances[0.7].mean < 20,
    )
    limits = stored_rows(study="limits", model="lenet300")
    error = means(limits, "strength", "gap")
    yield supported(
        f"**Theory comes close where training helps it.** The largest cut that geometry predicts is off by "
        f"{error[0.005].mean:.3f} after training with a strong L1 penalty and by {error[0.0].mean:.2f} without one, and always "
        "too large ({doc}`notebooks/5_how_sparse/3_predicting`).",
        error[0.005].mean < 0.05 < 0.1 < error[0.0].mean,
        (limits["predicted"] > limits["limit"]).all(),
    )


def moving_figure() -> SliderFigure:
    """Accuracy of nine ways to prune before or during training, a dot for each; the slider moves what is removed."""
    methods = ["snip", "snip-it", "snip-it-during", "grasp", "synflow", "imp", "magnitude", "random"]
    rows = stored_rows(model="lenet300_snip", data="digits", label="final", method=methods)
    table = rows.pivot_table(index="asked", columns="method", values="accuracy")
    order = list(table.loc[table.index.max()].sort_values().index)  # the best at the sparsest end lies on top
    positions = {
        percent(float(asked)): {name: ([level[name]], [place]) for place, name in enumerate(order)}
        for asked, level in table.iterrows()
    }
    chance = gaps(rows, "synflow", "random")
    alt = (
        f"Test accuracy of {len(order)} methods as more weights are removed: together at {percent(0.5)}, far apart from "
        f"{percent(0.98)} on, where SynFlow leads random masks by {chance[0.98].mean:.0f} points."
    )
    figure = slider_figure(
        positions, control="weights removed", x_label="test accuracy (%), mean of five seeds", y_label="method", alt=alt,
        x_range=(0, 100), y_range=(-0.6, len(order) - 0.4), mode="markers", play=True,
        caption=(
            "Move the slider to the right: eight methods cut weights of LeNet-300-100 before or during training on digits. "
            "Watch which of them fall first, and how far below the best a random mask lies."
        ),
    )  # fmt: skip
    labels = {"tickvals": list(range(len(order))), "ticktext": [style_of(name).label for name in order]}
    figure.layout["yaxis"] |= labels | {"title": {"text": ""}}
    figure.layout |= {"showlegend": False, "margin": {"l": 130, "r": 15, "t": 20, "b": 50}}
    for trace in figure.data:
        trace["marker"]["size"] = 13
    return figure


def lectures() -> str:
    """A table of all pages: minutes to read, seconds that the last run took, exercises and how many of them ask for code."""
    rows, total = [], [0.0, 0.0, 0, 0]
    for path in find_notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = {
            kind: "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == kind)
            for kind in ("markdown", "code")
        }
        (title, *_) = re.findall(r"^# (.+)$", text["markdown"], re.M)
        asked = re.findall(r"""\bcheck\(\s*["']([^"']+)["']""", text["code"])
        code = sum(callable(EXERCISES[name].right) for name in asked)
        minutes, seconds = len(text["markdown"].split()) / READ, _seconds(executed_path(path))
        place = f"/notebooks/{path.parent.name}/{path.stem}"
        link = f"{{doc}}`{title.replace('`', '')} <{place}>`"
        ran = "not run" if seconds is None else f"{seconds:.0f}"
        rows.append(f"| {link} | {minutes:.0f} | {ran} | {len(asked)} | {code} |")
        total = [a + b for a, b in zip(total, (minutes, seconds or 0.0, len(asked), code), strict=True)]
    head = "| page | minutes to read | seconds to run | exercises | of them judged by a function |\n|---|---:|---:|---:|---:|"
    last = f"| **all, in hours** | {total[0] / 60:.1f} | {total[1] / 3600:.1f} | {total[2]} | {total[3]} |"
    return "\n".join([head, *rows, last, ""])


def _seconds(executed: Path) -> float | None:
    if not executed.is_file() or stamp_in(executed) is None:
        return None
    return float(json.loads(executed.read_text(encoding="utf-8"))["metadata"]["pruning_book"]["seconds"])


def slides() -> Iterator[tuple[str, bytes, str]]:
    """Every figure with a caption in the executed notebooks: its name, its bytes, the caption."""
    for path in find_notebooks():
        copy, number = executed_path(path), 0
        for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"] if copy.is_file() else []:
            for output in cell.get("outputs", []):
                text = "".join(output.get("data", {}).get("text/html", ""))
                found = re.search(
                    r'<figure.*?src="data:image/(\w+)[^,]*,([^"]+)".*?<figcaption>(.*?)</figcaption>', text, re.S
                )
                if found:
                    number += 1
                    kind, data, caption = found.groups()
                    name = f"{path.parent.name}/{path.stem}_{number}.{kind}"
                    yield name, base64.b64decode(data), html.unescape(caption)


def write(folder: Path = PAGES) -> None:
    """Write the parts that index.md and lecturer.md include, and the archive of figures."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, Any] = {
        "findings.md": "\n".join(f"{i}. {finding}" for i, finding in enumerate(findings(), 1)) + "\n",
        "figure.html": moving_figure().to_html(),
        "lectures.md": lectures(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    captions = []
    with zipfile.ZipFile(folder / "figures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, caption in slides():
            archive.writestr(
                zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED
            )  # no date: the same figures, the same file
            captions.append(f"{name}: {caption}")
        words = "Text and figures of The pruning book, CC BY 4.0.\n\n" + "\n".join(captions) + "\n"
        archive.writestr(zipfile.ZipInfo("captions.txt"), words, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    write()
