"""Tables of words for the pages: names of layers, messages and statements, which may hold what HTML takes for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning_core.checks import A, check, checked

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler


@checked(table=None)
def text_table(table: pd.DataFrame | pd.Series, *, index: bool = True) -> Styler:
    """A table of words as it is shown: aligned to the left, its cells, index and headings escaped (a styled table of pandas
    escapes nothing by itself), without the ``index`` where that only counts.

    >>> import pandas as pd
    >>> shown = text_table(pd.Series({"<b>": "got <class 'int'>"}, name="what you read")).to_html()
    >>> "&lt;b&gt;" in shown, "&lt;class &#39;int&#39;&gt;" in shown, "<b>" in shown
    (True, True, False)
    """
    import pandas as pd

    check("table", table, A((pd.DataFrame, pd.Series), "a DataFrame or a Series"))
    styled = (table.to_frame() if isinstance(table, pd.Series) else table).style.format(escape="html")
    looks: Any = [
        {"selector": "td, th", "props": "text-align: left; white-space: normal"}
    ]  # also where an index repeats
    styled = styled.format_index(escape="html", axis="columns").set_table_styles(looks)
    return styled.format_index(escape="html") if index else styled.hide(axis="index")
