"""A folder of experience: samples and people's ratings, added to from many sides, never changed, read in a stream.

Every addition is a Parquet file of its own. DuckDB says which rows are asked for; their content is then read from the
files one row group at a time, so memory does not grow with the store.

What of an addition is new, what is there already, and what contradicts what is there. Pure.
"""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from klimb.experience.feedback import Feedback
from klimb.experience.migrations import migrate_folder
from klimb.experience.quarantine import read_quarantine
from klimb.experience.queries import QUERY_SECONDS, Database, translate_errors
from klimb.experience.samples import Sample
from klimb.experience.segments import SegmentGone, as_stored, kind_of, stream_samples, write_samples
from klimb.experience.store_feedback import FEEDBACK_SCHEMA, feedback_of_row, with_floats, write_feedback
from klimb.experience.store_files import SegmentFiles, SegmentFolder

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """What came of an addition.

    Attributes:
        num_added: rows that are in the store now and were not before.
        num_duplicates: rows that were there already, with the same content.
        conflicts: ids that were there already with other content; these rows were not added.
    """

    num_added: int
    num_duplicates: int
    conflicts: tuple[str, ...]


def sort_out(
    rows: Sequence[Row], known: Iterable[Row], *, id_of: Callable[[Row], str], normal: Callable[[Row], Row]
) -> tuple[list[Row], AppendResult]:
    """Return the rows to add, in their order, and the counts. Of two rows with one id in `rows`, the first is the one.

    Args:
        rows: what is to be added.
        known: those rows of the store that have one of their ids.
        id_of: a row's id.
        normal: a row as it would be read back; only then are two rows that differ compared.
    """
    there = {id_of(row): row for row in known}
    added: list[Row] = []
    conflicts: list[str] = []
    for row in rows:
        first = there.get(id_of(row))
        if first is None:
            there[id_of(row)] = row
            added.append(row)
        elif first != row and repr(normal(first)) != repr(normal(row)):  # as texts, because NaN equals nothing
            conflicts.append(id_of(row))
    num_duplicates = len(rows) - len(added) - len(conflicts)
    return added, AppendResult(
        num_added=len(added), num_duplicates=num_duplicates, conflicts=tuple(dict.fromkeys(conflicts))
    )


_PLACE_BATCH = 10_000
"""Rows of the stream looked up in the files together."""


_MOST_LOOKS = 3
"""At a store whose files were merged into others while they were being opened."""


class Store:
    """Samples and feedback in a folder.

    Reading gives each sample once: where two files hold the same id, the first by file name. A sample that people
    rated has the mean of their ratings as its reward, and its reward_reason says so; its source stays.

    Args:
        folder: need not exist yet; it is made by the first addition. All `.parquet` files in it belong to the store.
        memory_limit_gigabytes: of DuckDB, in 10⁹ bytes; what exceeds it goes to a temporary folder.
        segment: read this one file of the folder only; nothing can be added then.
        query_seconds: a condition or query that takes longer is ended with a ValueError.
        max_rater_fraction: one named person's share of the ratings that count, as `ratings_that_count` has it; 1 counts
            all. Which of a person's ratings count is chance, and the same each time.

    Feedback of raters in quarantine (`quarantine.json`) is there and counts for nothing: the view `feedback` is without
    it, `every_feedback` has it.

    Raises:
        ValueError: the memory limit or the time is not positive, or a fraction is none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_limit_gigabytes: float = 1.0,
        segment: str = "",
        query_seconds: float = QUERY_SECONDS,
        max_rater_fraction: float = 1.0,
    ) -> None:
        if not memory_limit_gigabytes > 0:
            raise ValueError(f"memory_limit_gigabytes must be > 0, got {memory_limit_gigabytes}")
        if not query_seconds > 0:
            raise ValueError(f"query_seconds must be > 0, got {query_seconds}")
        if not 0 < max_rater_fraction <= 1:
            raise ValueError(f"max_rater_fraction must be in (0, 1], got {max_rater_fraction}; 1 counts all ratings")
        self._query_seconds, self._max_rater_fraction = query_seconds, max_rater_fraction
        self.folder = Path(folder).absolute()
        self._segments = SegmentFolder(self.folder, only=segment)
        self._memory_limit_gigabytes = memory_limit_gigabytes
        self._opened: Database | None = None
        self._can_grow = False

    def append(self, samples: Sequence[Sample], *, known: Iterable[Sample] | None = None) -> AppendResult:
        """Add the samples whose ids are not there yet, as one new file: all of them or, after a failure, none.

        Two writers at the same time each see the store as it was when they began; what both add is read once.

        Args:
            samples: to be added.
            known: those of them that are there, by `stored_samples`; without it they are looked up.

        Raises:
            ValueError: a sample has no id, or this is a single segment.
        """
        nameless = [sample for sample in samples if not sample.sample_id]
        if nameless:
            raise ValueError(f"append: {len(nameless)} samples have an empty sample_id; give each its own")
        self._check_can_grow()
        if known is None:
            known = self._known_samples([sample.sample_id for sample in samples])
        added, result = sort_out(
            samples, known, id_of=lambda sample: sample.sample_id, normal=lambda sample: as_stored([sample])[0]
        )
        if added:
            write_samples(self._segments.new_path("samples"), added)
        return result

    def append_feedback(self, rows: Sequence[Feedback], *, known: Iterable[Feedback] | None = None) -> AppendResult:
        """Add the ratings whose ids are not there yet, as one new file; their samples may come later.

        Args:
            rows: to be added.
            known: those of them that are there, by `stored_feedback`; without it they are looked up.

        Raises:
            ValueError: this is a single segment.
        """
        self._check_can_grow()
        if known is None:
            known = self._known_feedback([row.feedback_id for row in rows])
        added, result = sort_out(rows, known, id_of=lambda row: row.feedback_id, normal=with_floats)
        if added:
            write_feedback(self._segments.new_path("feedback"), added)
        return result

    def stored_samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """Return those of the samples that are there, as written: without people's ratings."""
        return self._known_samples(list(ids)) if ids else iter(())

    def stored_feedback(self, ids: Sequence[str]) -> Iterator[Feedback]:
        """Return those of the ratings that are there, by their own ids."""
        return self._known_feedback(list(ids)) if ids else iter(())

    def feedback_of(self, sample_ids: Sequence[str]) -> list[Feedback]:
        """Return all that was ever said of these samples: by sample, in the order of time; by whomever."""
        columns = ", ".join(f'"{name}"' for name in FEEDBACK_SCHEMA.names)
        sql = (
            f"select {columns} from every_feedback where sample_id in (select unnest(?::varchar[])) "
            "order by sample_id, created_at, file, row"
        )
        rows = self._database().rows(sql, [list(sample_ids)], prepared=False) if sample_ids else ()
        return list(map(feedback_of_row, rows))

    def rewards(self, ids: Sequence[str]) -> Mapping[str, float | None]:
        """Return the rewards of those of the samples that are there, with people's ratings."""
        sql = "select sample_id, reward from samples where sample_id in (select unnest(?::varchar[]))"
        return dict(self._database().rows(sql, [list(ids)])) if ids else {}

    def count(self, where: str = "") -> int:
        """Return number of samples, or of those for which `where` holds.

        Raises:
            ValueError: `where` is not a condition on samples.
            SegmentError: a file of the store is damaged or foreign.
        """
        database = self._database()
        sql = f"select count(*) from samples{_condition(database, where)}"
        ((number,),) = database.rows(sql, is_limited=bool(where.strip()))
        return number

    def samples(self, *, where: str = "", limit: int | None = None) -> Iterator[Sample]:
        """Return the samples in the order of the files' names and of the rows in them; one row group in memory.

        Args:
            where: a DuckDB condition over the fields of `Sample`, e.g. `reward >= 0.5 and source = 'rollout'`;
                `reward` is the one with people's ratings.
            limit: give this many at most.

        Raises:
            ValueError: `where` is not a condition on samples, or `limit` is negative.
            SegmentError: a file of the store is damaged or foreign.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be >= 0, got {limit}")
        database = self._database()
        condition = _condition(database, where)
        return self._placed(database, condition, limit=limit, is_limited=bool(where.strip()))

    def sample(self, sample_id: str) -> Sample:
        """Return the sample of that id.

        Raises:
            ValueError: there is none.
        """
        found = list(self._placed(self._database(), " where sample_id = ?", [sample_id]))
        if not found:
            raise ValueError(f"{self.folder}: no sample {sample_id!r} among {self.count()}; ids are exact")
        return found[0]

    def group_ids(self, *, where: str = "") -> list[str]:
        """Return the ids of all groups that hold a sample for which `where` holds, sorted."""
        database = self._database()
        sql = f"select distinct group_id from samples{_condition(database, where)} order by group_id"
        rows = database.rows(sql, is_limited=bool(where.strip()))
        return [group_id for (group_id,) in rows]

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        """Return the samples of each group, groups in the order asked for, samples by id; an unknown group is empty."""
        database = self._database()
        condition = _condition(database, where) + (" and " if where.strip() else " where ")
        condition += "group_id in (select unnest(?::varchar[]))"
        placed = self._placed(database, condition, [list(group_ids)], is_limited=bool(where.strip()))
        members: dict[str, list[Sample]] = {group_id: [] for group_id in group_ids}
        for sample in placed:
            members[sample.group_id].append(sample)
        return [sorted(members[group_id], key=lambda sample: sample.sample_id) for group_id in group_ids]

    def query(self, sql: str, *, where: str = "") -> pa.Table:
        """Return what a SELECT over the views `samples` and `feedback` gives, as an Arrow table in memory.

        Args:
            sql: one SELECT. It can read the store's files and nothing else.
            where: `samples` then holds those for which this holds; `sql` may not begin with WITH.

        Raises:
            ValueError: it is not one SELECT, or DuckDB refuses it.
        """
        database = self._database()
        if where.strip():
            sql = f"with samples as (select * from main.samples{_condition(database, where)}) {sql}"
        database.check_query(sql)
        with translate_errors(database.files):
            cursor = database.cursor()
        with database.limit_time(cursor), translate_errors(database.files):
            return cursor.sql(sql).to_arrow_table()

    def files(self) -> SegmentFiles:
        """Return the store's files at this moment.

        Raises:
            SegmentError: a Parquet file here is damaged or not of klimb.
        """
        return self._segments.look()

    def _database(self) -> Database:
        """Over the files of this moment; the one of the last call if they are the same.

        Raises:
            SegmentError: a file is damaged, or files go again and again.
        """
        for _ in range(_MOST_LOOKS - 1):
            with suppress(SegmentGone):
                return self._database_of(self._segments.look())
        return self._database_of(self._segments.look())

    def _database_of(self, files: SegmentFiles) -> Database:
        quarantined = frozenset(read_quarantine(self.folder))
        opened = self._opened
        if opened is None or (opened.files.samples, opened.files.feedback, opened.quarantined) != (
            files.samples,
            files.feedback,
            quarantined,
        ):
            opened = self._opened = Database(
                files,
                memory_limit_gigabytes=self._memory_limit_gigabytes,
                query_seconds=self._query_seconds,
                quarantined=quarantined,
                max_rater_fraction=self._max_rater_fraction,
            )
        return opened

    def _placed(
        self,
        database: Database,
        condition: str,
        parameters: Sequence[Any] = (),
        *,
        limit: int | None = None,
        is_limited: bool = False,
    ) -> Iterator[Sample]:
        """Return the samples at the places that DuckDB finds; only places and people's ratings pass through DuckDB."""
        sql = (
            "select file, row, is_rated_by_users, case when is_rated_by_users then reward end, "
            "case when is_rated_by_users then reward_reason end "
            f"from _placed{condition} order by file, row{'' if limit is None else f' limit {limit}'}"
        )
        places = database.rows(sql, parameters, is_limited=is_limited)
        while batch := list(islice(places, _PLACE_BATCH)):
            for number, in_file in groupby(batch, key=lambda place: place[0]):
                rows = list(in_file)
                stored = stream_samples(database.files.samples[number].path, [row for _, row, *_ in rows])
                for sample, (_, _, is_rated, reward, reason) in zip(stored, rows, strict=True):
                    yield replace(sample, reward=reward, reward_reason=reason) if is_rated else sample

    def _check_can_grow(self) -> None:
        """Return if rows can be added, once older segments are in the version that they will have.

        Raises:
            ValueError: this is a single segment.
        """
        if self._segments.only:
            raise ValueError(f"{self.folder / self._segments.only} is one segment; add to a store's folder instead")
        # Once: what is put there later is brought up to date when it is first looked at.
        if not self._can_grow:
            migrate_folder(self.folder)
            self._can_grow = True

    def _known_samples(self, ids: list[str]) -> Iterator[Sample]:
        """Those of the ids that are there, as written, without people's ratings."""
        database = self._database()
        sql = (
            "select min(struct_pack(file := file, row := row)) as place from _stored "
            "where sample_id in (select unnest(?::varchar[])) group by sample_id order by place"
        )
        places = [place for (place,) in database.rows(sql, [ids], prepared=False)]
        for number, in_file in groupby(places, key=lambda place: place["file"]):
            yield from stream_samples(database.files.samples[number].path, [place["row"] for place in in_file])

    def _known_feedback(self, ids: list[str]) -> Iterator[Feedback]:
        columns = ", ".join(f'"{name}"' for name in FEEDBACK_SCHEMA.names)
        sql = f"select {columns} from every_feedback where feedback_id in (select unnest(?::varchar[]))"
        return map(feedback_of_row, self._database().rows(sql, [ids], prepared=False))


def open_store(path: Path, *, memory_limit_gigabytes: float = 1.0, max_rater_fraction: float = 1.0) -> Store:
    """Return the store at a path.

    Args:
        path: a store's folder, a run's folder (its rollouts are taken), a folder of segments, or one segment.
        memory_limit_gigabytes: as for `Store`.
        max_rater_fraction: the same.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there is none of these.
        SegmentError: a Parquet file there is damaged or not of klimb.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(
                f"{path} is a file and no store: klimb import {path} --into STORE makes one of its rows, klimb start "
                f"{path} also a run file"
            )
        if kind_of(path) == "feedback":
            raise ValueError(f"{path} holds feedback only; open its folder, where the samples are")
        store = Store(
            path.parent,
            memory_limit_gigabytes=memory_limit_gigabytes,
            segment=path.name,
            max_rater_fraction=max_rater_fraction,
        )
        store.files()
        return store
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such store, run or segment")
    is_run = (path / "rollouts").is_dir()
    store = Store(
        path / "rollouts" if is_run else path,
        memory_limit_gigabytes=memory_limit_gigabytes,
        max_rater_fraction=max_rater_fraction,
    )
    files = store.files()
    if not files.samples and not files.feedback:
        raise ValueError(
            f"{store.folder} holds no samples; give a store's folder, a run's folder with rollouts, or one .parquet "
            "segment, or fill it with klimb import"
        )
    return store


def _condition(database: Database, where: str) -> str:
    if not where.strip():
        return ""
    database.check_where(where)
    return f" where ({where}\n)"
