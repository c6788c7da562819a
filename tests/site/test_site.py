"""The built site as a reader meets it. Run by `make site-check`, after `make book`."""

import json
import re
import time
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import repository

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = REPOSITORY / "book" / "_build" / "html"
NOTEBOOKS = sorted(
    f"notebooks/{file.parent.name}/{file.stem}.html" for file in (REPOSITORY / "notebooks").glob("[0-9]*/[0-9]*.ipynb")
)
MOVED = yaml.safe_load((REPOSITORY / "book" / "redirects.yml").read_text(encoding="utf-8"))
PLACE = repository.find()
SETTINGS = yaml.safe_load((REPOSITORY / "book" / "_config.yml").read_text(encoding="utf-8"))
BASE = SETTINGS["html"]["baseurl"] or (PLACE.site if PLACE else "")
PAGES = sorted(
    str(file.relative_to(SITE))
    for file in SITE.rglob("*.html")
    if not {"_static", "_sources", "_downloads", "_modules"} & set(file.relative_to(SITE).parts)
)
PAGES = [page for page in PAGES if page != "404.html" and page.removesuffix(".html") not in MOVED]  # see the end

TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WITHOUT_CAPTION = """[...document.querySelectorAll(".bd-article :is(figure, img.pruning-figure, .pruning-slider)")]
    .filter(it => !it.closest("figure")?.querySelector("figcaption")?.textContent.trim())
    .map(it => it.outerHTML.slice(0, 300))"""

pytestmark = pytest.mark.site


class _Page(HTMLParser):
    """Links, pictures and identifiers of a page's source."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if identifier := values.get("id"):
            self.ids.add(identifier)
        if tag == "a" and (href := values.get("href")):
            self.links.append(href)
        if tag == "img":
            self.pictures.append(values)
        source = values.get("href" if tag == "link" else "src")
        if source and tag in ("link", "script", "img", "iframe"):
            self.loaded.append(source)


@cache
def parsed(path: Path) -> _Page:
    """A page, read once: the index alone links to every other one a hundred times."""
    return _Page(path)


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_every_notebook_has_a_page_with_its_outputs(path: str) -> None:
    assert (SITE / path).is_file()
    text = (SITE / path).read_text(encoding="utf-8")
    assert "cell_output" in text
    assert "page-stamp" in text
    assert "Traceback (most recent call last)" not in text


@pytest.mark.parametrize("path", PAGES)
def test_links_inside_the_site_lead_somewhere(path: str) -> None:
    here = SITE / path
    for link in parsed(here).links:
        parts = urlsplit(link)
        if parts.scheme or link == "#":
            continue
        target = (here.parent / unquote(parts.path)).resolve() if parts.path else here
        assert target.exists(), f"{path} links to {link}"
        if parts.fragment and target.suffix == ".html":
            assert unquote(parts.fragment) in parsed(target).ids, f"{path} links to {link}"


@pytest.mark.parametrize("path", PAGES)
def test_pictures_have_an_alternative_text(path: str) -> None:
    for picture in parsed(SITE / path).pictures:
        alt = picture.get("alt") or ""
        name = Path((picture.get("src") or "").split(",")[0]).name
        # Sphinx puts the file's name where the author gave no text
        assert alt.strip(), f"{path}: {picture.get('src')}"
        assert not alt.endswith((".png", ".svg", name)), f"{path}: {alt}"


@pytest.mark.parametrize("path", PAGES)
def test_page_opens(visit: Any, path: str) -> None:
    """Light, dark and as wide as a phone: no errors, no barriers, no request to another host, nothing sticks out.

    One visit for all, since loading the pages is what takes the time.
    """
    page = visit.open(path)
    assert page.title()
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    keep = not path.startswith("api/")  # those pages all look the same
    name = path.removesuffix(".html").replace("/", "-")
    if keep:
        visit.screenshot(name)
    assert page.evaluate(WITHOUT_CAPTION) == []
    assert visit.barriers() == []
    assert page.evaluate(TOO_WIDE) <= 1, f"{path} is wider than a window of 1400 pixels"

    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.wait_for_function(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(n => n < 60)"
    )
    if keep:
        visit.screenshot(name + "-dark")
    assert visit.barriers("color-contrast", "link-in-text-block") == [], "in the dark"

    page.set_viewport_size({"width": 390, "height": 840})
    page.wait_for_timeout(50)
    for _ in range(40):  # plotly draws its figures anew a moment later
        if page.evaluate(TOO_WIDE) <= 1:
            break
        page.wait_for_timeout(100)
    assert page.evaluate(TOO_WIDE) <= 1, f"{path} is wider than a phone"
    assert visit.foreign == []
    assert visit.errors == []


def test_search_finds_a_word(visit: Any) -> None:
    page = visit.open("search.html?q=sparsity")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("/notebooks/" in link for link in found), found
    assert visit.errors == []
    visit.screenshot("search-sparsity")


def test_dark_mode_can_be_switched(visit: Any) -> None:
    page = visit.open("index.html")
    seen = set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        page.wait_for_timeout(100)
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


def test_maths_is_rendered(visit: Any) -> None:
    with_maths = [path for path in PAGES if 'class="math' in (SITE / path).read_text(encoding="utf-8")]
    assert set(with_maths) & set(NOTEBOOKS), "no notebook page holds a formula"
    for path in with_maths:
        page = visit.open(path)
        page.wait_for_selector(
            "mjx-container", state="attached", timeout=10_000
        )  # the first may be in a folded solution
        left = page.evaluate(
            "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"
        )
        assert left == 0, f"{path}: {left} formulas are shown as source"
        assert page.locator("mjx-merror").count() == 0, path


SLIDERS = ".pruning-slider, .pruning-frames"


def test_a_slider_moves_its_figure(visit: Any) -> None:
    """Every slider, by key and by mouse; figures that were drawn beforehand and those that plotly draws."""
    with_slider = [
        p for p in PAGES if re.search('class="pruning-(slider|frames)"', (SITE / p).read_text(encoding="utf-8"))
    ]
    assert set(with_slider) & set(NOTEBOOKS), "no notebook page has a slider"
    for path in with_slider:
        page = visit.open(path)
        for box in page.locator(SLIDERS).all():
            _open_folds(box)
            page.wait_for_function(
                "box => box.querySelector('.main-svg, img') && !box.querySelector('input').disabled",
                arg=box.element_handle(),
                timeout=15_000,
            )
            slider = box.locator("input")
            at_start = slider.input_value() == slider.get_attribute("min")
            before = _seen(box)
            slider.focus()
            slider.press("End" if at_start else "Home")
            before = _moved(box, before, f"{path}, moved by key")
            slider.scroll_into_view_if_needed()
            place = slider.bounding_box()
            page.mouse.click(
                place["x"] + place["width"] * (0.02 if at_start else 0.98), place["y"] + place["height"] / 2
            )
            _moved(box, before, f"{path}, moved by mouse")
        assert visit.errors == []
        assert visit.foreign == []


def _open_folds(box: Any) -> None:
    """Open whatever folds the figure away."""
    box.evaluate("box => { for (let e = box; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true }")


def _moved(box: Any, before: tuple[str, str], what: str) -> tuple[str, str]:
    """What a figure shows once both it and its label have changed."""
    end, after = time.monotonic() + 10, _seen(box)
    while after[0] == before[0] or after[1] == before[1]:
        assert time.monotonic() < end, f"{what}: the figure or the label stays: {after[1]!r} after {before[1]!r}"
        box.page.wait_for_timeout(50)
        after = _seen(box)
    return after


def _seen(box: Any) -> tuple[str, str]:
    """What a figure shows, and the label beside its slider."""
    if box.locator(".plot").count():
        return box.locator(".plot").inner_html(), box.locator("output").inner_text()
    shown = box.locator("img:not([hidden])")
    assert shown.count() == 1
    return shown.get_attribute("src"), box.locator("output").inner_text()


# --- what the cells of a notebook print

EXECUTED = [(path, REPOSITORY / "book" / path.replace(".html", ".ipynb")) for path in NOTEBOOKS]
OF_A_MACHINE = re.compile(r"(?<![\w.])/(home|root|tmp|usr|var|Users|opt|private)/|[A-Z]:\\\\|site-packages")


def _printed(executed: Path) -> list[tuple[int, str, str]]:
    """Number of the cell, kind of output and text of everything that a reader sees as text."""
    found = []
    for number, cell in enumerate(json.loads(executed.read_text(encoding="utf-8"))["cells"], 1):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            kind = output.get("name") or next(
                (k for k in ("text/html", "text/markdown", "text/plain") if k in data), ""
            )
            text = "".join(output.get("text") or data.get(kind) or "")
            found.append((number, kind, re.sub(r"(?s)<(script|style).*?</\1>|data:image/[^\"]*", "", text)))
    return found


@pytest.mark.parametrize(("path", "executed"), EXECUTED, ids=NOTEBOOKS)
def test_outputs_are_lines_that_fit_and_hold_no_warning_and_no_path_of_a_machine(path: str, executed: Path) -> None:
    for number, kind, text in _printed(executed):
        where = f"cell {number} of {path}"
        assert kind != "stderr", f"{where} complains: {text[:200]}"
        assert not re.search(r"\b\w*Warning\b", text), f"{where} prints a warning: {text[:300]}"
        assert not (found := OF_A_MACHINE.search(text)), f"{where} names a place of this machine: {found[0]}"
        if kind in ("stdout", "text/plain"):
            longest = max((len(line) for line in text.splitlines()), default=0)
            assert longest <= 120, f"{where} prints a line of {longest} characters"


def test_widgets_are_alive(visit: Any) -> None:
    key = "application/vnd.jupyter.widget-view+json"
    with_widgets = [path for path in PAGES if key in (SITE / path).read_text(encoding="utf-8")]
    if not with_widgets:
        pytest.skip("no page has a widget yet")
    for path in with_widgets:
        page = visit.open(path)
        page.wait_for_selector(".jupyter-widgets", timeout=15_000)
        assert visit.errors == []
        assert visit.foreign == []


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_page_offers_download_and_launch(path: str) -> None:
    links = parsed(SITE / path).links
    source = path.removesuffix(".html") + ".ipynb"
    for button in ("colab.research.google.com", "mybinder.org"):
        there = any(button in link and link.endswith(source) for link in links)
        assert there == bool(PLACE), f"a button for {button} belongs where the repository is known, and nowhere else"
    downloads = [SITE / path, *(p for p in (SITE / "_sources").rglob("*.ipynb") if str(p).endswith(source))]
    assert len(downloads) == 2
    text = downloads[1].read_text(encoding="utf-8")
    assert str(REPOSITORY) not in text, "the download names a folder of the machine that built it"
    assert any(cell.get("outputs") for cell in json.loads(text)["cells"])


# --- what a site needs beside its pages


def test_pages_that_moved_send_their_readers_on(visit: Any) -> None:
    old, new = next(iter(MOVED.items()))
    page = visit.open(f"{old}.html#part")
    page.wait_for_url(f"**/{new}.html#part")
    assert visit.errors == []
    for old, new in MOVED.items():
        (target,) = re.findall('<a href="([^"]+)"', (SITE / f"{old}.html").read_text(encoding="utf-8"))
        assert ((SITE / old).parent / target).resolve() == SITE / f"{new}.html"


@pytest.mark.parametrize("path", ["nothing.html", "notebooks/4_snip/nothing/at/all"])
def test_an_address_that_does_not_exist_leads_back(visit: Any, path: str) -> None:
    text = (SITE / "404.html").read_text(encoding="utf-8")
    (base,) = re.findall('<base href="([^"]+)">', text)
    assert base == (urlsplit(BASE).path or "/")
    # served below another path than the one it was built for, the page is given the one that it is served below
    root = urlsplit(visit.address).path + "/"
    served = text.replace(f'<base href="{base}">', f'<base href="{root}">')
    visit.page.route("**/" + path, lambda route: route.fulfill(status=404, body=served, content_type="text/html"))
    page = visit.open(path)
    visit.screenshot("404")
    assert page.locator("article h1").inner_text() == "There is no such page"
    missing = [error for error in visit.errors if not error.startswith("Failed to load resource")]
    assert missing == [f"404: {visit.address}/{path}"], "the page itself, and nothing that it asks for"
    page.get_by_role("link", name="front page").click()
    page.wait_for_url("**/index.html")
    assert page.url == f"{visit.address}/index.html"


def test_sitemap_and_card_are_there_where_the_address_is_known() -> None:
    assert (SITE / "sitemap.xml").is_file() == bool(BASE)
    assert (SITE / "_static" / "social_card.png").is_file()
    assert 'og:site_name" content="The pruning book"' in (SITE / "index.html").read_text(encoding="utf-8")
    named = re.findall('og:image" content="([^"]+)"', (SITE / "index.html").read_text(encoding="utf-8"))
    assert named == ([BASE + "_static/social_card.png"] if BASE else [])
    if BASE:
        listed = re.findall("<loc>(.+?)</loc>", (SITE / "sitemap.xml").read_text(encoding="utf-8"))
        inside = {address.removeprefix(BASE) for address in listed}
        assert all((SITE / unquote(page)).is_file() for page in inside)
        assert set(NOTEBOOKS) <= inside
