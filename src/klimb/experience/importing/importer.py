"""Import a file into a store: read, convert, add in segments, and keep what could not be imported.

The first rows must show the file's kind, its columns, and ratings that can be read, before anything is added.
"""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from klimb.experience.feedback import Feedback
from klimb.experience.importing.cells import number
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.kinds.feedback import rating_in, read_score
from klimb.experience.importing.kinds.langfuse import TRACE
from klimb.experience.importing.parsed_row import TURNS_NOTE
from klimb.experience.importing.registry import (
    COLUMNS,
    anonymise,
    check_columns,
    convert_row,
    guess_importer,
    importer_named,
    rename_columns,
)
from klimb.experience.importing.rejects import NUM_REASONS_SHOWN, RejectFile
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.users import user_salt
from klimb.experience.reading.records import Columns, CutOff, ReadLimits, Record, Reject, Row, RowError
from klimb.experience.reading.sources import Source, check_can_be_read_again, find_source, read_records
from klimb.experience.samples import Sample
from klimb.experience.store import AppendResult, Store

RatingOf = Callable[[Row], tuple[str, object]]
"""What a row rates, and the rating as it stands there."""


def guess_kind(source: Source, limits: ReadLimits) -> Importer:
    """By the first row that can be read."""
    rejects: list[Reject] = []
    for record in read_records(source, limits):
        if isinstance(record, Row):
            return guess_importer(record)
        if isinstance(record, Reject) and len(rejects) < NUM_REASONS_SHOWN:
            rejects.append(record)
    why = "; ".join(f"{reject.place}: {reject.reason} {reject.detail}" for reject in rejects)
    raise ValueError(f"{source.name} has no row that can be read{': ' if why else ''}{why}")


def check_columns_there(source: Source, needed: Sequence[str], rules: ImportRules, limits: ReadLimits) -> None:
    """Look for the first row with the columns; where there is one, this ends.

    Raises:
        ValueError: no row has the columns that are needed, or those that the user maps.
    """
    wanted = dict.fromkeys([*(rules.columns.get(name, name) for name in needed), *rules.columns.values()])
    columns: Sequence[str] = ()
    for record in read_records(source, limits):
        if not isinstance(record, Row):
            continue
        if all(name in record.values for name in wanted):
            return
        columns = columns or [str(name) for name in record.values]
    if columns:
        known = [name for name in needed or rules.columns if name in COLUMNS]
        example = " ".join(f"{name}=NAME" for name in known)
        raise ValueError(
            f"{source.name}: no row has all of the columns {', '.join(wanted)}; there are {', '.join(columns)}. "
            + (f"Say which is which: --columns {example}" if known else "Is it a file of another kind? See --as")
        )


def check_ratings(source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits) -> None:
    """Look at all ratings, and holds none of them.

    On a scale from 1 to 5, a 1 is the worst; read as it stands, it would be the best. So one rating outside of 0 to 1
    makes all others of its file unreadable, until the user states what they stand for.

    Raises:
        ValueError: ratings of several names, whose mean would be of nothing; or one outside of 0 to 1, and neither a
            scale nor a map is stated.
    """
    is_stated = rules.scale is not None or bool(rules.value_map)
    if is_stated and rules.score_name:
        return
    names: dict[str, None] = {}
    first: tuple[str, float] | None = None
    low, high = math.inf, -math.inf
    for place, name, value in _ratings(source, rating_of, rules, limits):
        names[name] = None
        if len(names) > NUM_REASONS_SHOWN:
            break
        if value is None:
            continue
        low, high = min(low, value), max(high, value)
        if first is None and not 0 <= value <= 1:
            first = place, value
    _check_one_name(source, list(names))
    if first is not None and not is_stated:
        raise ValueError(_unscaled(*first, low=low, high=high))


def _ratings(
    source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits
) -> Iterator[tuple[str, str, float | None]]:
    """Place, name and number of each rating that is asked for; None for one that is no number."""
    for record in read_records(source, limits):
        if not isinstance(record, Row):
            continue
        try:
            row = rename_columns(record, rules)
            name, stated = rating_of(row)
        except RowError:
            continue  # it is rejected with its reason when it is imported
        if not rules.score_name or name == rules.score_name:
            yield row.place, name, _number(stated, row)


def _number(stated: object, row: Row) -> float | None:
    try:
        return number(stated, what="the rating", row=row)
    except RowError:
        return None


def _check_one_name(source: Source, names: Sequence[str]) -> None:
    if len(names) > 1:
        raise ValueError(
            f"{source.name} rates several things: {', '.join(names)}; say which of them is the reward: "
            f"--score-name {names[0]}"
        )


def _unscaled(place: str, value: float, *, low: float, high: float) -> str:
    return (
        f"{place}: the rating {value:g} is not in 0 to 1 (the file's go from {low:g} to {high:g}), and no scale is "
        "stated: nothing was imported. State the lowest and the highest rating that can be given, such as --scale 1 5, "
        "or what each stands for, such as --map 1=0 5=1. If it is 0 to 1 and other ratings are mistakes: --scale 0 1"
    )


@dataclass(kw_only=True)
class RewardRange:
    """The rewards that came, by their ends.

    Attributes:
        low: the smallest.
        high: the largest.
        are_whole: each is a whole number.
    """

    low: float = math.inf
    high: float = -math.inf
    are_whole: bool = True

    def add(self, reward: float) -> None:
        """Take in one reward."""
        self.low, self.high = min(self.low, reward), max(self.high, reward)
        self.are_whole = self.are_whole and reward == math.floor(reward)

    @property
    def look_like_points(self) -> bool:
        """Whole numbers from 0 that go beyond 1, as stars and points do."""
        return self.are_whole and self.low >= 0 and 1 < self.high < math.inf


@dataclass(kw_only=True)
class Tally:
    """Counts while an import goes on.

    Attributes:
        num_rows: records read, the rejected ones among them.
        unread: rows by the columns that hold something in them and of which nothing was taken.
        num_skipped: rows that hold no response by design (spans of a trace, scores of another name).
        num_cut_off: a last line that is still being written.
        num_samples: samples made, those that were there already among them.
        num_rated: of these with a reward.
        rewards: between what they lie.
        num_added: samples that the store did not have.
        num_duplicates: samples that it had.
        num_conflicts: samples whose id it had with other content; they are among the rejects.
        num_user_ids: user ids that were replaced by a hash.
        num_ratings: ratings made.
        num_ratings_added: ratings that the store did not have.
        provenances: samples by the provenance of their log-probabilities.
        notes: samples by what was noted of their log-probabilities.
        assumed: samples by the sampler settings that nobody stated and that were taken as off.
        models_of_ids: samples whose token strings got ids of the user's model, by the model that their rows name.
    """

    num_rows: int = 0
    unread: Counter[str] = field(default_factory=Counter[str])
    num_skipped: int = 0
    num_cut_off: int = 0
    num_samples: int = 0
    num_rated: int = 0
    rewards: RewardRange = field(default_factory=RewardRange)
    num_added: int = 0
    num_duplicates: int = 0
    num_conflicts: int = 0
    num_user_ids: int = 0
    num_ratings: int = 0
    num_ratings_added: int = 0
    provenances: Counter[str] = field(default_factory=Counter[str])
    notes: Counter[str] = field(default_factory=Counter[str])
    assumed: Counter[str] = field(default_factory=Counter[str])
    models_of_ids: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        kind: of the rows.
        summary: what rows of this kind are, for people.
        why_kind: why, if it was guessed; empty if it was given.
        tally: the counts.
        rejected: rejects by reason, the most frequent first.
        examples: for each reason, place and detail of the first row.
        reject_file: where they are; None without any.
        num_waiting: ratings in the store whose sample has not come yet; None if no ratings were imported.
        passed_over: files of a folder that are not data.
    """

    kind: str
    summary: str
    why_kind: str
    tally: Tally
    rejected: Mapping[str, int]
    examples: Mapping[str, str]
    reject_file: Path | None
    num_waiting: int | None
    passed_over: Sequence[str] = ()

    @property
    def num_rejected(self) -> int:
        """Rejects of all reasons."""
        return sum(self.rejected.values())


SEGMENT_ROWS = 50_000


SEGMENT_CHARACTERS = 64 * 1024**2
"""Of raw rows; whichever comes first ends a segment, which bounds the memory of an import."""


HASH_DIGITS = 32


CONFLICT = "an id that is in the store with other content"


FIRST_STAYS = "the store keeps the first, as it was mapped; another mapping goes into a new store: --into NEW"


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
    check_columns(rules)
    found = _find_again(source)
    importer = importer_named(kind) if kind else guess_kind(found, limits)
    if scores is not None and importer.name != "langfuse":
        raise ValueError(f"--scores goes with langfuse's observations, and these rows are {importer.name}")
    check_columns_there(found, importer.needed, rules, limits)
    found_scores = _find_again(scores) if scores is not None else None
    rated = found if importer.rating_in else found_scores
    if rated is not None:
        check_ratings(rated, importer.rating_in or rating_in, rules, limits)
    with RejectFile(store.folder, found.stem) as rejects:
        run = _Run(store, importer.name, rules, rejects, is_strict=is_strict)
        run.take(read_records(found, limits), importer.read)
        if found_scores is not None:
            run.take(read_records(found_scores, limits), partial(read_score, last_of_trace=run.last_of_trace()))
    _check_something_came(found, run.tally, rejects)
    num_waiting = _num_waiting(store) if run.tally.num_ratings else None
    report = report_of(run.tally, rejects, importer, is_guessed=not kind, num_waiting=num_waiting)
    return replace(report, passed_over=found.passed_over)


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
        """Import the records, to the last."""
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
            row = anonymise(row, self._rules, salt=self._salt_for_user)
            kept = row.raw
            row = rename_columns(row, self._rules)
            made = convert_row(row, read, self._rules, kind=self._kind)
            for part in made:
                if isinstance(part, Sample):
                    self._check_group(part, row.place)
        except RowError as error:
            self._reject(Reject(row.place, error.reason, error.detail, kept))
            return
        self.tally.num_skipped += not made
        self.tally.unread.update(row.values.unread if made and isinstance(row.values, Columns) else ())
        for part in made:
            if isinstance(part, Sample):
                self._keep(part, row.place)
            else:
                self._ratings.append((part, row.place))
            self._num_characters += len(row.raw)
        if len(self._samples) + len(self._ratings) >= SEGMENT_ROWS or self._num_characters >= SEGMENT_CHARACTERS:
            self._flush()

    def _salt_for_user(self) -> bytes:
        """Return the user's own salt, else that of the store, which is made for the first user that is met."""
        self.tally.num_user_ids += 1
        if not self._rules.salt:
            self._rules = replace(self._rules, salt=user_salt(self._store.folder))
        return self._rules.salt

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
        for counts, name in (
            (tally.notes, "log_mu_note"),
            (tally.notes, TURNS_NOTE),
            (tally.assumed, "sampling_assumed"),
        ):
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


def _check_something_came(source: Source, tally: Tally, rejects: RejectFile) -> None:
    if tally.num_samples or tally.num_ratings:
        return
    if not tally.num_rows:
        raise ValueError(f"{source.name} has no rows{' but one that is cut off' if tally.num_cut_off else ''}")
    if not rejects.counts:
        raise ValueError(f"{source.name}: none of its {tally.num_rows} rows holds a response or a rating of that name")
    top = "; ".join(f"{count} × {reason}" for reason, count in rejects.counts.most_common(NUM_REASONS_SHOWN))
    first = rejects.examples[next(iter(rejects.counts))]
    raise ValueError(
        f"{source.name}: none of its {tally.num_rows} rows could be imported: {top}; the first is {first}. Nothing was "
        f"added to the store; the rows with their reasons are in {rejects.path}"
    )


def _num_waiting(store: Store) -> int:
    table = store.query("select count(*) as waiting from feedback anti join samples using (sample_id)")
    return int(table.column("waiting")[0].as_py())
