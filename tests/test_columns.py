"""Columns of whatever type as numbers, texts and times, and refusals that say where to look."""

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from features import columns
from features.schema import SchemaError

PATH = Path("t.parquet")
MARCH_MS = 1_456_790_400_000  # 2016-03-01 UTC


def times(values: list[object], unit_ms: int = 1000, form: str = "") -> list[int]:
    found = columns.times_ms(PATH, pl.DataFrame({"t": values}), ("t",), unit_ms, form)
    return [int(moment) for moment in found]


def test_numbers_of_every_type() -> None:
    for values, expected in (
        ([1, None, 3], [1.0, None, 3.0]),
        ([1.5, float("nan"), None], [1.5, None, None]),
        ([" 7", "", "1e3"], [7.0, None, 1000.0]),
        ([True, False, None], [1.0, 0.0, None]),
    ):
        assert columns.numbers(PATH, pl.Series("x", values)).to_list() == expected
    assert columns.numbers(PATH, pl.Series("x", ["4", "5"], dtype=pl.Categorical)).to_list() == [4.0, 5.0]


def test_texts_of_numbers_agree_whatever_the_file_made_of_them() -> None:
    assert columns.texts(pl.Series([1.0, None, 43.0])).to_list() == ["1", None, "43"]
    assert columns.texts(pl.Series([1, 43])).to_list() == ["1", "43"]
    assert columns.texts(pl.Series(["a", "", None])).to_list() == ["a", None, None]
    assert columns.texts(pl.Series([0.5, 1.0])).to_list() == ["0.5", "1"]


@pytest.mark.parametrize(
    "value",
    [
        "2016-03-01", "2016-03-01 00:00:00", "2016-03-01T00:00:00", "2016-03-01 00:00:00.000000", "2016/03/01",
        "2016-03", "Mar-2016", "2016 Mar", "March 2016", date(2016, 3, 1), datetime(2016, 3, 1),
    ],
)  # fmt: skip
def test_times(value: object) -> None:
    assert times([value, value]) == [MARCH_MS, MARCH_MS]


def test_times_of_numbers_formats_and_several_columns() -> None:
    assert times([0, 2]) == [columns.EPOCH_MS, columns.EPOCH_MS + 2000]
    assert times(["01.03.2016"], form="%d.%m.%Y") == [MARCH_MS]
    frame = pl.DataFrame({"Year": [2016, 2016], "Month": ["Mar", "Mar"]})
    assert columns.times_ms(PATH, frame, ("Year", "Month"), 1, "").tolist() == [MARCH_MS, MARCH_MS]


def test_days_between() -> None:
    until = columns.times_ms(PATH, pl.DataFrame({"t": ["2016-03-02", "2016-03-02"]}), ("t",), 1, "")
    assert columns.days_between(PATH, pl.Series("d", ["2016-03-01", None]), until, "").to_list() == [1.0, None]


def test_refusals_name_column_rows_and_an_example(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"column x: 2 of 3 rows are no number, the first is row 1: 'many'"):
        columns.numbers(PATH, pl.Series("x", ["1", "many", "few"]))
    with pytest.raises(SchemaError, match=r"column x: 1 of 2 rows are infinite"):
        columns.numbers(PATH, pl.Series("x", [1.0, float("inf")]))
    with pytest.raises(SchemaError, match="holds dates"):
        columns.numbers(PATH, pl.Series("x", [date(2016, 3, 1)]))
    with pytest.raises(SchemaError, match=r"1 of 2 rows are no date .* row 1: 'soon'"):
        times(["2016-03-01", "soon"])
    with pytest.raises(SchemaError, match=r"column t: 1 of 2 rows have no time"):
        times(["2016-03-01", None])
    (tmp_path / "t.parquet").write_text("no table")
    with pytest.raises(SchemaError, match="cannot be read"):
        columns.read_frame(tmp_path / "t.parquet")


def test_a_date_as_a_number_is_no_count_of_days() -> None:
    frame = pl.DataFrame({"day": [20160301, 20160302]})
    with pytest.raises(SchemaError, match=r"column day: 2 of 2 rows lie beyond 1900 to 2200 as steps of time_unit_ms"):
        columns.times_ms(PATH, frame, ("day",), 86_400_000, "")
    days = columns.times_ms(PATH, frame, ("day",), 86_400_000, "%Y%m%d")
    assert days[1] - days[0] == 86_400_000
