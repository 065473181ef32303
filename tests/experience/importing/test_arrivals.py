"""Where each row of a file goes, and what becomes of a rating that is given again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.experience.importing.importing_rows import openai_row, written

from klimb.experience.importing import ImportReport, ImportRules, import_rows
from klimb.experience.importing import importer as importer
from klimb.experience.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


DAY = 1_700_000_000
"""Seconds since the epoch, as dates are read."""


def row(response: str, *, name: str = "1", reward: float | None = 1, **others: Any) -> dict[str, Any]:
    return {"id": name, "prompt": "a", "response": response, "reward": reward, **others}


def ends(report: ImportReport) -> tuple[int, int, int, int]:
    tally = report.tally
    assert tally.is_balanced
    assert tally.num_rows_refused == report.num_rejected
    return tally.num_rows_in, tally.num_rows_there, tally.num_rows_refused, tally.num_skipped


def rejects_in(report: ImportReport) -> list[dict[str, str]]:
    assert report.reject_file is not None
    return [json.loads(line) for line in report.reject_file.read_text(encoding="ascii").splitlines()]


@pytest.mark.parametrize("segment_rows", [1, 2, 100])
def test_each_row_of_a_repeated_id_is_refused_with_its_own_text_or_is_a_duplicate(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_rows: int
):
    monkeypatch.setattr(importer, "SEGMENT_ROWS", segment_rows)
    rows = [row(response) for response in "ABCDA"]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert ends(report) == (1, 1, 3, 0)
    rejects = rejects_in(report)
    assert [reject["place"] for reject in rejects] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
    assert [json.loads(reject["row"])["response"] for reject in rejects] == ["B", "C", "D"]
    assert [sample.response for sample in store.samples()] == ["A"]


def test_ratings_of_a_repeated_id_of_other_samples_are_refused_one_by_one(store: Store, tmp_path: Path):
    rows = [{"feedback_id": "f", "completion_id": name, "value": 1} for name in "abca"]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert ends(report) == (1, 1, 2, 0)
    assert [json.loads(reject["row"])["completion_id"] for reject in rejects_in(report)] == ["b", "c"]


def test_ids_that_are_not_unique_can_be_left_aside_or_taken_from_another_column(store: Store, tmp_path: Path):
    rows = [openai_row(choice={"message": {"content": str(n)}}, id=f"mine-{n}") for n in range(3)]
    path = written(tmp_path / "a.jsonl", rows)
    assert ends(import_rows(store, path)) == (1, 0, 2, 0)
    hashed, own = Store(tmp_path / "hashed"), Store(tmp_path / "own")
    assert ends(import_rows(hashed, path, rules=ImportRules(ids="content"))) == (3, 0, 0, 0)
    assert ends(import_rows(hashed, path, rules=ImportRules(ids="content"))) == (0, 3, 0, 0)
    assert {sample.metadata["completion_id"] for sample in hashed.samples()} == {"chatcmpl-1"}
    assert ends(import_rows(own, path, rules=ImportRules(columns={"id": "id"}))) == (3, 0, 0, 0)
    assert sorted(sample.sample_id for sample in own.samples()) == ["mine-0", "mine-1", "mine-2"]


def test_a_column_as_id_names_both_sides_of_a_pair(store: Store, tmp_path: Path):
    pairs = [{"id": "x", "key": f"k{n}", "prompt": str(n), "chosen": "a", "rejected": "b"} for n in range(2)]
    path = written(tmp_path / "a.jsonl", pairs)
    assert ends(import_rows(store, path, rules=ImportRules(columns={"id": "key"}))) == (2, 0, 0, 0)
    assert sorted(sample.sample_id for sample in store.samples()) == ["k0", "k0#1", "k1", "k1#1"]


def test_choices_of_one_index_are_two_responses(store: Store, tmp_path: Path):
    exchange = openai_row()
    first = exchange["response"]["choices"][0]
    exchange["response"]["choices"].append({**first, "message": {"role": "assistant", "content": "5"}})
    assert ends(import_rows(store, written(tmp_path / "a.jsonl", [exchange]))) == (1, 0, 0, 0)
    assert {sample.sample_id: sample.response for sample in store.samples()} == {
        "chatcmpl-1": "4!",
        "chatcmpl-1#1": "5",
    }


def test_a_row_comes_in_whole_or_not_at_all(store: Store, tmp_path: Path):
    pair = {"id": "p", "prompt": "a", "chosen": "good", "rejected": "bad"}
    import_rows(store, written(tmp_path / "a.jsonl", [pair]))
    other = {**pair, "rejected": "worse"}
    report = import_rows(store, written(tmp_path / "b.jsonl", [other, {**other, "id": "q"}]))
    assert ends(report) == (1, 0, 1, 0)
    assert sorted(sample.response for sample in store.samples()) == ["bad", "good", "good", "worse"]


@pytest.mark.parametrize("segment_rows", [1, 100])
@pytest.mark.parametrize(
    ("dates", "expected"),
    [((None, None), 0.0), ((DAY, DAY + 1), 0.0), ((DAY + 1, DAY), 1.0), ((DAY, DAY), 0.0), ((DAY, None), 0.0)],
)
def test_of_two_ratings_of_one_response_the_later_date_counts_and_else_the_later_line(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dates: tuple[int | None, int | None],
    expected: float,
    segment_rows: int,
):
    monkeypatch.setattr(importer, "SEGMENT_ROWS", segment_rows)
    rows = [row("A", reward=reward, created_at=date) for reward, date in zip((1, 0), dates, strict=True)]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert ends(report) == (2, 0, 0, 0)
    assert (report.tally.num_later_ratings, report.tally.num_added) == (1, 1)
    assert store.sample("1").reward == expected
    assert sorted(store.query("select value from feedback").column("value").to_pylist()) == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["table", "kto", "csv"])
def test_a_file_that_is_imported_again_with_another_rating_changes_the_reward_and_keeps_both(
    store: Store, tmp_path: Path, kind: str
):
    def file(name: str, label: int) -> Path:
        if kind == "csv":
            path = tmp_path / f"{name}.csv"
            path.write_text(f"id,prompt,response,reward\n1,a,b,{label}\n2,a,c,1\n", encoding="utf-8")
            return path
        names = {"table": ("response", "reward"), "kto": ("completion", "label")}[kind]
        rows = [
            {"id": n, "prompt": "a", names[0]: said, names[1]: rated}
            for n, said, rated in (("1", "b", label), ("2", "c", 1))
        ]
        return written(tmp_path / f"{name}.jsonl", rows)

    first, second = file("first", 1), file("second", 0)
    assert ends(import_rows(store, first)) == (2, 0, 0, 0)
    report = import_rows(store, second)
    assert ends(report) == (1, 1, 0, 0)
    assert report.tally.num_later_ratings == 1
    assert (store.sample("1").reward, store.sample("2").reward) == (0.0, 1.0)
    assert ends(import_rows(store, second)) == ends(import_rows(store, first)) == (0, 2, 0, 0)
    assert store.sample("1").reward == 0.0
    assert sorted(store.query("select value from feedback").column("value").to_pylist()) == [0.0, 1.0]


def test_a_rating_that_comes_later_for_a_response_without_one_is_its_only_one(store: Store, tmp_path: Path):
    import_rows(store, written(tmp_path / "a.jsonl", [row("A", reward=None)]))
    import_rows(store, written(tmp_path / "b.jsonl", [row("A", reward=0)]))
    assert store.sample("1").reward == 0.0
    assert store.query("select value from feedback").column("value").to_pylist() == [0.0]


def test_a_rating_that_is_taken_away_changes_nothing(store: Store, tmp_path: Path):
    import_rows(store, written(tmp_path / "a.jsonl", [row("A", reward=0)]))
    assert ends(import_rows(store, written(tmp_path / "b.jsonl", [row("A", reward=None)]))) == (0, 1, 0, 0)
    assert store.sample("1").reward == 0.0


def test_the_same_row_under_another_mapping_is_no_later_rating(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [row("A", reward=0.5)])
    import_rows(store, path)
    assert ends(import_rows(store, path, rules=ImportRules(value_map={"0.5": 1.0}))) == (0, 0, 1, 0)
    assert store.sample("1").reward == 0.5


def test_a_row_that_differs_in_what_is_not_read_is_there_and_counted(store: Store, tmp_path: Path):
    import_rows(store, written(tmp_path / "a.jsonl", [row("A", exported="monday")]))
    report = import_rows(store, written(tmp_path / "b.jsonl", [row("A", exported="friday")]))
    assert (ends(report), report.tally.num_written_otherwise) == ((0, 1, 0, 0), 1)


def test_the_same_answer_of_another_time_under_the_same_id_is_another_draw(store: Store, tmp_path: Path):
    rows = [row("A", reward=None, created_at=date) for date in (DAY, DAY + 1)]
    assert ends(import_rows(store, written(tmp_path / "a.jsonl", rows))) == (1, 0, 1, 0)


def test_what_no_file_can_hold_costs_its_row_alone(store: Store, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    own = [row("A", name="1"), row("B", name="2", policy_version=2**70), row("C", name="3")]
    report = import_rows(store, written(path, own))
    assert ends(report) == (2, 0, 1, 0)
    assert rejects_in(report)[0]["place"] == "a.jsonl:2"


CELLS = st.sampled_from(["A", "B", ""])
ROWS = st.builds(
    lambda name, response, reward, date, is_broken: (
        {"x": 1}
        if is_broken
        else row(response, name=name, reward=reward, **({} if date is None else {"created_at": date}))
    ),
    st.sampled_from(["1", "2", None]),
    CELLS,
    st.sampled_from([None, 0, 1, "high"]),
    st.sampled_from([None, DAY, DAY + 1]),
    st.booleans(),
)
RATINGS = st.builds(
    lambda own, sample, value, name, date: {
        "feedback_id": own,
        "completion_id": sample,
        "value": value,
        "name": name,
        "created_at": date,
    },
    st.sampled_from(["f", "g", None]),
    st.sampled_from(["1", "2"]),
    st.sampled_from([0, 1, None, "x"]),
    st.sampled_from(["ok", "other"]),
    st.sampled_from([None, DAY, DAY + 1]),
)


def check_identity(store: Store, path: Path, rules: ImportRules, rows: Sequence[Mapping[str, Any]]) -> None:
    for _ in range(2):
        try:
            report = import_rows(store, path, rules=rules)
        except ValueError as error:
            assert "none of its" in str(error) or "nothing is rated under that name" in str(error)
            return
        came, there, refused, nothing = ends(report)
        assert came + there + refused + nothing == report.tally.num_rows == len(rows)
        if refused:
            assert len(rejects_in(report)) == refused
    assert came == 0, "a file that is imported twice adds nothing"


@pytest.mark.parametrize("segment_rows", [1, 3])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=8))
def test_rows_in_and_there_and_refused_are_the_rows_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, segment_rows: int, rows: Any
):
    monkeypatch.setattr(importer, "SEGMENT_ROWS", segment_rows)
    folder = tmp_path_factory.mktemp("rows")
    path = written(folder / "a.jsonl", [row("first", name="0"), *rows])
    check_identity(Store(folder / "store"), path, ImportRules(), [{}, *rows])


@settings(max_examples=12, deadline=None)
@given(rows=st.lists(RATINGS, min_size=1, max_size=8))
def test_ratings_in_and_there_and_refused_and_of_other_names_are_the_rows_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: Any
):
    folder = tmp_path_factory.mktemp("ratings")
    path = written(folder / "a.jsonl", rows)
    check_identity(Store(folder / "store"), path, ImportRules(score_name="ok"), rows)
