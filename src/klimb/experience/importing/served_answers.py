"""Rows that rate what klimb itself served: they become ratings of the very samples that are in the store.

A program that stands between people and `klimb serve` exports its own copy of each answer. As a sample of its own that
copy would have no log-probabilities, and the served one no rating.
"""

# pyarrow ships no type information:
# pyright: basic

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any

from klimb.experience.feedback import Feedback
from klimb.experience.importing.arrivals import Arrival
from klimb.experience.importing.parsed_row import hash_of
from klimb.experience.queries import literal
from klimb.experience.samples import SERVED_BY, Message, Sample
from klimb.experience.store import Store

MESSAGE_ID = "message_id"
"""In its metadata: what the program in front calls the answer, where it says so."""


BY_ID, BY_TEXT, NOT_FOUND = "by their id", "by what was asked and answered", "not found here"


_BLANKS = " \n\r\t"


@dataclass(frozen=True, kw_only=True)
class _Served:
    """A served answer that may be the one of a row."""

    sample_id: str
    message_id: str
    response: str
    created_at: float
    asked: tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class JoinedArrivals:
    """Rows, the rated answers among them joined to what was served.

    Attributes:
        arrivals: in the order of the file.
        num_joined: answers by how they were found; without any served answer in the store it is empty.
    """

    arrivals: Sequence[Arrival]
    num_joined: Counter[str] = field(default_factory=Counter[str])


def join_served(store: Store, arrivals: Sequence[Arrival]) -> JoinedArrivals:
    """Return the rows with ratings in the place of answers that this store's server gave.

    An answer is a served one if its id was recorded with it and its text begins as the served one does, else if the
    same was asked, instructions aside, and the same answered; of several of these it is the one of the nearest time.
    One that nobody rated is there already, and nothing comes of it. What is not found stays a sample of its own.
    """
    answers = [part for arrival in arrivals for part in arrival.made if isinstance(part, Sample)]
    if not answers or not store.count(f"metadata[{literal(SERVED_BY)}] is not null"):
        return JoinedArrivals(arrivals=arrivals)
    served = _candidates(store, answers)
    joined = JoinedArrivals(arrivals=())
    joined.arrivals = [replace(arrival, made=_joined(arrival, served, joined.num_joined)) for arrival in arrivals]
    return joined


def _joined(arrival: Arrival, served: Sequence[_Served], num_joined: Counter[str]) -> Sequence[Sample | Feedback]:
    made: list[Sample | Feedback] = []
    for part in arrival.made:
        if not isinstance(part, Sample):
            made.append(part)
            continue
        how, found = _find(part, served)
        num_joined[how] += 1
        if found is None:
            made.append(part)
        elif part.reward is not None or part.reward_reason:
            made.append(_rating(part, found))
    return made


def _find(answer: Sample, served: Sequence[_Served]) -> tuple[str, _Served | None]:
    text = answer.response.strip(_BLANKS)
    named = [each for each in served if each.message_id == answer.sample_id]
    by_id = [each for each in named if each.response.lstrip(_BLANKS).startswith(text)]
    if by_id:
        return BY_ID, _nearest(by_id, answer)
    asked = _asked(answer.prompt)
    by_text = [each for each in served if each.response.strip(_BLANKS) == text and each.asked == asked]
    return (BY_TEXT, _nearest(by_text, answer)) if by_text else (NOT_FOUND, None)


def _nearest(found: Sequence[_Served], answer: Sample) -> _Served:
    return min(found, key=lambda each: (abs(each.created_at - answer.created_at), each.sample_id))


def _rating(answer: Sample, found: _Served) -> Feedback:
    """Return the rating; one that is exported again is the same, and a changed one is another."""
    said = (repr(answer.reward), answer.reward_reason, repr(answer.created_at))
    return Feedback(
        feedback_id=hash_of("served", answer.sample_id, *said),
        sample_id=found.sample_id,
        value=answer.reward,
        comment=answer.reward_reason,
        user=answer.metadata.get("user", ""),
        created_at=answer.created_at,
        raw=answer.raw,
    )


def _candidates(store: Store, answers: Sequence[Sample]) -> Sequence[_Served]:
    """Return served answers that have the id or the text of one of these."""
    ids = ", ".join(sorted({literal(answer.sample_id) for answer in answers}))
    texts = ", ".join(sorted({literal(_digest(answer.response)) for answer in answers}))
    blanks = " || ".join(f"chr({ord(blank)})" for blank in _BLANKS)
    table = store.query(
        f"select sample_id, metadata[{literal(MESSAGE_ID)}] as message_id, response, created_at, prompt from samples "
        f"where metadata[{literal(SERVED_BY)}] is not null and (message_id in ({ids}) "
        f"or md5(trim(response, {blanks})) in ({texts})) order by created_at, sample_id"
    )
    return [_served(row) for row in table.to_pylist()]


def _served(row: Mapping[str, Any]) -> _Served:
    return _Served(
        sample_id=row["sample_id"],
        message_id=row["message_id"] or "",
        response=row["response"],
        created_at=row["created_at"],
        asked=_asked(row["prompt"]),
    )


def _asked(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Return who said what before, without instructions: the program in front, or the server, may add some."""
    said = ((message["role"], message["content"].strip(_BLANKS)) for message in prompt)
    return tuple(each for each in said if each[0] not in ("system", "developer"))


def _digest(text: str) -> str:
    return md5(text.strip(_BLANKS).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
