"""The built site as a reader meets it. Run by `make site-check`, after `make book`."""

import json
import re
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
    """Light, dark and as wide as a phone: no errors, no request to another host, nothing sticks out."""
    page = visit.open(path)
    assert page.title()
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    keep = not path.startswith("api/")  # those pages all look the same
    name = path.removesuffix(".html").replace("/", "-")
    if keep:
        visit.screenshot(name)

    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.wait_for_function(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(n => n < 60)"
    )
    if keep:
        visit.screenshot(name + "-dark")

    page.set_viewport_size({"width": 390, "height": 840})
    page.wait_for_timeout(50)
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 1, f"{path} is {over} pixels wider than a phone"
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


def test_a_slider_moves_its_figure(visit: Any) -> None:
    with_slider = [p for p in PAGES if 'class="pruning-slider"' in (SITE / p).read_text(encoding="utf-8")]
    if not with_slider:
        pytest.skip("no page has a slider yet")
    for path in with_slider:
        page = visit.open(path)
        for box in page.locator(".pruning-slider").all():
            page.wait_for_function(
                "box => box.querySelector('.main-svg') && !box.querySelector('input').disabled",
                arg=box.element_handle(),
                timeout=15_000,
            )
            slider = box.locator("input")
            before = box.locator(".plot").inner_html(), box.locator("output").inner_text()
            slider.focus()
            slider.press("End" if slider.input_value() == slider.get_attribute("min") else "Home")
            page.wait_for_timeout(300)
            after = box.locator(".plot").inner_html(), box.locator("output").inner_text()
            assert after[0] != before[0], f"{path}: the figure stays when its slider moves"
            assert after[1] != before[1], f"{path}: the label stays when its slider moves"
        assert visit.errors == []
        assert visit.foreign == []


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
