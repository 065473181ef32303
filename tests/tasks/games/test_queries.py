"""Queries are answered in a small database of their own, and what could reach beyond it or take long is refused."""

import time
from concurrent.futures import ThreadPoolExecutor
from inspect import unwrap

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.tasks.games.queries import _open, run_query
from klimb.tasks.games.schemas import Column, Database, Table

FRUIT = Database(
    tables=(
        Table(
            name="fruit",
            columns=(Column(name="name", type="text"), Column(name="price", type="integer")),
            rows=(("apple", 3), ("pear", 5), ("o'plum", 5)),
        ),
        Table(name="shops", columns=(Column(name="city", type="text"),), rows=(("Rome",), ("Oslo",))),
    )
)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) FROM fruit", [(3,)]),
        ("select name from fruit where price > 3 order by name", [("o'plum",), ("pear",)]),
        ("select price, count(*) from fruit group by price having count(*) > 1", [(5, 2)]),
        ("select sum(price) as total from fruit;", [(13,)]),
        ("select avg(price) from fruit where name like '%p%'", [(13 / 3,)]),
        ("select max(name) from fruit where price in (3, 4) or name is null", [("apple",)]),
        ("select count(*) from fruit join shops on price < 5 where city = 'Rome'", [(1,)]),
        ("select name from fruit where price = (select min(price) from fruit)", [("apple",)]),
        (
            "select distinct case when price = 5 then 'dear' else 'cheap' end as kind from fruit order by 1",
            [("cheap",), ("dear",)],
        ),
        ("select upper(name), length(name), -price * 2 + 1 from fruit limit 1", [("APPLE", 5, -5)]),
        ("select city from shops union select 'Lima' order by city", [("Lima",), ("Oslo",), ("Rome",)]),
        ("from fruit select count(distinct price)", [(2,)]),
        ("select price from fruit where name = 'fig'", []),
    ],
)
def test_plain_queries_have_the_rows_that_the_tables_say(sql, rows):
    assert run_query(FRUIT, sql)[1] == rows


HOSTILE = {
    "files": (
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/hostname')",
        "select * from glob('/*')",
        "copy fruit to '/tmp/klimb-fruit.csv'",
        "attach '/tmp/klimb-fruit.db' as other",
        "install httpfs",
        "load httpfs",
        "export database '/tmp/klimb-fruit'",
    ),
    "changes": (
        "drop table fruit",
        "delete from fruit",
        "insert into fruit values ('fig', 1)",
        "update fruit set price = 0",
        "create table t(a int)",
        "select 1; drop table fruit",
        "set threads = 64",
        "pragma memory_limit='100GB'",
    ),
    "what the machine is": (
        "select getenv('HOME')",
        "select current_setting('temp_directory')",
        "select * from duckdb_settings()",
        "select * from information_schema.tables",
        "select * from pg_catalog.pg_tables",
        "select version()",
        "show tables",
    ),
    "another answer each time": (
        "select random()",
        "select now()",
        "select current_date",
        "select current_timestamp",
        "select uuid()",
        "select * from fruit using sample 1",
        "select * from fruit tablesample 50%",
    ),
    "time and memory": (
        "select repeat('x', 1000000000)",
        "select levenshtein(repeat('a', 200000), repeat('b', 200000))",
        "select count(*) from range(1000000000)",
        "select list_sum(range(300000000))",
        "with recursive r as (select 1 as n union all select n + 1 from r) select max(n) from r",
        "select count(*) from fruit a, fruit b, fruit c, fruit d, fruit e",
        "select name||name from fruit",
        "select concat(name, name) from fruit",
        "select lpad(name, 1000000000, 'x') from fruit",
        "select string_agg(name, name) from fruit",
        "select list_transform([1], lambda x: x) from fruit",
        "select [name, name] from fruit",
        "select *, *, *, *, * from fruit",
        "select sum(price) over () from fruit",
        "select sum(price) from fruit group by cube (name, price)",
        "select count(*) from fruit where price in (select 1 union select 2 union select 3 union select 4)",
        "select factorial(1000)",
        "select " + "1+" * 300 + "1",
    ),
    "no query": (
        "",
        ";",
        "hello",
        "select",
        "\0",
        "\ud800",
        "select '",
        "select ?",
        "select $1",
        "select nosuch from fruit",
        "select 1/'a'",
    ),
}


@pytest.mark.parametrize("sql", [sql for each in HOSTILE.values() for sql in each])
def test_anything_else_is_refused_in_one_line_and_at_once(sql: str):
    run_query(FRUIT, "select 1")  # the first one opens the database
    begin = time.perf_counter()
    with pytest.raises(ValueError) as error:
        run_query(FRUIT, sql)
    assert time.perf_counter() - begin < 1.0
    assert str(error.value)
    assert "\n" not in str(error.value)


WORDS = (
    *("select", "from", "where", "group by", "order by", "limit", "with", "union", "join", "on", "case when", "end"),
    *("fruit", "shops", "name", "price", "city", "*", "(", ")", ",", "'", "1", "0", "-", "||", "::int", "in", "not"),
    *("count(*)", "sum(price)", "max(", "range(", "repeat(", "[", "]", "{", "}", ";", "--", "null", "interval", "$1"),
)


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)))
@settings(deadline=None, max_examples=150)
def test_any_text_has_rows_or_is_refused_in_one_line(sql: str):
    try:
        names, rows = run_query(FRUIT, sql)
    except ValueError as error:
        assert str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert names
        assert len(rows) <= 1_000


@pytest.mark.parametrize("sql", [*HOSTILE["files"], "set threads = 64", "set enable_external_access = true"])
def test_the_database_itself_reads_no_file_and_keeps_its_settings(sql: str):
    """A second lock behind the first, which reads the query."""
    with pytest.raises(duckdb.Error):
        _open(FRUIT).cursor().execute(sql)


def test_what_was_tried_has_changed_nothing():
    for each in HOSTILE["changes"]:
        with pytest.raises(ValueError):
            run_query(FRUIT, each)
    assert run_query(FRUIT, "select count(*), sum(price) from fruit")[1] == [(3, 13)]


def test_the_largest_query_that_is_let_through_takes_little_time():
    rows = tuple((f"n{number}", number) for number in range(20))
    large = Database(tables=(Table(name="fruit", columns=FRUIT.tables[0].columns, rows=rows),))
    run_query(large, "select 1")
    begin = time.perf_counter()
    _, found = run_query(large, "select * from fruit a, fruit b, fruit c, fruit d order by 8, 7, 6, 5, 4, 3, 2, 1")
    assert len(found) == 1_000  # of 160,000
    assert time.perf_counter() - begin < 5.0


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="sql must be a text"):
        unwrap(run_query)(FRUIT, 5)


def test_queries_from_several_threads_do_not_disturb_each_other():
    others = [
        Database(tables=(Table(name="fruit", columns=FRUIT.tables[0].columns, rows=(("apple", price),)),))
        for price in range(1, 6)
    ]

    def ask(number: int) -> bool:
        return run_query(others[number % 5], "select sum(price) from fruit")[1] == [(number % 5 + 1,)]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(40)))
