"""Dates as people and programs write them; none is guessed, and none that cannot be read costs its row."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.experience.importing.importing_rows import as_row, sample_of, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.importing.cells import seconds
from klimb.experience.importing.dates import IN_FUTURE, OFF_ORDER, UNDATED, WITHOUT_ZONE, readings
from klimb.experience.reading.records import UnsettledError
from klimb.experience.store import Store

NOON = datetime(2026, 5, 1, 10, 0, tzinfo=UTC).timestamp()
"""`date -u -d '2026-05-01 10:00' +%s` is 1777629600."""


NOW = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01T10:00:00Z",
        "2026-05-01T12:00:00+02:00",
        "2026-05-01T10:00:00.000000000Z",
        "20260501T100000Z",
        "20260501100000",
        "2026-05-01 10:00:00 UTC",
        "2026-05-01 12:00:00 +0200 CEST",
        "2026-05-01T12:00:00+02:00[Europe/Berlin]",
        "2026-05-01 12:00 Europe/Berlin",
        "Fri, 01 May 2026 10:00:00 GMT",
        "Fri, 1 May 2026 05:00:00 -0500",
        "Fri May  1 10:00:00 2026",
        "Fri May 01 2026 12:00:00 GMT+0200 (Central European Summer Time)",
        "01/May/2026:12:00:00 +0200",
        "1777629600",
        "1777629600.0",
        "1777629600000",
        "1777629600000000",
        "1777629600000000000",
        "May 1, 2026 10:00 AM",
        "May 1st, 2026, 10 a.m.",
        "1 May 2026 10:00",
        "01-May-2026 10:00",
        "2026/05/01 10:00",
        "2026.05.01. 10:00",
        "1. Mai 2026, 10:00 Uhr",
        "Freitag, 1. Mai 2026 um 10.00 Uhr",
        "1er mai 2026 à 10h00",
        "1 de mayo de 2026 10:00 a. m.",
        "пт, 1 мая 2026 г., 13:00 МСК",  # noqa: RUF001
    ],
)
def test_a_date_says_its_moment_by_itself(text: str):
    assert NOON == 1777629600
    assert readings(text)[""].seconds == NOON


@pytest.mark.parametrize(
    "text",
    [
        *("2026-05", "May 2026", "2026", "05/2026", "10:30", "2026-W18", "1 May", "Friday"),
        *("yesterday", "3 days ago", "tomorrow", "", "n/a", "5", "46143.5", "31/02/2026", "2026-13-01", "99/99/2026"),
        *("14:30 PM 1 May 2026", "1 May 2026 25:00", "1 May 2026 10:00 XYZ", "2026-05-01/2026-05-02"),
    ],
)
def test_a_part_of_a_date_and_what_is_none_says_no_moment(text: str):
    assert readings(text) == {}


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("01/05/2026", {"day-first": date(2026, 5, 1), "month-first": date(2026, 1, 5)}),
        ("1.5.2026 14:30", {"day-first": date(2026, 5, 1), "month-first": date(2026, 1, 5)}),
        ("5/1/26 2:30 PM", {"day-first": date(2026, 1, 5), "month-first": date(2026, 5, 1)}),
        ("26/05/01", {"day-first": date(2001, 5, 26), "year-first": date(2026, 5, 1)}),
        ("01-May-26", {"day-first": date(2026, 5, 1), "year-first": date(2001, 5, 26)}),
    ],
)
def test_three_numbers_are_a_date_in_each_order_in_which_there_is_such_a_day(text: str, days: dict[str, date]):
    found = readings(text)
    assert {order: datetime.fromtimestamp(moment.seconds, UTC).date() for order, moment in found.items()} == days
    with pytest.raises(UnsettledError):
        seconds(text, as_row({}))


def test_a_day_that_is_the_same_in_all_orders_or_in_one_alone_needs_no_order():
    assert seconds("05/05/2026", as_row({})) == datetime(2026, 5, 5, tzinfo=UTC).timestamp()
    assert seconds("31.12.2025", as_row({})) == datetime(2025, 12, 31, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 5, 1, 10),
        datetime(2026, 5, 1, 10, tzinfo=UTC),
        1777629600,
        1777629600000.0,
        Decimal("1777629600"),
        np.int64(1777629600000),
        np.datetime64("2026-05-01T10:00:00"),
        {"$date": "2026-05-01T10:00:00Z"},
        {"$date": {"$numberLong": "1777629600000"}},
        {"_seconds": 1777629600, "_nanoseconds": 0},
    ],
    ids=repr,
)
def test_a_date_that_is_no_text_says_its_moment(value: object):
    assert seconds(value, as_row({})) == NOON


@pytest.mark.parametrize("value", [None, "", 0, float("nan")])
def test_no_date_is_none_and_nothing_is_remarked(value: object, tmp_path: Path):
    assert sample_of("table", {"prompt": "a", "response": "b", "created_at": value}).created_at == 0


@pytest.mark.parametrize(
    ("value", "remark"),
    [
        ("tomorrow", UNDATED),
        ("2026-05", UNDATED),
        (-5, UNDATED),
        (12, UNDATED),
        (10**400, UNDATED),
        (True, UNDATED),
        (["2026-05-01"], UNDATED),
        ("2027-05-01", IN_FUTURE),
        (4e9, IN_FUTURE),
        ("2026-05-01 10:00", WITHOUT_ZONE),
    ],
)
def test_a_date_that_cannot_be_costs_no_row_and_is_counted(tmp_path: Path, value: object, remark: str):
    rows = [{"prompt": "a", "response": "b", "created_at": value}, {"prompt": "a", "response": "c", "created_at": NOON}]
    store = Store(tmp_path / "store")
    report = import_rows(store, written(tmp_path / "a.jsonl", rows), rules=ImportRules(now=NOW))
    assert report.num_rejected == 0
    assert report.tally.remarks == {remark: 1}
    assert report.tally.remark_examples[remark].startswith("a.jsonl:1: ")
    assert [sample.created_at for sample in store.samples()] == [NOON if remark == WITHOUT_ZONE else 0.0, NOON]


def csv_of(path: Path, dates: Sequence[str], number_of: Callable[[int], object] = str) -> Path:
    lines = [f'q,"a{number_of(number)}","{text}"' for number, text in enumerate(dates)]
    path.write_text("\n".join(["prompt,response,created_at", *lines]) + "\n", encoding="utf-8")
    return path


def days_of(store: Store) -> list[str]:
    return [datetime.fromtimestamp(sample.created_at, UTC).date().isoformat() for sample in store.samples()]


@pytest.mark.parametrize(
    ("dates", "order", "days"),
    [
        (["01/05/2026", "25/05/2026"], "day-first", ["2026-05-01", "2026-05-25"]),
        (["01/05/2026", "05/25/2026"], "month-first", ["2026-01-05", "2026-05-25"]),
        (["2026-05-02", "May 3, 2026", "1.5.2026", "13.5.2026"], "day-first", None),
        (["26/05/01", "25/12/31"], "year-first", ["2026-05-01", "2025-12-31"]),
        (["01/05/2026", "", "nonsense", "5/13/2026"], "month-first", None),
    ],
)
def test_the_whole_column_says_the_order(tmp_path: Path, dates: list[str], order: str, days: list[str] | None):
    store = Store(tmp_path / "store")
    report = import_rows(store, csv_of(tmp_path / "a.csv", dates), rules=ImportRules(now=NOW))
    assert (report.date_order, report.tally.num_added, report.num_rejected) == (order, len(dates), 0)
    assert days is None or days_of(store) == days


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (["01/05/2026", "02/05/2026"], r"no other date of the column created_at shows which.*--dates day-first or"),
        (["25/05/2026", "05/25/2026", "01/05/2026"], r"no order fits all.*'25/05/2026' \(a.csv:2\) is not month-first"),
        (["26/05/01", "20/05/02"], "--dates day-first or --dates year-first"),
    ],
)
def test_a_column_that_does_not_say_it_stops_the_import_before_anything_is_added(
    tmp_path: Path, dates: list[str], message: str
):
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match=rf"{message}.*Nothing was added"):
        import_rows(store, csv_of(tmp_path / "a.csv", dates), rules=ImportRules(now=NOW))
    assert not list(tmp_path.glob("store/*.parquet"))


def test_a_stated_order_is_taken_and_a_date_that_is_none_in_it_is_left_out_and_counted(tmp_path: Path):
    store = Store(tmp_path / "store")
    path = csv_of(tmp_path / "a.csv", ["25/05/2026", "05/25/2026", "01/05/2026", "2026-05-02"])
    report = import_rows(store, path, rules=ImportRules(now=NOW, dates="day-first"))
    assert days_of(store) == ["2026-05-25", "1970-01-01", "2026-05-01", "2026-05-02"]
    assert report.tally.remarks == {WITHOUT_ZONE: 3, OFF_ORDER: 1}


def test_a_day_that_has_not_been_is_none_of_the_readings(tmp_path: Path):
    store = Store(tmp_path / "store")
    import_rows(store, csv_of(tmp_path / "a.csv", ["01/12/2026"]), rules=ImportRules(now=NOW - 86400 * 30))
    assert days_of(store) == ["2026-01-12"]


def test_ratings_are_dated_by_the_same_rule(tmp_path: Path):
    rows = [
        {"feedback_id": f"f{n}", "completion_id": "c", "value": 1, "created_at": text} for n, text in enumerate("ab")
    ]
    rows[0]["created_at"], rows[1]["created_at"] = "01/05/2026", "31/05/2026"
    store = Store(tmp_path / "store")
    assert import_rows(store, written(tmp_path / "a.jsonl", rows), rules=ImportRules(now=NOW)).date_order == "day-first"


def test_the_file_is_read_once_more_for_an_order_and_never_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("no column is asked")

    monkeypatch.setattr("klimb.experience.importing.importer.settle", refuse)
    rows = [json.loads('{"prompt": "a", "response": "b", "created_at": "2026-05-01T10:00:00"}')]
    import_rows(Store(tmp_path / "store"), written(tmp_path / "a.jsonl", rows))
