"""The site as it is published: addresses come from the one place that names the repository, and from nowhere else."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml

import api_pages
import colab
import publishing
import repository
from pruning_core.version import REPOSITORY

BOOK = REPOSITORY / "book"

CONF = """
import sys
sys.path.insert(0, {ext!r})
project, language = "A book", "en"
extensions = ["myst_nb", "sphinx_reredirects", "sphinxext.opengraph", "publishing"]
html_theme, nb_execution_mode = "sphinx_book_theme", "off"
html_theme_options = {{"path_to_docs": "", "repository_url": "", "launch_buttons": {{
    "notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com"}}}}
ogp_social_cards = {{"enable": False}}
redirect_html_template_file = {moved!r}
"""


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/some-one/the.book",
        "https://github.com/some-one/the.book.git",
        "https://user:secret@github.com/some-one/the.book.git/",
        "git@github.com:some-one/the.book.git\n",
        "ssh://git@github.com:22/some-one/the.book",
    ],
)
def test_an_address_is_read_as_people_and_git_write_it(address):
    assert repository.read(address) == ("some-one", "the.book", "main")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/work/book",
        "file:///tmp/book",
        "https://gitlab.com/one/book",
        "https://github.com/one",
        "https://github.com/one/book/tree/main",
        "https://github.com.example.org/one/book",
        "git@example.org:github.com/one/book",
        'https://github.com/"><script>/book',
    ],
)
def test_what_is_not_on_github_is_unknown(address):
    assert repository.read(address) is None


def test_the_site_of_a_project_lies_below_its_name_and_that_of_a_user_does_not():
    assert repository.Repository("Ada", "Book").site == "https://ada.github.io/Book/"
    assert repository.Repository("Ada", "ada.github.io").site == "https://ada.github.io/"


def checkout(root: Path, url: str = "", remote: str = "") -> Path:
    """A folder that is a checkout as far as its place is concerned."""
    (root / "book").mkdir(parents=True)
    (root / "book" / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": url, "branch": "main"}}))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(root), "remote", "add", "origin", remote], check=True)
    return root


def test_the_setting_comes_before_the_remote(tmp_path):
    setting, remote = "https://github.com/set/book", "git@github.com:remote/book.git"
    assert repository.find(checkout(tmp_path / "both", setting, remote)).owner == "set"
    assert repository.find(checkout(tmp_path / "one", "", remote)).owner == "remote"
    assert repository.find(checkout(tmp_path / "none")) is None
    assert repository.find(checkout(tmp_path / "elsewhere", "", "https://example.org/a/b.git")) is None
    with pytest.raises(SystemExit, match=r"repository\.url in book/_config\.yml is 'nowhere'"):
        repository.find(checkout(tmp_path / "wrong", "nowhere"))


def test_no_other_file_names_a_repository_of_the_book():
    """Neither text nor settings: whoever forks the book changes one line, or none."""
    known = repository.setting()
    listed = subprocess.run(["git", "grep", "-lE", r"github\.com/[^/ ]+/pruning-(book|core)"], cwd=REPOSITORY, text=True,
                            capture_output=True)  # fmt: skip
    if listed.returncode > 1:
        pytest.skip("not a git checkout")
    named = set(listed.stdout.split()) - {"tests/book/test_publishing.py", "book/_ext/repository.py"}
    assert named <= ({"book/_config.yml", "README.md"} if known else set())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert ("badge.svg" in readme) == bool(known)
    assert not known or known.badges in readme


def built(root: Path) -> Path:
    """A small site of the checkout at ``root``: a front page, a notebook, a page that moved."""
    book = root / "book"
    where = {"ext": str(BOOK / "_ext"), "moved": str(BOOK / "_ext" / "moved.html")}
    (book / "conf.py").write_text(CONF.format(**where), encoding="utf-8")
    (book / "index.md").write_text(
        "# Front\n\nWhat it is about: everything.\n\n```{toctree}\nnotebooks/0 a/1_été\n```\n"
    )
    (book / "redirects.yml").write_text("old/page: index\n")
    source = book / "notebooks" / "0 a" / "1_été.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Été")]), source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-b", "html", str(book), str(root / "site")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "site"


def addresses(page: Path) -> list[str]:
    return [unquote(link) for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The site of a checkout that GitHub knows, in a folder whose name is not plain."""
    return built(checkout(tmp_path_factory.mktemp("with space, größe"), "", "git@github.com:Ada/pruning-book.git"))


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """The site of a checkout that nobody can reach."""
    return built(checkout(tmp_path_factory.mktemp("private")))


def test_buttons_lead_to_the_repository(published):
    links = addresses(published / "notebooks" / "0 a" / "1_été.html")
    page = "notebooks/0 a/1_été.ipynb"
    assert f"https://colab.research.google.com/github/Ada/pruning-book/blob/colab/{page}" in links
    assert f"https://mybinder.org/v2/gh/Ada/pruning-book/main?urlpath=lab/tree/{page}" in links
    assert f"https://github.com/Ada/pruning-book/edit/main/{page}" in links
    assert "https://github.com/Ada/pruning-book/edit/main/book/index.md" in addresses(published / "index.html")


def test_without_a_repository_there_are_no_buttons_and_no_addresses(private):
    for page in private.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"colab\.research|mybinder|github\.com|og:image|canonical.{0,20}http", text), page
    assert not (private / "sitemap.xml").exists()
    (download,) = (private / "_sources").rglob("*.ipynb")
    assert colab.TAG not in download.read_text(encoding="utf-8")


def test_metadata_name_the_published_site(published):
    base = "https://ada.github.io/pruning-book/"
    text = (published / "index.html").read_text(encoding="utf-8")
    assert f'property="og:url" content="{base}index.html"' in text
    assert f'property="og:image" content="{base}_static/social_card.png"' in text
    assert f'<link rel="canonical" href="{base}index.html"' in text
    assert re.search('og:description" content="What it is about', text)
    listed = re.findall("<loc>(.+?)</loc>", (published / "sitemap.xml").read_text(encoding="utf-8"))
    assert listed == [base + "index.html", base + "notebooks/0%20a/1_%C3%A9t%C3%A9.html"]


def test_the_page_for_what_is_not_there_works_at_every_depth(published, private):
    for site, base in ((published, "/pruning-book/"), (private, "/")):
        text = (site / "404.html").read_text(encoding="utf-8")
        assert f'<base href="{base}">' in text
        assert text.index("<base") < min(text.index("<link"), text.index("src="))
        inside = [link for link in addresses(site / "404.html") if "://" not in link]
        assert "index.html" in inside
        assert not [link for link in inside if link.startswith("..")]


def test_a_page_that_moved_sends_its_readers_on(published):
    text = (published / "old" / "page.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in text
    assert "<title>" in text


def test_a_download_installs_the_package_first_and_the_page_does_not_show_it(published):
    (download,) = (published / "_sources").rglob("*.ipynb")
    first, *others = nbformat.read(download, as_version=4).cells
    assert "https://github.com/Ada/pruning-book/archive/refs/heads/main.zip" in first.source
    assert "remove-cell" in first.metadata.tags
    assert [cell.source for cell in others] == ["# Été"]
    assert "pip install" not in (published / "notebooks" / "0 a" / "1_été.html").read_text(encoding="utf-8")


def test_the_install_cell_is_put_in_once(tmp_path):
    place = repository.Repository("ada", "book")
    written = colab.write(tmp_path, place.requirement)
    assert len(written) == len(list(REPOSITORY.glob("notebooks/[0-9]*/[0-9]*.ipynb")))
    for file in written:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        nbformat.validate(notebook)
        assert colab.with_install(notebook, place.requirement) == notebook


@pytest.mark.parametrize(
    ("page", "suffix", "source"),
    [
        ("index", ".md", "book/index.md"),
        ("notebooks/0_foundations/1_sparsity", ".ipynb", "notebooks/0_foundations/1_sparsity.ipynb"),
        ("scoreboard", ".md", "book/claims.yml"),
        ("api/index", ".md", "pyproject.toml"),
    ],
)
def test_the_edit_link_leads_to_what_one_edits(page, suffix, source):
    assert publishing.source_of(page, suffix) == source
    assert (REPOSITORY / source).is_file()


def test_every_reference_page_is_edited_in_its_module():
    for page in (page for page in pages_now() if page.startswith("api/")):
        assert (REPOSITORY / publishing.source_of(page, ".md")).is_file(), page


# --- pages that moved

MOVED = yaml.safe_load((BOOK / "redirects.yml").read_text(encoding="utf-8"))


@cache
def pages_now() -> frozenset[str]:
    """Every page that the table of contents can name."""
    notebooks = {str(n.relative_to(REPOSITORY).with_suffix("")) for n in REPOSITORY.glob("notebooks/*/*.ipynb")}
    prose = {file.stem for file in BOOK.glob("*.md")} | {"scoreboard"}
    return frozenset(notebooks | prose | {f"api/{name}" for name in api_pages.pages()})


def page_of(file: str) -> str:
    """The page that shows a notebook, a text or a module."""
    stem = file.rpartition(".")[0].removesuffix("/__init__")
    top, *inside = stem.split("/")
    if top != "pruning_core":
        return stem.removeprefix("book/")
    return "/".join(["api", *inside[:1], *filter(None, [".".join(inside[1:])])])


def renamed() -> dict[str, str]:
    """Old page -> the page of today, of all renames that git's history holds and whose last name still exists."""
    paths = ["notebooks/*.ipynb", "book/*.md", "pruning_core/*.py"]
    command = ["git", "log", "--reverse", "-M80%", "--diff-filter=R", "--name-status", "--format=", "--", *paths]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, str] = {}
    for _, old, new in (line.split("\t") for line in lines if line):
        found = {page: page_of(new) if at == page_of(old) else at for page, at in found.items()}
        found[page_of(old)] = page_of(new)
    return {old: new for old, new in found.items() if new in pages_now() and old not in pages_now()}


def test_every_page_that_was_renamed_sends_its_readers_on():
    missing = {old: new for old, new in renamed().items() if old not in MOVED}
    assert missing == {}, "add these to book/redirects.yml"


def test_redirects_lead_from_pages_that_are_gone_to_pages_that_are_there():
    assert pages_now() >= set(MOVED.values())
    assert not set(MOVED) & pages_now(), "a redirect would overwrite the page"
