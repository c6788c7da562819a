"""Sphinx extension: each page loads each script once, and nothing that reaches for another host."""

from typing import Any


def _clean(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    kept, seen = [], set()
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body", "")
        name = str(getattr(script, "filename", None) or script)
        # jupyter-book always brings Thebe (live code on a server elsewhere), which this book does not use, and some
        # extensions register their scripts twice: a second `const` of one name is an error in the browser.
        if "thebe" in name or "THEBE" in body or (name, body) in seen:
            continue
        seen.add((name, body))
        kept.append(script)
    context["script_files"] = kept


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx, after the extensions that add scripts to a page."""
    app.connect("html-page-context", _clean, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
