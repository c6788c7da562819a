"""Sphinx extension: what a site needs to be published, made from the one place that names the repository (repository.py).

Launch buttons, edit links and the addresses in metadata are there only where the repository is known. Every page works
below any sub-path, since all its links are relative; the page for addresses that do not exist is served at all depths,
and therefore names its base.
"""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import yaml

import colab
import pruning_core as pc
from api_pages import PACKAGE
from plain import plain
from repository import COLAB, ROOT, Repository, find

CARD = "_static/social_card.png"
GENERATED = {"scoreboard": "book/claims.yml", "api/index": "pyproject.toml", "catalogue": "book/_ext/method_pages.py"}
"""Pages that code writes: what one edits to change them (pages of modules are their docstrings)."""


def _configure(app: Any, config: Any) -> None:
    """Fill in, or take out, what depends on the repository, before the theme reads it."""
    place = find(Path(app.srcdir).parent)
    options = config.html_theme_options
    config.pruning_repository = place
    moved = yaml.safe_load((Path(app.srcdir) / "redirects.yml").read_text(encoding="utf-8")) or {}
    config.redirects = {old: f"/{new}.html" for old, new in moved.items()}  # seen from the site's root
    if place is None:
        options.pop("launch_buttons", None)
        options.pop("repository_url", None)
    else:
        buttons = dict.fromkeys(("use_repository_button", "use_issues_button", "use_edit_page_button"), True)
        options.update(repository_url=place.url, repository_branch=place.branch, **buttons)
        config.html_baseurl = config.html_baseurl or place.site
    if config.html_baseurl:
        config.html_baseurl = config.html_baseurl.rstrip("/") + "/"
        config.ogp_site_url = config.html_baseurl
        config.ogp_image = CARD
        config.ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image">']


def source_of(page: str, suffix: str) -> str:
    """The file that one edits to change a page, seen from the root of the repository."""
    if page.startswith("notebooks/"):
        return page + suffix
    if page in GENERATED:
        return GENERATED[page]
    if page.startswith("catalogue/"):
        return f"{pc.METHODS[page.removeprefix('catalogue/')].__module__.replace('.', '/')}.py"
    if page.startswith("api/"):
        module = page.removeprefix("api/").replace(".", "/")
        package = (PACKAGE / module).is_dir()
        return f"pruning_core/{module}/__init__.py" if package else f"pruning_core/{module}.py"
    return f"book/{page}{suffix}"


def _edit_link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The theme takes its template from the page's context; ours names the file itself."""
    place: Repository | None = app.config.pruning_repository
    if place and (suffix := context.get("page_source_suffix")):
        # the theme insists on the word file_name in it, hence the comment
        address = f"{place.url}/edit/{place.branch}/{source_of(page, suffix)}{{# file_name #}}"
        context.update(edit_page_url_template=address, edit_page_provider_name="GitHub")


def _colab_button(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Colab opens the branch whose notebooks install the package; Binder builds the branch of the sources."""
    place: Repository | None = app.config.pruning_repository
    groups = context.get("header_buttons", [])
    for button in (button for group in groups for button in group.get("buttons", ())):
        if place and button.get("text") == "Colab":
            button["url"] = button["url"].replace(f"/blob/{place.branch}/", f"/blob/{COLAB}/")


def _not_found(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """404.html, which GitHub Pages serves for every address that does not exist."""
    body = (
        "<h1>There is no such page</h1><p>It may have moved. Start at the <a href='index.html'>front page</a>, or "
        "<a href='search.html'>search the book</a>.</p>"
    )
    base = html.escape(urlsplit(app.config.html_baseurl).path or "/", quote=True)
    head = f'<base href="{base}"><meta name="robots" content="noindex">'
    yield "404", {"title": "There is no such page", "body": body, "metatags": head}, "page.html"


def _finish(app: Any, exception: Exception | None) -> None:
    """The sitemap, where the address of the site is known, and downloads that read well and can install the package."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    if base := app.config.html_baseurl:
        pages = (urljoin(base, app.builder.get_target_uri(page)) for page in sorted(app.env.found_docs))
        rows = "".join(f"<url><loc>{html.escape(page)}</loc></url>\n" for page in pages)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        sitemap = f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{space}">\n{rows}</urlset>\n'
        (out / "sitemap.xml").write_text(sitemap, encoding="utf-8")
    else:
        (out / "sitemap.xml").unlink(missing_ok=True)
    place: Repository | None = app.config.pruning_repository
    for file in sorted((out / "_sources" / "notebooks").rglob("*.ipynb")):
        source = ROOT / file.relative_to(out / "_sources")
        notebook = plain(json.loads(file.read_text(encoding="utf-8")), source, app.config.html_baseurl)
        if place:
            notebook = colab.with_install(notebook, place.requirement)
        file.write_text(colab.text(notebook), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx; the theme makes its buttons at priority 501."""
    app.add_config_value("pruning_repository", None, "html")
    app.connect("config-inited", _configure, priority=400)
    app.connect("html-page-context", _edit_link, priority=400)
    app.connect("html-page-context", _colab_button, priority=900)
    app.connect("html-collect-pages", _not_found)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
