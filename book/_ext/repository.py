"""Where the project lives on GitHub: the one place from which addresses of buttons, links, badges and installs are made.

``repository.url`` in ``book/_config.yml`` names it; where that is empty, the remote ``origin`` of this checkout does, so
that a fork speaks of itself. Where neither is on GitHub the place is unknown, and no page shows an address.
"""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = "It is not known where this repository lives: name it in book/_config.yml, or add a remote on GitHub."
COLAB = "colab"
"""The branch of notebooks with a first cell that installs the package; the workflow `book` writes it (colab.py)."""


class Repository(NamedTuple):
    """A repository on GitHub, and the branch that the book is built from."""

    owner: str
    name: str
    branch: str = "main"

    @property
    def url(self) -> str:
        """The front page of the repository."""
        return f"https://github.com/{self.owner}/{self.name}"

    @property
    def site(self) -> str:
        """Where GitHub Pages serves its site, with a slash at the end."""
        host = f"{self.owner.lower()}.github.io"
        return f"https://{host}/" if self.name.lower() == host else f"https://{host}/{self.name}/"

    @property
    def requirement(self) -> str:
        """What pip installs the package from: an archive of the branch, so that no git is needed."""
        return f"pruning-core @ {self.url}/archive/refs/heads/{self.branch}.zip"

    @property
    def badges(self) -> str:
        """A line of Markdown for the README: how the workflows went, and the first notebook in Colab and Binder."""
        first = "notebooks/0_foundations/1_sparsity.ipynb"
        actions = [(name, f"{self.url}/actions/workflows/{name}.yml") for name in ("tests", "book", "wheel")]
        out = [f"[![{name}]({address}/badge.svg)]({address})" for name, address in actions]
        colab = f"https://colab.research.google.com/github/{self.owner}/{self.name}/blob/{COLAB}/{first}"
        binder = f"https://mybinder.org/v2/gh/{self.owner}/{self.name}/{self.branch}?urlpath=lab/tree/{first}"
        out += [f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"]
        out += [f"[![Binder](https://mybinder.org/badge_logo.svg)]({binder})"]
        return " ".join(out)


def read(address: str, branch: str = "main") -> Repository | None:
    """The repository of an address as people and `git remote` write it; None where it is not on GitHub.

    >>> read("git@github.com:someone/pruning-book.git")
    Repository(owner='someone', name='pruning-book', branch='main')
    >>> read("https://example.org/someone/pruning-book") is None
    True
    """
    if short := re.fullmatch(r"(?:[\w.-]+@)?github\.com:([\w.-]+)/([\w.-]+?)(?:\.git)?/?", address.strip()):
        return Repository(short[1], short[2], branch)
    parts = urlsplit(address.strip())
    path = re.fullmatch(r"/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", parts.path)
    known = parts.scheme in ("https", "http", "ssh", "git") and parts.hostname in ("github.com", "www.github.com")
    return Repository(path[1], path[2], branch) if known and path else None


def _given(root: Path) -> tuple[str, str]:
    """Address (which may be empty) and branch out of `book/_config.yml`."""
    given = yaml.safe_load((root / "book" / "_config.yml").read_text(encoding="utf-8")).get("repository") or {}
    return given.get("url") or "", given.get("branch") or "main"


def setting(root: Path = ROOT) -> Repository | None:
    """What `book/_config.yml` names; SystemExit where it names something that is no repository on GitHub."""
    url, branch = _given(root)
    found = read(url, branch)
    if url and not found:
        raise SystemExit(f"repository.url in book/_config.yml is {url!r}, which is no address of a GitHub repository.")
    return found


def find(root: Path = ROOT) -> Repository | None:
    """The setting, else the remote `origin` of the checkout at ``root``; None where neither is on GitHub."""
    if found := setting(root):
        return found
    asked = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        remote = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except OSError:  # no git here
        return None
    return read(remote, _given(root)[1])


if __name__ == "__main__":
    if not (place := find()):
        raise SystemExit(UNKNOWN)
    print(place.badges)
