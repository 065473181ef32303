"""Small SQL over small tables: one plain SELECT, in a database of its own that reads no file and ends soon.

DuckDB cannot be interrupted in the middle of one call of a function, and does not count a text that a function makes.
So a query is read before it is run: it may use a few functions that are quick on any value, each table a few times, and
nothing that makes rows or texts out of nothing.
"""

# duckdb ships no complete type information:
# pyright: basic

from __future__ import annotations

import atexit
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import duckdb

from klimb.tasks.games.schemas import Database

LONGEST = 500
"""Characters of a query."""


LONGEST_ERROR = 200
"""Characters of what is said of a query that is refused."""


MOST_TABLES = 4
"""Tables that a query names, repetitions counted: with 20 rows each, at most 160,000 rows of them together."""


MOST_SELECTS = 4


MOST_STARS = 4


MOST_ROWS = 1_000
"""Rows of a result that are read."""


QUERY_SECONDS = 2.0
"""A query that has not answered by then is ended. What is let through takes a small part of that."""


FUNCTIONS = ("abs", "avg", "count", "length", "lower", "max", "min", "round", "sum", "upper")


OPERATORS = ("count_star", "+", "-", "*", "/", "//", "%", "~~", "!~~", "~~*", "!~~*")
"""What DuckDB calls operators and like, besides functions; `count(*)` too."""


KINDS = frozenset(
    {
        *("SELECT_NODE", "SET_OPERATION_NODE", "SUBQUERY", "EMPTY", "BASE_TABLE", "JOIN"),
        *("ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER", "ORDER_DEFAULT", "ASCENDING", "DESCENDING"),
        *("COLUMN_REF", "VALUE_CONSTANT", "STAR", "FUNCTION", "CASE_EXPR", "OPERATOR_CAST", "TYPE"),
        *("COMPARE_EQUAL", "COMPARE_NOTEQUAL", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "COMPARE_BETWEEN"),
        *("COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_IN", "COMPARE_NOT_IN"),
        *("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT", "OPERATOR_COALESCE"),
        *("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"),
    }
)
"""Parts of a query that are let through, as DuckDB names them."""


SETTINGS = (
    "memory_limit = '64MB'",
    "threads = 1",
    "temp_directory = ''",
    "autoload_known_extensions = false",
    "autoinstall_known_extensions = false",
    "python_enable_replacements = false",
    "enable_external_access = false",
    "lock_configuration = true",
)


Row = tuple[Any, ...]


def run_query(database: Database, sql: str) -> tuple[list[str], list[Row]]:
    """Return the names of the columns, and the rows: 1,000 at most.

    Raises:
        ValueError: the query is not one that is let through, or DuckDB cannot answer it; in one line.
    """
    if not isinstance(sql, str):
        raise ValueError(f"sql must be a text, got {type(sql).__name__}")
    if len(sql) > LONGEST:
        raise ValueError(f"the query has {len(sql)} characters; at most {LONGEST} are taken")
    with _open(database).cursor() as cursor:
        try:
            check_query(_parse(cursor, sql), [table.name for table in database.tables])
            return _answer(cursor, sql)
        except duckdb.InterruptException as error:
            raise ValueError(f"the query took longer than {QUERY_SECONDS:g} s and was ended") from error
        except (duckdb.Error, ValueError) as error:
            raise ValueError(_in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
    """Return what is wrong without the place in the query that DuckDB draws below it."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"


@lru_cache(maxsize=4_096)
def answer_of(database: Database, sql: str) -> Counter[Row]:
    """Return the rows of the right query, in any order; answers to the same problem share it."""
    return Counter(run_query(database, sql)[1])


@lru_cache(maxsize=32)
def _open(database: Database) -> Any:
    """Return a database with these tables. To open one takes longer than to ask it, and what asks changes nothing."""
    connection = duckdb.connect()
    for table in database.tables:
        columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
        connection.execute(f"create table {table.name} ({columns})")
        marks = ", ".join(f"({', '.join('?' for _ in table.columns)})" for _ in table.rows)
        connection.execute(f"insert into {table.name} values {marks}", [value for row in table.rows for value in row])
    connection.execute("; ".join(f"set {setting}" for setting in SETTINGS))
    return connection


# DuckDB's module complains when Python ends while a connection is still there.
atexit.register(_open.cache_clear)


def _parse(connection: Any, sql: str) -> dict[str, Any]:
    """Return the one statement as DuckDB reads it."""
    parsed = json.loads(connection.execute("select json_serialize_sql(?)", [sql]).fetchone()[0])
    if parsed["error"]:
        raise ValueError(f"the query cannot be read: {parsed['error_message']}")
    if len(parsed["statements"]) != 1:
        raise ValueError(f"one SELECT at a time is answered, got {len(parsed['statements'])} statements")
    return parsed["statements"][0]


def check_query(statement: dict[str, Any], tables: Sequence[str]) -> None:
    """Return if the statement is made of what is let through.

    Raises:
        ValueError: naming what is not.
    """
    counts: Counter[str] = Counter()
    for node in _nodes_in(statement):
        kind = node.get("type")
        if isinstance(kind, str) and kind not in KINDS:
            raise ValueError(f"{kind.lower().replace('_', ' ')} is not offered here; write a plain SELECT")
        _check_node(node, tables)
        counts.update([kind] if isinstance(kind, str) else [])
    for kind, most, name in (
        ("BASE_TABLE", MOST_TABLES, "tables"),
        ("SELECT_NODE", MOST_SELECTS, "SELECTs"),
        ("STAR", MOST_STARS, "stars"),
    ):
        if counts[kind] > most:
            raise ValueError(f"the query has {counts[kind]} {name}; at most {most} are taken")


def _check_node(node: dict[str, Any], tables: Sequence[str]) -> None:
    function = node.get("function_name")
    if function is not None and function not in (*FUNCTIONS, *OPERATORS):
        raise ValueError(f"{function} is not offered here; there are {', '.join(FUNCTIONS)}")
    table = node.get("table_name")
    if node.get("type") == "BASE_TABLE" and (table not in tables or node.get("schema_name")):
        raise ValueError(f"there is no table {table}; there are {', '.join(tables)}")
    if node.get("sample") or len(node.get("group_sets") or ()) > 1:
        raise ValueError("samples and grouping sets are not offered here; write a plain SELECT")
    name = (node.get("column_names") or [""])[-1]
    if name.lower().startswith(("current_", "localtime")):
        raise ValueError(f"{name} is not offered here: the same query has the same answer")


def _nodes_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value, whatever it is nested in."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _answer(connection: Any, sql: str) -> tuple[list[str], list[Row]]:
    timer = threading.Timer(QUERY_SECONDS, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        found = connection.execute(sql)
        rows = [tuple(map(_as_plain, row)) for row in found.fetchmany(MOST_ROWS)]
        return [str(column[0]) for column in found.description], rows
    finally:
        timer.cancel()


def _as_plain(value: object) -> object:
    """Return a number, a text or nothing as it is, and anything else as text."""
    is_plain = value is None or (isinstance(value, str | int | float | Decimal) and not isinstance(value, bool))
    return value if is_plain else str(value)
