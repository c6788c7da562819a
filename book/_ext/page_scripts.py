"""Sphinx extension: each page loads each script once, and nothing that reaches for another host."""

from typing import Any

# Read by require.js when it starts: what it loads for the widgets lies here, not beside the page.
REQUIRE = 'var require = {baseUrl: (document.documentElement.dataset.content_root || "./") + "_static/lib"};'


def _clean(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    kept, seen = [], set()
    scripts = context.get("script_files", [])
    with_require = any("require.js" in str(getattr(script, "filename", None)) for script in scripts)
    for script in scripts:
        body = getattr(script, "attributes", {}).get("body", "")
        name = str(getattr(script, "filename", None) or script)
        # jupyter-book always brings Thebe (live code on a server elsewhere), which this book does not use, and some
        # extensions register their scripts twice: a second `const` of one name is an error in the browser.
        if "thebe" in name or "THEBE" in body or (name, body) in seen:
            continue
        if body == REQUIRE and not with_require:
            continue
        seen.add((name, body))
        kept.append(script)
    context["script_files"] = kept


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx, after the extensions that add scripts to a page."""
    app.add_js_file(None, body=REQUIRE, priority=300)
    app.connect("html-page-context", _clean, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
