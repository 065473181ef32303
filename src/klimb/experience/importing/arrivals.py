"""Rows on their way into a store: which are new, there already, a later rating of what is there, or contradict it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from klimb.experience.feedback import Feedback
from klimb.experience.importing.parsed_row import hash_of
from klimb.experience.reading.records import RowError
from klimb.experience.samples import Sample
from klimb.experience.segments import as_stored
from klimb.experience.store import Store
from klimb.experience.store_feedback import with_floats

Made = Sample | Feedback


Fate = Literal["new", "there", "otherwise", "later", "refused"]
"""Of a sample or a rating: the store has none of its id; it has the same; it has the same, made of a row that differs
in what is not read; it has the same with another rating; it has another one."""


CONFLICT = "an id that is in the store with other content"


ANOTHER_MAPPING = "the store keeps the first, as it was mapped; another mapping goes into a new store: --into NEW"


NOT_UNIQUE = "the first stays; if ids of this file are not unique: --ids content, or --columns id=NAME of one that is"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """What one row of a file becomes, before it is known what of that is new."""

    place: str
    raw: str
    made: Sequence[Made]


@dataclass(kw_only=True)
class SortedArrivals:
    """Arrivals, sorted out against what is there.

    Attributes:
        added: parts to be added, in their order.
        later: ratings to be added: those that rows of a known id state anew.
        refused: why, by the number of the arrival; nothing of it is added.
        fates: of the parts of the others, by the number of the arrival.
        num_later: of the arrivals, ratings that they state anew and that the store did not have.
    """

    added: list[Made] = field(default_factory=list[Made])
    later: list[Feedback] = field(default_factory=list[Feedback])
    refused: dict[int, RowError] = field(default_factory=dict[int, RowError])
    fates: dict[int, Sequence[Fate]] = field(default_factory=dict[int, Sequence[Fate]])
    num_later: dict[int, int] = field(default_factory=dict[int, int])

    def gives(self, number: int) -> bool:
        """Whether the arrival gives the store something."""
        return "new" in self.fates[number] or self.num_later.get(number, 0) > 0


def sort_arrivals(store: Store, arrivals: Sequence[Arrival], *, is_own_export: bool = False) -> SortedArrivals:
    """Sort out what is to be added. A row comes in whole or not at all; of two with one id the first is the one.

    A sample of a known id that differs from the known one in its rating alone, or in when that was given, is a later
    rating of it; so is a rating of a known id that differs in what was said. Two rows that are written alike and become
    something else are one row under two mappings, and no later rating.

    Args:
        store: what is there.
        arrivals: in the order of the file.
        is_own_export: the rows are samples that klimb exported: `raw` in them is not the row of the file.
    """
    made = [part for arrival in arrivals for part in arrival.made]
    there: dict[tuple[type[Made], str], Made] = {}
    for each in store.stored_samples([part.sample_id for part in made if isinstance(part, Sample)]):
        there[_key(each)] = each
    for each in store.stored_feedback([part.feedback_id for part in made if isinstance(part, Feedback)]):
        there[_key(each)] = each
    found = SortedArrivals()
    places: dict[tuple[type[Made], str], str] = {}
    again: list[tuple[int, Sequence[Feedback]]] = []
    for number, arrival in enumerate(arrivals):
        try:
            pairs = _compared(arrival, there, places, is_own_export=is_own_export)
        except RowError as error:
            found.refused[number] = error
            continue
        found.fates[number] = [fate for _, _, fate in pairs]
        for first, part, fate in pairs:
            if fate == "new":
                found.added.append(part)
            elif fate == "later":
                again.append((number, _stated_anew(first, part)))
    _take_later(store, found, again, is_own_export=is_own_export)
    return found


def _key(part: Made) -> tuple[type[Made], str]:
    return (Sample, part.sample_id) if isinstance(part, Sample) else (Feedback, part.feedback_id)


def _compared(
    arrival: Arrival,
    there: dict[tuple[type[Made], str], Made],
    places: dict[tuple[type[Made], str], str],
    *,
    is_own_export: bool,
) -> Sequence[tuple[Made, Made, Fate]]:
    """Return the first part of its id, each part and its fate; the new ones are then there.

    Raises:
        RowError: a part contradicts what is there.
    """
    own: dict[tuple[type[Made], str], Made] = {}
    compared: list[tuple[Made, Made, Fate]] = []
    for part in arrival.made:
        key = _key(part)
        first = own.get(key) or there.get(key)
        if first is None:
            own[key] = part
            compared.append((part, part, "new"))
            continue
        fate = _fate(first, part, is_own_export=is_own_export)
        if fate == "refused":
            why = ANOTHER_MAPPING if _are_written_alike(first.raw, part.raw) else NOT_UNIQUE
            where = f", first at {places[key]}" if key in places else ""
            raise RowError(CONFLICT, f"{key[1][:80]!r}{where}; {why}")
        compared.append((first, part, fate))
    there.update(own)
    places.update(dict.fromkeys(own, arrival.place))
    return compared


RATING_OF_SAMPLE = ("reward", "reward_reason", "created_at")


RATING = ("value", "comment", "created_at")


def _fate(first: Made, part: Made, *, is_own_export: bool) -> Fate:
    if first == part:
        return "there"
    if isinstance(first, Sample) and isinstance(part, Sample):
        first, part = as_stored([first, part])
        names = RATING_OF_SAMPLE if part.reward is not None else ("reward", "reward_reason")
        states_later = part.reward is not None
    else:
        assert isinstance(first, Feedback) and isinstance(part, Feedback)
        first, part, names, states_later = with_floats(first), with_floats(part), RATING, True
    is_same_row = not is_own_export and _are_written_alike(first.raw, part.raw)
    if _are_equal_but(first, part, ("raw",)):
        return "there" if is_same_row or is_own_export else "otherwise"
    if is_same_row or not _are_equal_but(first, part, ("raw", *names)):
        return "refused"
    return "later" if states_later else "otherwise"


def _are_equal_but(first: Made, part: Made, names: Sequence[str]) -> bool:
    """Compare as texts, because NaN equals nothing."""
    changed: Mapping[str, object] = {name: getattr(first, name) for name in names}
    return repr(first) == repr(replace(part, **changed))  # type: ignore[arg-type]


def _are_written_alike(first: str, second: str) -> bool:
    """Whether two rows are the same, blanks and the order of their names aside."""
    if first == second:
        return True
    try:
        return json.loads(first) == json.loads(second)
    except (ValueError, RecursionError):
        return False


def _stated_anew(first: Made, part: Made) -> Sequence[Feedback]:
    """Return the ratings that keep the history: what was said first, where that is no rating yet, and what is said now.

    An undated one is of the time of the first: of ratings of one time the one added last counts.
    """
    created_at = part.created_at or first.created_at
    if isinstance(part, Feedback):
        name = hash_of(part.feedback_id, repr(part.value), part.comment, repr(part.created_at))
        return [replace(part, feedback_id=name, created_at=created_at)]
    assert isinstance(first, Sample)
    of_now = _rating_of(part, created_at)
    return [of_now] if first.reward is None else [_rating_of(first, first.created_at), of_now]


def _rating_of(sample: Sample, created_at: float) -> Feedback:
    return Feedback(
        feedback_id=hash_of(sample.sample_id, repr(sample.reward), repr(sample.created_at)),
        sample_id=sample.sample_id,
        value=sample.reward,
        user=sample.metadata.get("user", ""),
        created_at=created_at,
        raw=sample.raw,
    )


def _take_later(
    store: Store, found: SortedArrivals, again: Sequence[tuple[int, Sequence[Feedback]]], *, is_own_export: bool
) -> None:
    """Take those of the ratings stated anew that are not there; an export states the reward that the store has now."""
    if not again:
        return
    known = {rating.feedback_id for rating in store.stored_feedback([r.feedback_id for _, rs in again for r in rs])}
    ids = [ratings[-1].sample_id for _, ratings in again] if is_own_export else []
    rewards = store.rewards(ids)
    for number, ratings in again:
        last = ratings[-1]
        if last.feedback_id in known or (is_own_export and rewards.get(last.sample_id) == last.value):
            continue
        found.later += [rating for rating in ratings if rating.feedback_id not in known]
        known.update(rating.feedback_id for rating in ratings)
        found.num_later[number] = found.num_later.get(number, 0) + 1
