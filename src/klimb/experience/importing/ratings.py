"""Ratings that stand in one row with what they rate: of several people, and of several things."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from klimb.experience.feedback import Feedback
from klimb.experience.importing.parsed_row import ParsedRow, hash_of
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import Sample

ValueOf = Callable[[object, ImportRules, Row], float | None]
"""A rating as it stands in its row -> the reward it stands for; None for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """One rating as its row has it.

    Attributes:
        name: what was asked.
        value: as it stands there; None for a comment alone.
        entry: what the rating was read from; it is kept with it.
        own_id: of the rating as it stands: another one once it was changed. Empty for a hash of what it says.
        comment: the person's words.
        user: who rated, hashed.
        created_at: seconds since the epoch.
    """

    name: str
    value: object
    entry: Mapping[str, object]
    own_id: str = ""
    comment: str = ""
    user: str = ""
    created_at: float = 0.0


def with_ratings(
    found: ParsedRow, given: Iterable[Given], row: Row, rules: ImportRules, *, value_of: ValueOf = rating
) -> list[ParsedRow | Feedback]:
    """Return the response and a rating of it for each that counts: those of the name that the user asks for.

    The response has no reward of its own, so that it stays what it is when somebody changes their mind.

    Raises:
        RowError: ratings of several things, of which none is asked for; or one that cannot be read.
    """
    found = replace(found, row_id=found.row_id or hash_of(row.raw))
    kept = [each for each in given if rules.score_name in ("", each.name) and (each.value is not None or each.comment)]
    check_one_name([each.name for each in kept if each.value is not None])
    sample_id = sample_id_of(found)
    return [found, *(_as_feedback(each, sample_id, row, rules, value_of) for each in kept)]


def sample_id_of(found: ParsedRow) -> str:
    """Return the id by which a rating in the same row names the response."""
    return f"{found.row_id}#{found.part}" if found.part else found.row_id


def ratings_of_samples(rating: Feedback, samples: Sequence[Sample]) -> Sequence[Feedback]:
    """Return the rating of each sample that a response of its own row became.

    The user may ask for other ids than the row's, and a conversation may become a sample of each turn. A rating of
    what is in another row stays as it is.
    """
    if not samples:
        return [rating]
    if len(samples) == 1:
        return [replace(rating, sample_id=samples[0].sample_id)]
    return [
        replace(rating, feedback_id=f"{rating.feedback_id}-{number}", sample_id=sample.sample_id)
        for number, sample in enumerate(samples)
    ]


def check_one_name(names: Iterable[str]) -> None:
    """Raise RowError for ratings of several things: their mean would be of nothing."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) > 1:
        raise RowError("ratings of several things", f"{', '.join(distinct)[:200]}; choose one: --score-name NAME")


def name_unread(row: Row, what: str) -> None:
    """Name a part of a cell that was looked up and left out, for the list of what was not used."""
    if isinstance(row.values, Columns):
        row.values.also_unread.add(what)


def pairs_of(given: Sequence[Given]) -> list[tuple[str, object]]:
    """Return what is rated and each rating as it stands there."""
    return [(each.name, each.value) for each in given if each.value is not None]


def _as_feedback(given: Given, sample_id: str, row: Row, rules: ImportRules, value_of: ValueOf) -> Feedback:
    value = value_of(given.value, rules, row)
    if value is not None and abs(value) > rules.max_reward:
        raise RowError("a rating beyond the cap", f"{value:g}, and at most {rules.max_reward:g} was allowed")
    raw = json.dumps(given.entry, ensure_ascii=False, default=str, sort_keys=True)
    return Feedback(
        feedback_id=given.own_id or hash_of(sample_id, given.name, given.user, str(given.created_at), raw),
        sample_id=sample_id,
        value=value,
        name=given.name,
        comment=given.comment,
        user=given.user,
        created_at=given.created_at,
        raw=raw,
    )
