"""Notebooks in JupyterLab as a student meets them: no directive is left raw, every cell runs, a live panel computes again."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = ["1_ispasp/1_sparse_recovery", "3_rni/1_importances", "4_snip/1_sensitivity"]
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts" / "lab"
RAW = re.compile(
    r"^\s*(:{3,}|`{3,})|\{(cite|eq|doc|term|func|ref|numref|exercise|solution)\b|^:(label|class):|\$\S[^$]*\S\$", re.M
)
WHOLE = {"windowingMode": "none"}  # else JupyterLab draws only the cells on the screen

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab over copies of the notebooks that run at profile smoke."""
    place = tmp_path_factory.mktemp("lab")
    shutil.copytree(REPOSITORY / "notebooks", place / "notebooks")
    for name in NOTEBOOKS:
        file = place / "notebooks" / f"{name}.ipynb"
        text = file.read_text(encoding="utf-8")
        assert text.count('profile = \\"quick\\"') == 1
        file.write_text(text.replace('profile = \\"quick\\"', 'profile = \\"smoke\\"'), encoding="utf-8")
    settings = place / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(WHOLE), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{kind}_DIR": str(place / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
    }
    environment = os.environ | folders | {"HOME": str(place), "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment.pop("PRUNING_STILL", None)
    options = [
        f"--port={port}", "--ServerApp.port_retries=0", "--no-browser", "--allow-root", "--IdentityProvider.token=book",
        "--expose-app-in-browser", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with open(place / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=place / "notebooks",
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(server, f"{address}/api?token=book", place / "log")
            yield address
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer: {log.read_text()}")


class Notebook:
    """One notebook open in JupyterLab, and what the page asked for and complained of."""

    def __init__(self, browser: Any, lab: str, name: str):
        self.context = browser.new_context(viewport={"width": 1400, "height": 1000})
        self.page, self.name = self.context.new_page(), name
        self.cells = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        self.foreign: list[str] = []
        self.page.on(
            "request", lambda r: self.foreign.append(r.url) if "//127.0.0.1:" not in r.url.split("?")[0] else None
        )
        self.page.goto(f"{lab}/lab/tree/{name}.ipynb?token=book&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)

    def ask(self, what: str) -> Any:
        """The value of an expression over ``notebook``, the open notebook, and ``cells``."""
        start = "const notebook = jupyterapp.shell.currentWidget.content, cells = [...notebook.widgets];"
        return self.page.evaluate(f"(() => {{ {start} return {what} }})()")

    def until(self, what: str, seconds: float) -> None:
        """Wait until the expression is true."""
        end = time.monotonic() + seconds
        while not self.ask(what):
            assert time.monotonic() < end, f"{self.name}: not within {seconds} s: {what}"
            self.page.wait_for_timeout(250)

    def run(self) -> None:
        """Run all cells, and wait for the last one."""
        self.until("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'", 120)
        self.page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        code = "cells.filter(cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().trim())"
        failed = "cell.model.outputs?.toJSON().find(output => output.output_type === 'error')"
        self.until(f"{code}.some(cell => {failed}) || {code}.every(cell => cell.model.executionCount)", 300)
        wrong = self.ask(
            f"{code}.map(cell => {failed}).filter(Boolean).map(error => error.ename + ': ' + error.evalue)"
        )
        assert wrong == [], self.name

    def screenshot(self, step: str) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(ARTEFACTS / f"{self.name.replace('/', '-')}-{step}.png"))


@pytest.fixture(params=NOTEBOOKS)
def notebook(request: pytest.FixtureRequest, browser: Any, lab: str) -> Iterator[Notebook]:
    pytest.importorskip("jupyterlab_myst", reason="jupyterlab-myst renders the notebooks: install requirements.lock")
    opened = Notebook(browser, lab, request.param)
    yield opened
    opened.context.close()


def test_a_notebook_reads_runs_and_computes_again_in_jupyterlab(notebook: Notebook) -> None:
    page = notebook.page
    texts = ".jp-MarkdownCell .myst"
    source = "\n".join("".join(cell["source"]) for cell in notebook.cells if cell["cell_type"] == "markdown")
    assert source.count("{exercise}") == source.count("{solution}") > 0, "each has its solution"
    # A cell counts as rendered before its directives are drawn, so each kind is waited for.
    for kind, drawn in (("exercise", "aside"), ("solution", "details")):
        found = f"[...document.querySelectorAll('{texts} {drawn}.myst-exercise')].length"
        notebook.until(f"{found} === {source.count(f'{{{kind}}}')}", 60)
    notebook.screenshot("opened")

    notebook.run()
    shown = page.locator(f"{texts}, .jp-OutputArea .jp-RenderedMarkdown, .jp-OutputArea .myst").all_inner_texts()
    assert len(shown) > 5
    raw = [line for text in shown for line in text.splitlines() if RAW.search(line)]
    assert raw == []
    assert page.locator(f"{texts} details[open]").count() == 0, "a solution is open before anybody asked for it"

    slider = page.locator(".jupyter-widgets.widget-slider").first
    slider.scroll_into_view_if_needed()
    picture = page.locator(".jupyter-widgets .pruning-figure").first
    before = picture.get_attribute("src"), slider.locator(".widget-readout").inner_text()
    notebook.screenshot("panel")
    slider.locator(".noUi-handle").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    end = time.monotonic() + 60
    while slider.locator(".widget-readout").inner_text() == before[1] or picture.get_attribute("src") == before[0]:
        assert time.monotonic() < end, f"{notebook.name}: knob or figure stay when the knob is turned"
        page.wait_for_timeout(250)
    assert page.locator(".jupyter-widgets figcaption").first.inner_text().strip()
    notebook.screenshot("panel-moved")
    assert notebook.foreign == []
