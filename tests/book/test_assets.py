"""The JavaScript of the site: fetched once, checked, and missed within seconds where there is no network."""

import base64
import hashlib
import http.server
import json
import shutil
import socket
import threading
import time

import pytest

import assets

ARCHIVES = {package: sha512 for package, (sha512, _) in assets.PACKAGES.items()}

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed on this machine")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """npm has nothing in its cache, and the registry is where the test says; returns the function that says it."""
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setattr(assets, "SECONDS", 2)
    return lambda port: monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{port}/")


def listening() -> socket.socket:
    """A registry that takes the question and never answers: a network behind a wall."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    return server


@needs_npm
def test_without_a_network_one_sentence_says_what_is_missing(alone, tmp_path):
    with socket.socket() as closed:  # bound, and nobody listens: the connection is refused
        closed.bind(("127.0.0.1", 0))
        alone(closed.getsockname()[1])
        misses(tmp_path / "größe mit leer" / "lib", within=10)


@needs_npm
def test_a_registry_that_never_answers_is_given_up(alone, tmp_path):
    with listening() as server:
        alone(server.getsockname()[1])
        misses(tmp_path / "site" / "lib", within=15)


def misses(library, within: float) -> None:
    began = time.monotonic()
    with pytest.raises(SystemExit) as error:
        assets.place(library)
    assert time.monotonic() - began < within
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert all(word in said for word in [*assets.PACKAGES, str(library), "make site", "network"])
    assert not library.exists(), "nothing half-placed stays behind"
    assert list(library.parent.iterdir()) == []


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry with one package, whose archive is what the test says."""

    archive = b""

    def do_GET(self):
        if self.path.endswith(".tgz"):
            return self.answer(self.archive, "application/octet-stream")
        base = f"http://127.0.0.1:{self.server.server_address[1]}"
        sums = {"integrity": "sha512-" + base64.b64encode(hashlib.sha512(self.archive).digest()).decode()}
        version = {"name": "mathjax", "version": "3.2.2", "dist": {"tarball": f"{base}/mathjax.tgz", **sums}}
        about = {"name": "mathjax", "dist-tags": {"latest": "3.2.2"}, "versions": {"3.2.2": version}}
        return self.answer(json.dumps(about).encode(), "application/json")

    def answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@needs_npm
def test_an_archive_that_is_another_than_it_was_is_refused(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(Registry, "archive", b"not what was published")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    alone(server.server_address[1])
    with pytest.raises(SystemExit, match=r"mathjax@3\.2\.2 is not what it should be: its SHA-512 is"):
        assets.fetch({"mathjax@3.2.2": ARCHIVES["mathjax@3.2.2"]}, tmp_path / "work")
    server.shutdown()


def test_what_is_in_place_is_not_fetched_again(tmp_path, monkeypatch):
    library = tmp_path / "lib"
    library.mkdir()
    shutil.copyfile(assets._plotly(), library / "plotly.min.js")
    listing = {"packages": assets._wanted(), "files": assets._sums(library)}
    (library / "checksums.json").write_text(json.dumps(listing))
    monkeypatch.setattr(assets, "fetch", None)
    assets.place(library)
    (library / "plotly.min.js").write_text("altered")
    assert not assets.in_place(library)
