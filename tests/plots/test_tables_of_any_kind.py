"""Tables that a user gives to figures and sentences: what pandas keeps as numbers is numbers, anything else is one sentence."""

import numpy as np
import pandas as pd
import pytest

from pruning_core import plots
from pruning_core.book import sentences
from pruning_core.book.sweeps import costs
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds, paired_difference
from pruning_core.plots.catalogue import kept_by

SHARES = [0.5, 0.9]
ROWS = pd.DataFrame([
    {"method": name, "seed": seed, "sparsity": gone, "asked": gone, "accuracy": 90.0 - 9 * gone + seed}
    for name in ("snip", "random") for seed in range(3) for gone in SHARES
])  # fmt: skip
USES = {
    "chart": lambda rows: plots.chart(rows, "sparsity", "accuracy"),
    "logarithmic": lambda rows: plots.chart(rows, "sparsity", "accuracy", log="y"),
    "panels": lambda rows: plots.chart(rows, "sparsity", "accuracy", panels="method", by="seed"),
    "median": lambda rows: plots.chart(rows, "sparsity", "accuracy", middle="median", band=50.0),
    "against sparsity": plots.accuracy_against_sparsity,
    "bars": lambda rows: plots.bars(rows, "method", "accuracy"),
    "evidence": lambda rows: plots.evidence(rows, coloured=["snip"], caption="Two."),
    "mine": lambda rows: plots.evidence(ROWS, rows, coloured=["snip"], caption="Two."),
    "maps": lambda rows: plots.maps(rows, "sparsity", "seed", "accuracy"),
    "means": lambda rows: sentences.means(rows, "asked"),
    "gaps": lambda rows: sentences.gaps(rows, "snip", "random"),
    "over seeds": lambda rows: over_seeds(rows, ["method"], "accuracy"),
    "difference": lambda rows: paired_difference(rows, "snip", "random"),
}
NUMBERS = {
    "categories": lambda values: values.astype("category"),
    "objects": lambda values: values.astype(object),
    "nullable": lambda values: values.convert_dtypes(),
    "arrow": lambda values: values.convert_dtypes(dtype_backend="pyarrow"),
    "sparse": lambda values: values.astype("Sparse[float]"),
}
OTHERS = {
    "texts": lambda values: values.astype(str),
    "one text": lambda values: pd.Series([*values[:-1], "x"]),
    "complex": lambda values: values + 1j,
    "dates": lambda values: pd.Series([pd.Timestamp("2020-01-01")] * len(values)),
    "lists": lambda values: pd.Series([[1]] * len(values)),
}


def of_one_method(name):
    return ROWS.assign(accuracy=NUMBERS[name](ROWS["accuracy"])).drop_duplicates(["method", "seed", "asked"])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_type_are_numbers(use, name):
    rows = of_one_method(name)
    if use == "means":
        rows, plain = rows[rows["method"] == "snip"], ROWS[ROWS["method"] == "snip"]
        assert USES[use](rows) == USES[use](plain)
    elif use in ("gaps", "over seeds", "difference"):
        assert str(USES[use](rows)) == str(USES[use](ROWS))
    else:
        assert USES[use](rows).alt == USES[use](ROWS).alt


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_number_is_refused(use, name):
    with pytest.raises(BadInput, match="the column 'accuracy' must hold numbers, not "):
        USES[use](ROWS.assign(accuracy=OTHERS[name](ROWS["accuracy"])))


@pytest.mark.parametrize("use", USES)
def test_a_column_that_stands_twice_is_refused(use):
    with pytest.raises(BadInput, match="several columns 'accuracy'"):
        USES[use](pd.concat([ROWS, ROWS[["accuracy"]]], axis=1))


@pytest.mark.parametrize("use", ["chart", "against sparsity", "bars", "panels"])
def test_rows_that_belong_to_no_curve_are_not_drawn(use):
    strays = ROWS.assign(method=None, seed=np.nan)
    with pytest.raises(BadInput, match="there is no row with a value of 'accuracy' to draw"):
        USES[use](strays)
    assert USES[use](pd.concat([ROWS, strays])).alt == USES[use](ROWS).alt


def test_costs_say_which_column_is_missing():
    with pytest.raises(BadInput, match="the rows lack the column 'experiment'"):
        costs(ROWS)


@pytest.mark.parametrize("name", ["$\\frac{1$ <b>", "$x_", "a $ and $ b", "$$"])
@pytest.mark.parametrize("use", ["chart", "bars", "panels", "against sparsity"])
def test_names_that_look_like_formulas_and_are_none_are_drawn_as_they_are(name, use, tmp_path):
    figure = USES[use](ROWS.replace({"method": {"random": name}}))
    figure.savefig(tmp_path / "drawn.png", dpi=30)
    figure.savefig(tmp_path / "drawn.svg")


@pytest.mark.parametrize("use", ["means", "gaps", "over seeds", "difference"])
def test_infinite_values_have_no_mean(use):
    with pytest.raises(BadInput, match="must hold finite numbers"):
        USES[use](ROWS.assign(accuracy=float("inf")))


NAMED = ("chart", "panels", "against sparsity", "bars", "maps", "kept by")


@pytest.mark.parametrize("use", NAMED)
@pytest.mark.parametrize("value", [["snip"], {"snip": 1}, np.ones(2)], ids=["list", "dict", "array"])
def test_a_column_of_lists_names_no_curve(value, use):
    column = "seed" if use == "panels" else "method"
    rows = ROWS.assign(**{column: pd.Series([value] * len(ROWS))}, panel="one", place="a", kept=0.5)
    with pytest.raises(BadInput, match=f"the column '{column}' must hold names or numbers, not"):
        (USES | {"kept by": lambda rows: kept_by(rows, method="snip")})[use](rows)


@pytest.mark.parametrize("column", ["sparsity", "seed"])
def test_places_of_a_map_and_sparsities_are_numbers(column):
    rows = ROWS.assign(**{column: ROWS[column].astype(str)})
    with pytest.raises(BadInput, match=f"the column '{column}' must hold numbers"):
        USES["maps"](rows)
    if column == "sparsity":
        with pytest.raises(BadInput, match="the column 'sparsity' must hold numbers"):
            USES["against sparsity"](rows)


def test_a_map_without_a_value_is_refused():
    with pytest.raises(BadInput, match="there is no row of 'random' to draw"):
        USES["maps"](ROWS.assign(accuracy=ROWS["accuracy"].where(ROWS["method"] == "snip")))
    with pytest.raises(BadInput, match="must hold finite numbers"):
        USES["maps"](ROWS.assign(accuracy=np.inf))
