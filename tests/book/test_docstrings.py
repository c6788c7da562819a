"""Docstrings as the reference shows them: the fields of a named tuple stand in a list, once."""

from typing import NamedTuple

import docstrings


class Pair(NamedTuple):
    """Two of them."""

    left: dict[str, int]
    right: str = "none"


def test_the_fields_of_a_named_tuple_are_listed_with_type_and_default():
    lines = ["Two of them."]
    docstrings._process(None, "class", "Pair", Pair, None, lines)
    assert lines == [
        "Two of them.",
        "",
        "",
        ":ivar left: ``dict[str, int]``",
        ":ivar right: ``str``, default ``'none'``",
        "",
    ]


def test_the_aliases_of_fields_are_left_out_and_methods_are_not():
    assert docstrings._skip(None, "attribute", "left", Pair.left, False, None) is True
    assert docstrings._skip(None, "method", "to_rst", docstrings.to_rst, False, None) is not False


def test_other_classes_have_no_such_list():
    lines = ["Text."]
    docstrings._process(None, "class", "dict", dict, None, lines)
    assert lines == ["Text.", ""]
