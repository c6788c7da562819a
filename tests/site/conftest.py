"""A headless Chromium on the built site, served from this machine, with every request and error written down."""

import functools
import http.server
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).resolve().parents[2] / "book" / "_build" / "html"
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts" / "site"
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


BELOW = "/pruning-book"
"""The site is served below a path, as GitHub Pages does: nothing above it belongs to the book."""


class _Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the site below BELOW, and its page 404.html for whatever does not exist there, at any depth."""

    def translate_path(self, path: str) -> str:
        inside = path.removeprefix(BELOW)
        known = path.startswith(BELOW + "/")
        return super().translate_path(inside) if known else str(SITE / "nothing lies above the site")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        if code != 404:
            return super().send_error(code, message, explain)
        page = (SITE / "404.html").read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the built site is served."""
    if not (SITE / "index.html").is_file():
        pytest.fail("there is no built site: run `make book` first")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}{BELOW}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: $CHROMIUM, or the first that is installed."""
    from playwright.sync_api import sync_playwright

    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("no Chromium here: `make site-check` installs Debian's, or set CHROMIUM=/path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield chromium
        chromium.close()


WORST = ("serious", "critical")
"""Impacts that axe gives to what keeps people out."""


@functools.cache
def axe() -> str:
    """The script of axe-core that finds what a page does to people who cannot see it well, or use no mouse."""
    package = importlib.util.find_spec("axe_playwright_python")
    assert package is not None and package.origin is not None, "axe is not installed: run .ci/install"
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


class Visit:
    """One open page and what went wrong on it."""

    def __init__(self, page: Any, address: str):
        self.page, self.address = page, address
        self.foreign: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._request)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda r: self.errors.append(f"failed: {r.url}"))
        page.on("response", lambda r: self.errors.append(f"{r.status}: {r.url}") if r.status >= 400 else None)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.foreign.append(request.url)

    def open(self, path: str) -> Any:
        """Load a page of the site and wait until its maths and its drawings are done."""
        self.page.goto(f"{self.address}/{path}")
        self.page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 0) : 0")
        if self.page.locator(".pruning-slider").count():
            self.page.wait_for_selector(".pruning-slider .main-svg", timeout=20_000)
        return self.page

    def barriers(self, *rules: str) -> list[str]:
        """What axe finds of serious or critical impact on the page as it is now, by all rules or only those named."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(axe())
        # preloaded style sheets ask for what they import, relative to the page
        options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
        if rules:
            options["runOnly"] = {"type": "rule", "values": rules}
        found = self.page.evaluate("options => axe.run(document, options)", options)["violations"]
        faults = [(fault["id"], node) for fault in found if fault["impact"] in WORST for node in fault["nodes"]]
        return [f"{name}: {node['html'][:300]} {node['failureSummary']}" for name, node in faults]

    def screenshot(self, name: str) -> None:
        """Keep the whole page as a picture for a person to look at."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        height = self.page.evaluate("document.documentElement.scrollHeight")
        before = self.page.viewport_size
        # full_page repeats fixed headers; a tall window shows the page as it is
        self.page.set_viewport_size({"width": before["width"], "height": min(max(height, 600), 12_000)})
        self.page.screenshot(path=str(ARTEFACTS / f"{name}.png"))
        self.page.set_viewport_size(before)


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    """A fresh window on the site."""
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    yield Visit(context.new_page(), address)
    context.close()
