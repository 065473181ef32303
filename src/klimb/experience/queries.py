"""The DuckDB side of a store: its segment files as views that can be read and nothing else.

The database is in memory and holds narrow tables only (places of repeated samples, one number a rated sample);
what exceeds the memory limit goes to a temporary folder. The files themselves are scanned anew by each query.
"""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from klimb.experience.feedback import MACHINE_NAMES
from klimb.experience.rater_cap import ratings_that_count
from klimb.experience.segments import SAMPLE_SCHEMA, SegmentGone, check_content
from klimb.experience.store_feedback import FEEDBACK_SCHEMA
from klimb.experience.store_feedback import NEWER as FEEDBACK_NEWER
from klimb.experience.store_files import Segment, SegmentFiles

_NUM_THREADS = 2
"""Each thread scans a row group of its own, so threads multiply memory; making samples costs more than the scan."""


_FETCH_ROWS = 10_000


QUERY_SECONDS = 60.0
"""A query of somebody's own that has not answered by then is ended: a condition can ask for any amount of work."""


_HIDDEN = """
create table _hidden as
with repeated as (select hash(sample_id) as h from _stored group by h having count(*) > 1),
candidates as (select sample_id, file, row from _stored where hash(sample_id) in (select h from repeated)),
numbered as (select file, row, row_number() over (partition by sample_id order by file, row) as n from candidates)
select file, row from numbered where n > 1
"""
"""Places of samples whose id is there already, in an earlier file or row. Grouping hashes keeps the work narrow."""


_FEEDBACK = """
create view every_feedback as
with numbered as (
  select *, row_number() over (partition by feedback_id order by file, row) as n from _stored_feedback
)
select * exclude (n) from numbered where n = 1
"""


_COUNTING_FEEDBACK = """
create view feedback as select * from every_feedback where user not in ({quarantined})
"""
"""Without that of raters in quarantine."""


_BY_MACHINE = " or ".join(f"starts_with(name, '{prefix}')" for prefix in MACHINE_NAMES)
"""Of a row of feedback: no person gave it."""


_RATINGS = f"""
create table _ratings as
with given as (
  select *, row_number() over (
    partition by sample_id, user, name order by created_at desc, file desc, row desc) as n
  from feedback where value is not null and not ({_BY_MACHINE})
),
counting as (
  select *, row_number() over (partition by user order by hash(sample_id, name), sample_id, name) as place
  from given where n = 1
),
of_user as (
  select sample_id, user, avg(value order by name) as value, max(created_at) as created_at,
    coalesce(arg_max(comment, created_at) filter (comment <> ''), '') as comment
  from counting where place <= {{most}} or user = '' group by sample_id, user
)
select sample_id, avg(value order by user) as value, count(*) as num_users,
  coalesce(arg_max(comment, created_at) filter (comment <> ''), '') as comment
from of_user group by sample_id
"""
"""Each person's latest rating under each name, their mean, and the mean of that over people. What a reward model or a
judge gave is left out, and of each person all but `most` ratings, of answers as chance picks them."""


_NUM_RATINGS = f"""
select user, count(distinct (sample_id, name)) from feedback
where value is not null and user <> '' and not ({_BY_MACHINE}) group by user
"""


_PLACED = """
create view _placed as
select stored.* replace (
    coalesce(rated.value, stored.reward) as reward,
    case when rated.value is null then stored.reward_reason
      else 'rated by ' || rated.num_users || case when rated.num_users = 1 then ' user' else ' users' end
        || case when rated.comment = '' then '' else ': ' || rated.comment end
    end as reward_reason
  ), rated.value is not null as is_rated_by_users
from _stored as stored left join _ratings as rated using (sample_id)
where not exists (select 1 from _hidden as h where h.file = stored.file and h.row = stored.row)
"""


class Database:
    """Views over the files of one moment: `samples` and `feedback`, and `_placed` with each sample's place.

    Nothing can be written and no other file read: outside access is switched off but for these files, and the
    settings are locked.
    """

    def __init__(
        self,
        files: SegmentFiles,
        *,
        memory_limit_gigabytes: float,
        query_seconds: float,
        quarantined: Collection[str] = (),
        max_rater_fraction: float = 1.0,
    ) -> None:
        self.files, self.quarantined = files, frozenset(quarantined)
        self._max_rater_fraction = max_rater_fraction
        self._query_seconds = query_seconds
        self._prepared = False
        self._aside = tempfile.TemporaryDirectory(prefix="klimb-store-", ignore_cleanup_errors=True)
        self._connection = duckdb.connect()
        allowed = [str(segment.path) for segment in (*files.samples, *files.feedback)]
        for setting in (
            f"memory_limit = '{max(1, round(memory_limit_gigabytes * 1000))}MB'",
            f"temp_directory = {literal(self._aside.name)}",
            f"threads = {_NUM_THREADS}",
            "autoload_known_extensions = false",
            "python_enable_replacements = false",
            f"allowed_paths = [{', '.join(literal(path) for path in allowed)}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"set {setting}")
        with translate_errors(files):
            self._connection.execute(f"create view _stored as {_scan_of_samples(files)}")
            self._connection.execute(f"create view _stored_feedback as {_scan_of_feedback(files)}")
            self._connection.execute(_FEEDBACK)
            hidden = ", ".join(map(literal, sorted(self.quarantined))) or "select '' where false"
            self._connection.execute(_COUNTING_FEEDBACK.format(quarantined=hidden))

    # Not annotated with DuckDB's class: a type checker that keeps it makes its module complain when Python ends.
    def cursor(self, *, prepared: bool = True) -> Any:
        """Return a connection of its own; `prepared` makes the joined views first, which scans all ids once."""
        if prepared and not self._prepared:
            with translate_errors(self.files):
                self._prepare()
            self._prepared = True
        return self._connection.cursor()

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute(_HIDDEN)
        execute(_RATINGS.format(most=self._most_of_one_rater()))
        execute(_PLACED)
        execute("create view samples as select * exclude (file, row, is_rated_by_users) from _placed")

    def _most_of_one_rater(self) -> int:
        """Return how many ratings of one person count. Those of nobody named may be of many people: all count."""
        most = None
        if self._max_rater_fraction < 1:
            found = self._connection.execute(_NUM_RATINGS).fetchall()
            most = ratings_that_count([number for _, number in found], max_fraction=self._max_rater_fraction)
        return 2**62 if most is None else most

    def rows(
        self, sql: str, parameters: Sequence[Any] = (), *, prepared: bool = True, is_limited: bool = False
    ) -> Iterator[tuple[Any, ...]]:
        """Return the rows of a query of klimb's own, fetched in batches; `is_limited`: it has a condition in it.

        Raises:
            ValueError: what is limited took too long.
        """
        with translate_errors(self.files):
            cursor = self.cursor(prepared=prepared)
        with self.limit_time(cursor, is_limited), translate_errors(self.files):
            found = cursor.execute(sql, list(parameters))
        while True:
            with self.limit_time(cursor, is_limited), translate_errors(self.files):
                batch = found.fetchmany(_FETCH_ROWS)
            if not batch:
                return
            yield from batch

    @contextmanager
    def limit_time(self, cursor: Any, is_limited: bool = True) -> Iterator[None]:
        """End what the cursor does here after `query_seconds`.

        Raises:
            ValueError: that was needed.
        """
        timer = threading.Timer(self._query_seconds, cursor.interrupt)
        timer.daemon = True
        if is_limited:
            timer.start()
        try:
            yield
        except duckdb.InterruptException as error:
            raise ValueError(
                f"the condition or query took longer than {self._query_seconds:g} s and was ended; make it simpler, or "
                "open the store from Python with more: Store(folder, query_seconds=...)"
            ) from error
        finally:
            timer.cancel()

    def check_where(self, where: str) -> None:
        """Return if `where` is one expression over the columns of the view `samples`.

        Raises:
            ValueError: it is not, with DuckDB's message.
        """
        cursor = self.cursor()
        try:
            with self.limit_time(cursor):
                cursor.view("samples").filter(where)
        except duckdb.Error as error:
            names = ", ".join(_TYPES)
            raise ValueError(
                f"where {where!r} is not a condition on samples: {_message(error)}\n"
                f"give a DuckDB expression over {names}; for example reward >= 0.5 and source = 'rollout'"
            ) from error

    def check_query(self, sql: str) -> None:
        """Return if `sql` is one statement that only reads.

        Raises:
            ValueError: it is not.
        """
        try:
            kinds = [statement.type for statement in self._connection.extract_statements(sql)]
        except duckdb.Error as error:
            raise ValueError(f"the query is not SQL as DuckDB reads it: {_message(error)}") from error
        if kinds != [duckdb.StatementType.SELECT]:
            raise ValueError(f"a store takes one SELECT at a time, got {[kind.name for kind in kinds]}")


@contextmanager
def translate_errors(files: SegmentFiles) -> Iterator[None]:
    """Turn DuckDB's errors into ours.

    Raises:
        SegmentError: a file of the store is damaged: it is named.
        ValueError: the query cannot be answered: DuckDB's message.
    """
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        _raise_for_damaged(files)
        raise ValueError(f"the store cannot answer: {_message(error)}") from error


def _raise_for_damaged(files: SegmentFiles) -> None:
    """Read every file whole until one cannot be read; slow, and called only when something is wrong."""
    for segment in (*files.samples, *files.feedback):
        if not segment.path.exists():
            raise SegmentGone(f"{segment.path}: it was there a moment ago and is gone; open the store again")
        check_content(segment.path)


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _message(error: Exception) -> str:
    return str(error).split("\n\nLINE ")[0].strip()


def _scan_of_samples(files: SegmentFiles) -> str:
    """All sample rows with `file` (number in the listing) and `row`."""
    if not files.samples:
        return _NO_SAMPLES
    columns = ", ".join(f'{_COMPLETED.get(name, name)} as "{name}"' for name in _TYPES)
    scan = f"select *, file_index::bigint as file, file_row_number as row from {_read_parquet(files.samples)}"
    # Beside typed columns without rows: the files may all be of an older version, with fewer columns.
    return f"select {columns}, file, row from (({_NO_ROWS}) union all by name ({scan}))"


def _scan_of_feedback(files: SegmentFiles) -> str:
    types = {field.name: _sql_type(field.type) for field in FEEDBACK_SCHEMA}
    no_rows = f"select {', '.join(f'null::{kind} as {name}' for name, kind in types.items())} where false"
    if not files.feedback:
        return f"select *, 0 as file, 0 as row from ({no_rows})"
    scan = f"select *, file_index as file, file_row_number as row from {_read_parquet(files.feedback)}"
    columns = ", ".join(f"coalesce({name}, '') as {name}" if name in _LATER else name for name in types)
    return f"select {columns}, file, row from (({no_rows}) union all by name ({scan}))"


def _read_parquet(segments: Sequence[Segment]) -> str:
    paths = ", ".join(literal(str(segment.path)) for segment in segments)
    # By name: the first file may be of an older version, with fewer settings.
    return f"read_parquet([{paths}], file_row_number = true, union_by_name = true)"


def _sql_type(kind: pa.DataType) -> str:
    """Return a column's type as DuckDB writes it."""
    if pa.types.is_map(kind):
        return f"map({_sql_type(kind.key_type)}, {_sql_type(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"struct({', '.join(f'{field.name} {_sql_type(field.type)}' for field in kind.fields)})"
    return {"string": "varchar", "int64": "bigint", "double": "double"}[str(kind)]


_TYPES = {field.name: _sql_type(field.type) for field in SAMPLE_SCHEMA}
"""Columns of samples -> their types."""


_NO_ROWS = f"select {', '.join(f'null::{kind} as {name}' for name, kind in _TYPES.items())} where false"
"""All columns, and no sample."""


_NEWER_SETTINGS = {"min_new_tokens": "0", "repetition_penalty": "1.0", "stop": "[]"}
"""Settings that segments of older versions lack, with the value that changes nothing."""


def _setting(name: str) -> str:
    value = f"(sampling::{_TYPES['sampling']}).{name}"
    return f"{name} := coalesce({value}, {_NEWER_SETTINGS[name]})" if name in _NEWER_SETTINGS else f"{name} := {value}"


_SETTINGS = [field.name for field in SAMPLE_SCHEMA.field("sampling").type.fields]


_COMPLETED = {
    "sampling": f"case when sampling is null then null else struct_pack({', '.join(map(_setting, _SETTINGS))}) end",
    "prompt": f"prompt::{_TYPES['prompt']}",
    "turns": f"coalesce(turns, []::{_TYPES['turns']})",
    "tools": "coalesce(tools, '')",
    "episode": "coalesce(episode, '')",
}
"""Columns that segments of older versions lack, or lack a part of, with every setting whatever version they are of."""


_LATER = FEEDBACK_NEWER["1"]
"""Columns that older segments of feedback lack."""


_NO_SAMPLES = f"select *, 0 as file, 0::bigint as row from ({_NO_ROWS})"
"""A store without samples still has their columns."""
