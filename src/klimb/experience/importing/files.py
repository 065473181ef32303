"""A file into a store: read, convert, add in segments, and keep what could not be imported."""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from klimb.experience.importing.converting import anonymous, check_columns, converted
from klimb.experience.importing.first_look import check_columns_there, check_ratings, guessed_kind
from klimb.experience.importing.kinds.feedback import rating_in, read_score
from klimb.experience.importing.kinds.langfuse import TRACE
from klimb.experience.importing.reading import read_records
from klimb.experience.importing.registry import Importer, ReadRow, importer_named
from klimb.experience.importing.rejects import NUM_REASONS_SHOWN, RejectFile
from klimb.experience.importing.report import ImportReport, Tally
from klimb.experience.importing.rows import CutOff, ReadLimits, Record, Reject, Row, RowError
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.users import user_salt
from klimb.experience.samples import Sample
from klimb.experience.store import AppendResult, Store
from klimb.experience.store_feedback import Feedback

SEGMENT_ROWS = 50_000
SEGMENT_CHARACTERS = 64 * 1024**2
"""Of raw rows; whichever comes first ends a segment, which bounds the memory of an import."""

HASH_DIGITS = 32
CONFLICT = "an id that is in the store with other content"
FIRST_STAYS = "the store keeps the first, as it was mapped; another mapping goes into a new store: --into NEW"


def import_file(
    store: Store,
    path: Path,
    *,
    kind: str = "",
    rules: ImportRules | None = None,
    limits: ReadLimits | None = None,
    scores: Path | None = None,
    is_strict: bool = False,
) -> ImportReport:
    """Adds the rows of a file to a store; a file that is imported again adds nothing.

    Rows that cannot be imported go to `rejected/` in the store's folder, and the import goes on. Before anything is
    added, all ratings of the file are looked at: one off an unstated scale stops the import.

    Args:
        store: need not exist yet.
        path: .jsonl, .json, .csv (each also with .gz) or .parquet.
        kind: one of `IMPORTERS`; empty to guess it from the first row.
        rules: what the user states; user ids are hashed with the store's own salt unless it gives one.
        limits: bounds of reading.
        scores: of Langfuse, the file with the scores of these observations.
        is_strict: stop at the first row that cannot be imported; segments added before it stay.

    Raises:
        ValueError: a file broken as a whole, no row imported, ratings of several names or off their scale, columns that
            no row has, or a row with `is_strict`.
        FileNotFoundError: there is no such file.
    """
    rules, limits = rules or ImportRules(), limits or ReadLimits()
    check_columns(rules)
    importer = importer_named(kind) if kind else guessed_kind(path, limits)
    if scores is not None and importer.name != "langfuse":
        raise ValueError(f"--scores goes with langfuse's observations, and these rows are {importer.name}")
    check_columns_there(path, importer.needed, rules, limits)
    rated = path if importer.rating_in else scores
    if rated is not None:
        check_ratings(rated, importer.rating_in or rating_in, rules, limits)
    with RejectFile(store.folder, path) as rejects:
        run = _Run(store, importer.name, rules, rejects, is_strict=is_strict)
        run.take(read_records(path, limits), importer.read)
        if scores is not None:
            run.take(read_records(scores, limits), partial(read_score, last_of_trace=run.last_of_trace()))
    _check_something_came(path, run.tally, rejects)
    num_waiting = _num_waiting(store) if run.tally.num_ratings else None
    return report_of(run.tally, rejects, importer, is_guessed=not kind, num_waiting=num_waiting)


def report_of(
    tally: Tally, rejects: RejectFile, importer: Importer, *, is_guessed: bool, num_waiting: int | None
) -> ImportReport:
    """The counts of a finished import, in one value that no longer changes."""
    return ImportReport(
        kind=importer.name,
        why_kind=importer.because if is_guessed else "",
        tally=tally,
        rejected=dict(rejects.counts.most_common()),
        examples=rejects.examples,
        reject_file=rejects.path,
        num_waiting=num_waiting,
    )


class _Run:
    """One import while it goes on: what is not yet in the store, and what has to be remembered of what is."""

    def __init__(self, store: Store, kind: str, rules: ImportRules, rejects: RejectFile, *, is_strict: bool) -> None:
        self.tally = Tally()
        self.rejects = rejects
        self._store, self._kind, self._rules, self._is_strict = store, kind, rules, is_strict
        self._samples: list[tuple[Sample, str]] = []
        self._ratings: list[tuple[Feedback, str]] = []
        self._num_characters = 0
        self._prompts: dict[str, tuple[str, str]] = {}
        self._last: dict[str, tuple[float, str]] = {}

    def take(self, records: Iterator[Record], read: ReadRow) -> None:
        """Imports the records, to the last."""
        for record in records:
            self.tally.num_rows += 1
            if isinstance(record, CutOff):
                self.tally.num_rows -= 1
                self.tally.num_cut_off += 1
            elif isinstance(record, Reject):
                self._reject(record)
            else:
                self._take_row(record, read)
        self._flush()

    def last_of_trace(self) -> Mapping[str, str]:
        """Trace -> its last generation by time: the one whose answer was seen."""
        return {trace: sample_id for trace, (_, sample_id) in self._last.items()}

    def _take_row(self, row: Row, read: ReadRow) -> None:
        kept = ""
        try:
            row = anonymous(row, self._rules, salt=self._salt_for_user)
            kept = row.raw
            made = converted(row, read, self._rules, kind=self._kind)
            for part in made:
                if isinstance(part, Sample):
                    self._check_group(part, row.place)
        except RowError as error:
            self._reject(Reject(row.place, error.reason, error.detail, kept))
            return
        self.tally.num_skipped += not made
        for part in made:
            if isinstance(part, Sample):
                self._keep(part, row.place)
            else:
                self._ratings.append((part, row.place))
            self._num_characters += len(row.raw)
        if len(self._samples) + len(self._ratings) >= SEGMENT_ROWS or self._num_characters >= SEGMENT_CHARACTERS:
            self._flush()

    def _salt_for_user(self) -> bytes:
        """The user's own salt, else that of the store, which is made for the first user that is met."""
        self.tally.num_user_ids += 1
        if not self._rules.salt:
            self._rules = replace(self._rules, salt=user_salt(self._store.folder))
        return self._rules.salt

    def _check_group(self, sample: Sample, place: str) -> None:
        """A group that the file names has one prompt: a baseline over several would compare what cannot be."""
        group, prompt_hash = sample.group_id[: -HASH_DIGITS - 1], sample.group_id[-HASH_DIGITS:]
        if not group:
            return
        known_hash, known_place = self._prompts.setdefault(group, (prompt_hash, place))
        if known_hash != prompt_hash:
            raise RowError(
                "a group with different prompts", f"group {group[:80]!r} has another prompt at {known_place}"
            )

    def _keep(self, sample: Sample, place: str) -> None:
        self._samples.append((sample, place))
        tally = self.tally
        tally.num_samples += 1
        tally.provenances[sample.log_mu_provenance] += 1
        if sample.reward is not None:
            tally.num_rated += 1
            tally.rewards.add(sample.reward)
        if sample.tokenizer:
            tally.models_of_ids[sample.model] += 1
        for counts, name in ((tally.notes, "log_mu_note"), (tally.assumed, "sampling_assumed")):
            if name in sample.metadata:
                counts[sample.metadata[name].partition(": ")[0]] += 1
        if TRACE in sample.metadata:
            entry = (sample.created_at, sample.sample_id)
            trace = sample.metadata[TRACE]
            self._last[trace] = max(entry, self._last.get(trace, entry))

    def _flush(self) -> None:
        samples, ratings = self._samples, self._ratings
        self._samples, self._ratings, self._num_characters = [], [], 0
        if samples:
            result = self._store.append([sample for sample, _ in samples])
            self.tally.num_added += result.num_added
            self.tally.num_duplicates += result.num_duplicates
            places = {sample.sample_id: (place, sample.raw) for sample, place in samples}
            self._reject_conflicts(result, places)
        if ratings:
            result = self._store.append_feedback([rating for rating, _ in ratings])
            self.tally.num_ratings += len(ratings)
            self.tally.num_ratings_added += result.num_added
            self._reject_conflicts(result, {rating.feedback_id: (place, rating.raw) for rating, place in ratings})

    def _reject_conflicts(self, result: AppendResult, places: Mapping[str, tuple[str, str]]) -> None:
        for sample_id in result.conflicts:
            self.tally.num_conflicts += 1
            place, raw = places[sample_id]
            self._reject(Reject(place, CONFLICT, f"{sample_id[:80]!r}; {FIRST_STAYS}", raw))

    def _reject(self, reject: Reject) -> None:
        if self._is_strict:
            raise ValueError(
                f"{reject.place}: {reject.reason}{': ' if reject.detail else ''}{reject.detail}; without --strict such "
                "rows are put aside and the import goes on"
            )
        self.rejects.add(reject)


def _check_something_came(path: Path, tally: Tally, rejects: RejectFile) -> None:
    if tally.num_samples or tally.num_ratings:
        return
    if not tally.num_rows:
        raise ValueError(f"{path} has no rows{' but one that is cut off' if tally.num_cut_off else ''}")
    if not rejects.counts:
        raise ValueError(f"{path}: none of its {tally.num_rows} rows holds a response or a rating of that name")
    top = "; ".join(f"{count} × {reason}" for reason, count in rejects.counts.most_common(NUM_REASONS_SHOWN))
    first = rejects.examples[next(iter(rejects.counts))]
    raise ValueError(
        f"{path}: none of its {tally.num_rows} rows could be imported: {top}; the first is {first}. Nothing was "
        f"added to the store; the rows with their reasons are in {rejects.path}"
    )


def _num_waiting(store: Store) -> int:
    table = store.query("select count(*) as waiting from feedback anti join samples using (sample_id)")
    return int(table.column("waiting")[0].as_py())
