import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experience.test_store import BASE, ids, numbered

from klimb.experience import SegmentError
from klimb.experience.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.append(numbered(8))
    return store


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("", 8),
        ("  ", 8),
        ("reward >= 2", 4),
        ("reward >= 2 -- those above the middle", 4),
        ("reward = 0 or reward = 3", 4),
        ("metadata['problem_id'] = '2+3' and len(response_ids) = 2", 8),
        ("sample_id in (select max(sample_id) from samples)", 1),
        ("sampling.temperature < 0.5", 0),
    ],
)
def test_where_is_a_condition_over_the_fields_of_a_sample(store: Store, where: str, count: int):
    assert store.count(where) == count
    assert len(list(store.samples(where=where))) == count


@pytest.mark.parametrize(
    "where",
    [
        "reward >",
        "rewards > 1",
        "true) or (true",
        "true; drop table samples",
        "true union all select 1",
        "sum(reward) > 1",
        "reward > ?",
        "reward > 1 limit 1",
        "'unclosed",
    ],
)
def test_a_malformed_where_is_refused_with_the_reason(store: Store, where: str):
    for ask in (store.count, lambda where: store.samples(where=where), lambda where: store.groups(["g"], where=where)):
        with pytest.raises(
            ValueError, match=r"(?s)is not a condition on samples: \w+ Error: .*give a DuckDB expression"
        ):
            ask(where)


def test_a_where_that_fails_on_a_row_says_so(store: Store):
    with pytest.raises(ValueError, match="cannot answer: Conversion Error") as raised:
        list(store.samples(where="cast(response || 'x' as integer) > 3"))
    assert not isinstance(raised.value, SegmentError)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to 'stolen.csv'",
        "select 1; copy (select 1) to 'stolen.csv'",
        "copy (select 1) to '{segment}'",
        "attach 'stolen.db'",
        "create table t as select 1",
        "insert into _hidden values (0, 0)",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_a_query_cannot_write(store: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (segment,) = store.files().samples
    before = segment.path.read_bytes()
    with pytest.raises(ValueError, match="one SELECT at a time"):
        store.query(sql.format(segment=segment.path))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert segment.path.read_bytes() == before


def test_a_condition_cannot_read_other_files(store: Store, tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(ValueError, match="Permission Error"):
        store.count(f"exists (select 1 from read_text('{tmp_path / 'secret.txt'}'))")


def test_the_settings_are_locked_so_that_a_condition_cannot_undo_them(store: Store):
    with pytest.raises(Exception, match="locked"):
        store._database().cursor().execute("set enable_external_access = true")


def test_a_query_gives_a_table(store: Store):
    table = store.query("select reward, count(*) as n from samples group by reward order by reward")
    assert table.to_pydict() == {"reward": [0.0, 1.0, 2.0, 3.0], "n": [2, 2, 2, 2]}
    assert store.query("select count(*) as n from samples", where="reward > 1").to_pydict() == {"n": [4]}
    assert store.query("select count(*) as n from feedback").to_pydict() == {"n": [0]}


def test_an_empty_store_has_all_columns(tmp_path: Path):
    store = Store(tmp_path / "none")
    assert store.count("reward > 1 and tokenizer = '' and metadata['user'] = 'x' and sampling.top_p = 1") == 0
    assert (list(store.samples()), store.group_ids()) == ([], [])


def test_a_limit_below_zero_is_refused(store: Store):
    with pytest.raises(ValueError, match="limit must be >= 0"):
        store.samples(limit=-1)


def test_a_memory_limit_must_be_positive(tmp_path: Path):
    with pytest.raises(ValueError, match="memory_limit_gigabytes must be > 0"):
        Store(tmp_path, memory_limit_gigabytes=0)


def test_a_store_is_read_within_a_small_memory_limit_in_order(tmp_path: Path):
    Store(tmp_path).append([replace(sample, response="x" * 1000) for sample in numbered(3000)])
    small = Store(tmp_path, memory_limit_gigabytes=0.03)
    assert ids(small.samples()) == ids(numbered(3000))
    assert next(small.samples(where="sample_id = 'n2999'")).sample_id == "n2999"
    assert small.sample("n0000") == replace(BASE, sample_id="n0000", group_id="g000", reward=0.0, response="x" * 1000)


ENDLESS = "(select count(*) from range(100000000) as a(x), range(100000000) as b(y) where x * y % 7 = 3) > 0"


@pytest.mark.parametrize("ask", ["count", "samples", "groups", "query"])
def test_a_condition_or_query_without_end_is_ended_in_one_line(store: Store, ask: str):
    impatient = Store(store.folder, query_seconds=0.3)
    asked = {
        "count": lambda: impatient.count(ENDLESS),
        "samples": lambda: list(impatient.samples(where=ENDLESS)),
        "groups": lambda: impatient.groups(["g"], where=ENDLESS),
        "query": lambda: impatient.query(f"select {ENDLESS}"),
    }
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"took longer than 0\.3 s and was ended"):
        asked[ask]()
    assert time.monotonic() - started < 10
    assert impatient.count() == store.count()
