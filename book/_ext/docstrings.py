"""Sphinx extension: docstrings are plain text with formulas, so make them safe reStructuredText before they are read.

In reStructuredText `|w * g|` is a broken substitution and an indented formula without `::` an error. A docstring here
keeps code in backticks, roles such as :func:`...`, bullet lists and doctests; indented blocks become literal blocks, and
in everything else the special characters lose their meaning.
"""

import inspect
import pkgutil
import re
from typing import Any

from sphinx.util.typing import stringify_annotation

# ``code``, `code` and :role:`target`
SPANS = re.compile(r"(:[a-z]+(?::[a-z]+)*:`[^`]+`|``[^`]+(?:`[^`]+)*``|`[^`]+`)")
SPECIAL = re.compile(r"([\\*|_`])")
BULLET = re.compile(r"^([-*+]|\d+\.|\(\d+\)) +")


def _inline(text: str) -> str:
    """One line or paragraph: code spans kept (single backticks doubled), special characters escaped elsewhere."""
    parts = SPANS.split(text)
    for k, part in enumerate(parts):
        if k % 2 == 0:
            parts[k] = SPECIAL.sub(r"\\\1", part)
        elif part.startswith("`") and not part.startswith("``"):
            parts[k] = f"``{part[1:-1]}``"
    return "".join(parts)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list[str]) -> list[str]:
    """One block between blank lines."""
    margin = min(map(_indent, lines))
    if lines[0].lstrip().startswith(">>>"):
        return [line[margin:] for line in lines]
    if margin:  # set apart: a formula, code or a table
        return ["::", "", *("    " + line[margin:] for line in lines)]
    out: list[str] = []
    for line in lines:
        bullet = BULLET.match(line)
        if bullet:
            if out:
                out.append("")
            out.append("- " + line[bullet.end() :])
        elif _indent(line) and out:
            out[-1] += " " + line.strip()  # a continued bullet or definition
        elif out and out[-1].startswith("- "):
            out += ["", line]
        elif out and out[-1]:
            out[-1] += " " + line.strip()
        else:
            out.append(line.strip())
    return ["- " + _inline(line[2:]) if line.startswith("- ") else _inline(line) for line in out]


def to_rst(lines: list[str]) -> list[str]:
    """A whole docstring, as lines."""
    out: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            out += [*_block(block), ""]
            block = []
    return out


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)
    if is_named_tuple(obj):
        lines += fields_of(obj)


def is_named_tuple(obj: Any) -> bool:
    """Whether it is a class of named tuples, of which Sphinx says "Alias for field number" for each field."""
    return isinstance(obj, type) and issubclass(obj, tuple) and hasattr(obj, "_fields")


def fields_of(kind: Any) -> list[str]:
    """The fields of a named tuple with type and default, as a field list."""
    types = inspect.get_annotations(kind)
    out = [""]
    for name in kind._fields:
        out.append(f":ivar {name}: ``{stringify_annotation(types.get(name, Any), 'smart').replace('~', '')}``")
        if name in kind._field_defaults:
            out[-1] += f", default ``{kind._field_defaults[name]!r}``"
    return [*out, ""]


def _signature(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Defaults that are no Python (`<factory>` of dataclasses) keep Sphinx from reading the whole signature."""
    return re.sub(r"<[^<>]*>", "...", signature or "") or None, returns


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a library put into a class of ours (matplotlib writes a `set` into every subclass)."""
    if str(getattr(obj, "__doc__", "")).startswith("Alias for field number"):
        return True  # they stand in the list of fields
    home = getattr(obj, "__module__", None) or ""
    return True if home and not home.startswith("pruning_core") and callable(obj) else None


def _canonical(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve a public name (`pruning_core.prune`) to the module that defines and documents it."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("pruning_core."):
        return None
    try:
        found = pkgutil.resolve_name(target)
        defined = f"{found.__module__}.{found.__qualname__}"
    except (ImportError, AttributeError, ValueError):
        return None
    if defined == target:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", defined, node, content)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _canonical)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
