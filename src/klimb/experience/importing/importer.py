"""Import a file into a store: read, convert, add in segments, and keep what could not be imported.

The first rows must show the file's kind, its columns, and ratings that can be read, before anything is added.
"""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pyarrow as pa

from klimb.experience.feedback import Feedback
from klimb.experience.importing.arrivals import Arrival, SortedArrivals, sort_arrivals
from klimb.experience.importing.first_look import (
    check_columns_there,
    check_columns_used,
    check_ignored,
    check_ratings,
    guess_kind,
    guess_of,
)
from klimb.experience.importing.guessing import with_guess
from klimb.experience.importing.history import record_import
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.kinds.feedback import rating_in, read_score
from klimb.experience.importing.kinds.langfuse import TRACE
from klimb.experience.importing.parsed_row import PROMPT_NOTE, TURNS_NOTE
from klimb.experience.importing.redaction import redact_part, redact_raw
from klimb.experience.importing.registry import (
    OWN_EXPORT,
    anonymise,
    convert_row,
    importer_named,
    rename_columns,
    user_rules,
)
from klimb.experience.importing.rejects import NUM_REASONS_SHOWN, RejectFile
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.served_answers import join_served
from klimb.experience.importing.tally import ImportReport, Tally
from klimb.experience.importing.users import text_without_users, user_salt
from klimb.experience.importing.whole_columns import ReadAgain, settle
from klimb.experience.reading.records import Columns, CutOff, ReadLimits, Reject, Row, RowError, UnsettledError
from klimb.experience.reading.sources import Source, check_can_be_read_again, find_source, read_records
from klimb.experience.samples import Sample
from klimb.experience.segments import as_stored
from klimb.experience.store import Store

SEGMENT_ROWS = 50_000


SEGMENT_CHARACTERS = 64 * 1024**2
"""Of raw rows; whichever comes first ends a segment, which bounds the memory of an import."""


COLLECT_AFTER = 50_000
"""Objects made and not freed, after which Python looks for cycles while rows are read."""


HASH_DIGITS = 32


_UNSTORABLE = (pa.ArrowException, OverflowError, TypeError, ValueError)
"""What a file is refused with for one value of it: an integer beyond 64 bits, half a character."""


def import_rows(
    store: Store,
    source: object,
    *,
    kind: str = "",
    rules: ImportRules | None = None,
    limits: ReadLimits | None = None,
    scores: object = None,
    is_strict: bool = False,
) -> ImportReport:
    """Add the rows of a file, or of what else `read_records` takes, to a store; the same rows again add nothing.

    Rows that cannot be imported go to `rejected/` in the store's folder, and the import goes on. Before anything is
    added, all ratings of the file are looked at: one off an unstated scale stops the import.

    Args:
        store: need not exist yet.
        source: a path, a list of paths, a folder, a glob text, or an object with rows: a data frame, an Arrow table, a
            data set, a list of dicts. Rows are read up to three times, so an iterator is refused: give a list, or a
            function that returns the iterator.
        kind: one of `IMPORTERS`, or `python:module.name`; empty to guess it from the first row.
        rules: what the user states; user ids are hashed with the store's own salt unless it gives one.
        limits: bounds of reading.
        scores: of Langfuse, the file, or the files, with the scores of these observations.
        is_strict: stop at the first row that cannot be imported; segments added before it stay.

    Raises:
        ValueError: a file broken as a whole, no row imported, ratings of several names or off their scale, columns that
            no row has, or a row with `is_strict`.
        FileNotFoundError: there is no such file.
    """
    rules, limits = rules or ImportRules(), limits or ReadLimits()
    found = _find_again(source)
    importer = importer_named(kind) if kind else guess_kind(found, rules, limits)
    found = replace(found, split=importer.split)
    if scores is not None and importer.name != "langfuse":
        raise ValueError(f"--scores goes with langfuse's observations, and these rows are {importer.name}")
    guess = guess_of(found, importer, rules, limits)
    rules = with_guess(rules, guess)
    found_scores = _find_again(scores) if scores is not None else None
    _check_first(found, found_scores, importer, rules, limits)
    with _rare_collections(), RejectFile(store.folder, found.stem) as rejects:
        run = _Run(store, importer, rules, rejects, is_strict=is_strict)
        run.take(lambda: read_records(found, limits), importer.read)
        if found_scores is not None:
            read = partial(read_score, last_of_trace=run.last_of_trace())
            run.take(lambda: read_records(found_scores, limits), read)
    _check_something_came(found, run.tally, rejects)
    num_waiting = _num_waiting(store) if run.tally.num_ratings else None
    record_import(
        store.folder,
        found.name,
        kind=importer.name,
        num_rows=run.tally.num_rows,
        num_added=run.tally.num_added + run.tally.num_ratings_added,
        rejected=rejects.counts,
        reject_file=rejects.path,
    )
    report = report_of(run.tally, rejects, importer, is_guessed=not kind, num_waiting=num_waiting)
    return replace(report, passed_over=found.passed_over, guess=guess, date_order=run.date_order)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for cycles after many more objects than it does by itself.

    Rows make many objects and no cycles, and each search goes through all that is held for a segment: it would cost a
    tenth of an import.
    """
    usual = gc.get_threshold()
    gc.set_threshold(max(usual[0], COLLECT_AFTER) if usual[0] else 0, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _check_first(
    found: Source, scores: Source | None, importer: Importer, rules: ImportRules, limits: ReadLimits
) -> None:
    """Return if the files have the columns and the ratings that are asked for; nothing is added before."""
    check_columns_used(found, importer, rules, limits)
    check_columns_there(found, importer.needed, rules, limits)
    check_ignored(found, importer, rules, limits)
    rated = found if importer.rating_in else scores
    if rated is not None:
        check_ratings(rated, importer.rating_in or rating_in, rules, limits)


def _find_again(source: object) -> Source:
    found = find_source(source)
    check_can_be_read_again(found)
    return found


def report_of(
    tally: Tally, rejects: RejectFile, importer: Importer, *, is_guessed: bool, num_waiting: int | None
) -> ImportReport:
    """Return the counts of a finished import, in one value that no longer changes."""
    return ImportReport(
        kind=importer.name,
        summary=importer.summary,
        why_kind=importer.because if is_guessed else "",
        tally=tally,
        rejected=dict(rejects.counts.most_common()),
        examples=rejects.examples,
        reject_file=rejects.path,
        num_waiting=num_waiting,
    )


class _Run:
    """One import while it goes on: what is not yet in the store, and what has to be remembered of what is."""

    def __init__(
        self, store: Store, importer: Importer, rules: ImportRules, rejects: RejectFile, *, is_strict: bool
    ) -> None:
        self.tally = Tally()
        self.rejects = rejects
        self._store, self._importer, self._rules, self._is_strict = store, importer, rules, is_strict
        self._read_again: ReadAgain = lambda: iter(())
        self._arrivals: list[Arrival] = []
        self._num_parts = 0
        self._num_characters = 0
        self._prompts: dict[str, tuple[str, str]] = {}
        self._last: dict[str, tuple[float, str]] = {}

    @property
    def date_order(self) -> str:
        """Order of dates of three numbers; empty where no date needed it."""
        return self._rules.dates

    def take(self, read_again: ReadAgain, read: ReadRow) -> None:
        """Import the records, to the last."""
        self._read_again = read_again
        for record in read_again():
            if isinstance(record, CutOff):
                self.tally.num_cut_off += 1
                continue
            self.tally.num_rows += 1
            if isinstance(record, Reject):
                self._reject(replace(record, text=self._unread(record.text)))
            else:
                self._take_row(record, read)
        self._flush()

    def last_of_trace(self) -> Mapping[str, str]:
        """Trace -> its last generation by time: the one whose answer was seen."""
        return {trace: sample_id for trace, (_, sample_id) in self._last.items()}

    def _take_row(self, row: Row, read: ReadRow) -> None:
        rules, kind, kept = self._rules, self._importer.name, ""
        try:
            row = anonymise(row, rules, salt=self._salt_for_user, kind=kind, note_prose=self._note_prose)
            kept = row.raw
            row, made = self._convert(row, read)
            for part in made:
                if isinstance(part, Sample):
                    self._check_group(part, row.place)
        except RowError as error:
            self._reject(Reject(row.place, error.reason, error.detail, kept))
            return
        if not made:
            self.tally.held_nothing[self._importer.nothing] += 1
            return
        if isinstance(row.values, Columns):
            for name in row.values.unread:
                self.tally.unread[name] += 1
            self.tally.add_remarks(row.values.remarks, row.place)
        self._arrivals.append(Arrival(place=row.place, raw=row.raw, made=made))
        self._num_parts += len(made)
        self._num_characters += len(row.raw) * len(made)
        if self._num_parts >= SEGMENT_ROWS or self._num_characters >= SEGMENT_CHARACTERS:
            self._flush()

    def _convert(self, row: Row, read: ReadRow) -> tuple[Row, Sequence[Sample | Feedback]]:
        """Return the row under our names, and what it becomes; where its column has to say how, that is asked first."""
        renamed = rename_columns(row, self._rules)
        try:
            made = convert_row(renamed, read, self._rules, kind=self._importer.name)
        except UnsettledError as error:
            self._settle(error, row)
            return self._convert(row, read)
        return renamed, self._redacted(made, renamed)

    def _settle(self, error: UnsettledError, row: Row) -> None:
        """Ask the whole column how this cell is to be read; raises ValueError if it does not say."""
        try:
            self._rules = settle(error, row, self._rules, self._read_again)
        except ValueError as unsettled:
            num_added = self.tally.num_added + self.tally.num_ratings_added
            if not num_added:
                self.rejects.discard()
            stay = f"{num_added:,} rows before it were added, and count once if the file is imported again"
            raise ValueError(f"{unsettled}. {stay if num_added else 'Nothing was added'}") from error

    def _salt_for_user(self) -> bytes:
        """Return the user's own salt, else that of the store, which is made for the first user that is met."""
        self.tally.num_user_ids += 1
        if not self._rules.salt:
            self._rules = replace(self._rules, salt=user_salt(self._store.folder))
        return self._rules.salt

    def _note_prose(self) -> None:
        self.tally.num_prose_users += 1

    def _unread(self, text: str) -> str:
        """Return the text of a record that is no row as it may be kept."""
        if self._rules.keep_users:
            return text
        return text_without_users(text, user_rules(self._rules, salt=self._salt_for_user))

    def _redacted(self, made: Sequence[Sample | Feedback], row: Row) -> Sequence[Sample | Feedback]:
        """Return the parts without personal data, if that is asked for."""
        if self._rules.redact is None:
            return made
        redacted = [redact_part(part, self._rules.redact) for part in made]
        self.tally.num_redacted += any(new != old for new, old in zip(redacted, made, strict=True))
        return redacted

    def _check_group(self, sample: Sample, place: str) -> None:
        """Refuse a group of several prompts: a baseline over them would compare what cannot be compared."""
        group, prompt_hash = sample.group_id[: -HASH_DIGITS - 1], sample.group_id[-HASH_DIGITS:]
        if not group:
            return
        known_hash, known_place = self._prompts.setdefault(group, (prompt_hash, place))
        if known_hash != prompt_hash:
            raise RowError(
                "a group with different prompts", f"group {group[:80]!r} has another prompt at {known_place}"
            )

    def _flush(self) -> None:
        arrivals: Sequence[Arrival] = self._arrivals
        self._arrivals, self._num_parts, self._num_characters = [], 0, 0
        if not arrivals:
            return
        if self._importer.is_in_front:
            joined = join_served(self._store, arrivals)
            arrivals = joined.arrivals
            self.tally.num_joined += joined.num_joined
        try:
            found = self._add(arrivals)
        except _UNSTORABLE:
            arrivals = [arrival for arrival in arrivals if self._can_be_stored(arrival)]
            found = self._add(arrivals)
        for number, arrival in enumerate(arrivals):
            self._count(number, arrival, found)

    def _add(self, arrivals: Sequence[Arrival]) -> SortedArrivals:
        """Add what is new of the rows, as one file of samples and one of ratings."""
        found = sort_arrivals(self._store, arrivals, is_own_export=self._importer.name == OWN_EXPORT)
        samples = [part for part in found.added if isinstance(part, Sample)]
        ratings = [part for part in found.added if isinstance(part, Feedback)]
        if samples:
            self._store.append(samples, known=())
        if ratings or found.later:
            self._store.append_feedback([*ratings, *found.later], known=())
        return found

    def _can_be_stored(self, arrival: Arrival) -> bool:
        """Whether no file would refuse what the row became; a row of which one does is rejected."""
        try:
            as_stored([part for part in arrival.made if isinstance(part, Sample)])
            "".join(f"{part.feedback_id}{part.comment}" for part in arrival.made if isinstance(part, Feedback)).encode()
        except _UNSTORABLE as error:
            self._reject(Reject(arrival.place, "what no file can hold", str(error)[:200], arrival.raw))
            return False
        return True

    def _count(self, number: int, arrival: Arrival, found: SortedArrivals) -> None:
        if number in found.refused:
            error = found.refused[number]
            self.tally.num_conflicts += 1
            self._reject(Reject(arrival.place, error.reason, error.detail, arrival.raw))
            return
        tally = self.tally
        tally.num_rows_in += found.gives(number)
        tally.num_rows_there += not found.gives(number)
        tally.num_later_ratings += found.num_later.get(number, 0)
        for part, fate in zip(arrival.made, found.fates[number], strict=True):
            if isinstance(part, Sample):
                tally.num_added += fate == "new"
                tally.num_duplicates += fate != "new"
                tally.num_written_otherwise += fate == "otherwise"
                self._keep(part)
            else:
                tally.num_ratings += 1
                tally.num_ratings_added += fate == "new"

    def _keep(self, sample: Sample) -> None:
        tally = self.tally
        tally.num_samples += 1
        tally.provenances[sample.log_mu_provenance] += 1
        if sample.reward is not None:
            tally.num_rated += 1
            tally.rewards.add(sample.reward)
        if sample.tokenizer:
            tally.models_of_ids[sample.model] += 1
        for counts, name in (
            (tally.notes, "log_mu_note"),
            (tally.notes, TURNS_NOTE),
            (tally.notes, PROMPT_NOTE),
            (tally.assumed, "sampling_assumed"),
        ):
            if name in sample.metadata:
                counts[sample.metadata[name].partition(": ")[0]] += 1
        if TRACE in sample.metadata:
            entry = (sample.created_at, sample.sample_id)
            trace = sample.metadata[TRACE]
            self._last[trace] = max(entry, self._last.get(trace, entry))

    def _reject(self, reject: Reject) -> None:
        if self._rules.redact is not None:
            reject = replace(
                reject, text=redact_raw(reject.text, self._rules.redact), detail=self._rules.redact(reject.detail)
            )
        if self._is_strict:
            raise ValueError(
                f"{reject.place}: {reject.reason}{': ' if reject.detail else ''}{reject.detail}; without --strict such "
                "rows are put aside and the import goes on"
            )
        self.tally.num_rows_refused += 1
        self.rejects.add(reject)


def _check_something_came(source: Source, tally: Tally, rejects: RejectFile) -> None:
    if tally.num_rows_in or tally.num_rows_there or tally.num_conflicts:
        return
    if not tally.num_rows:
        raise ValueError(f"{source.name} has no rows{' but one that is cut off' if tally.num_cut_off else ''}")
    if not rejects.counts:
        raise ValueError(
            f"{source.name}: none of its {tally.num_rows} rows holds a response or a rating; they are "
            f"{', '.join(tally.held_nothing)}"
        )
    top = "; ".join(f"{count} × {reason}" for reason, count in rejects.counts.most_common(NUM_REASONS_SHOWN))
    first = rejects.examples[next(iter(rejects.counts))]
    raise ValueError(
        f"{source.name}: none of its {tally.num_rows} rows could be imported: {top}; the first is {first}. Nothing was "
        f"added to the store; the rows with their reasons are in {rejects.path}"
    )


def _num_waiting(store: Store) -> int:
    table = store.query("select count(*) as waiting from feedback anti join samples using (sample_id)")
    return int(table.column("waiting")[0].as_py())
