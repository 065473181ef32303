"""What people said, as a store holds it: rated answers and preferences, by whom, when, and of whose answers."""

# duckdb and pyarrow ship no complete type information:
# pyright: basic

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from klimb.experience import Feedback, Sample
from klimb.experience.store import Store

PEOPLES = "f.name not like 'model:%' and f.name not like 'judge:%'"
"""A reward model's and a judge's ratings neither train nor judge here."""


SAID = f"""
select s.sample_id, s.group_id, s.model, s.created_at as drawn_at, s.prompt::varchar as prompt,
       coalesce(s.metadata['user'], '') as asked_by, s.episode, coalesce(s.metadata['asked_for'], '') as asked_for,
       case when count(f.value) > 0 then any_value(s.reward) end as rating,
       min(f.created_at) as said_at,
       list(distinct f.user) as users
from samples s join feedback f on f.sample_id = s.sample_id
where {PEOPLES}
group by all order by said_at, s.sample_id
"""


PREFERRED = f"""
select f.feedback_id, f.sample_id as better, f.over as worse, f.created_at as said_at, f.user as said_by
from feedback f where f.over <> '' and {PEOPLES} order by said_at, f.feedback_id
"""


SPOKEN_OF = """
select feedback_id, sample_id, value, name, comment, user, created_at, raw, over, correction from feedback
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer that a person said something of.

    Attributes:
        sample_id: of the answer.
        group_id: of its request.
        model: the policy that gave it.
        drawn_at: when, in seconds since the epoch.
        prompt: a hash of what was asked.
        users: hashes of who asked and of who rated.
        rating: mean of people's latest ratings; None where there is none: a preference, a comment, a correction.
        said_at: when people first spoke of it.
        conversation: that it is a turn of; its request, where it is of none.
        is_by_name: whether the request named the policy, so that chance did not choose it.
    """

    sample_id: str
    group_id: str
    model: str
    drawn_at: float
    prompt: str
    users: tuple[str, ...]
    rating: float | None
    said_at: float
    conversation: str = ""
    is_by_name: bool = False


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One answer that a person preferred to another."""

    feedback_id: str
    better: str
    worse: str
    said_at: float
    users: tuple[str, ...] = ()


def read_said(store: Store) -> list[Said]:
    """Return the answers that people spoke of, in the order of time."""
    if not store.files().samples or not store.files().feedback:
        return []
    return [
        Said(
            sample_id=row["sample_id"],
            group_id=row["group_id"],
            model=row["model"],
            drawn_at=row["drawn_at"],
            prompt=_digest(row["prompt"]),
            users=tuple(sorted({_digest(user) for user in (row["asked_by"], *row["users"]) if user})),
            rating=row["rating"],
            said_at=row["said_at"],
            conversation=_digest(row["episode"] or row["group_id"]),
            is_by_name=bool(row["asked_for"]),
        )
        for row in store.query(SAID).to_pylist()
    ]


def read_preferences(store: Store) -> list[Preference]:
    """Return people's preferences in the order of time."""
    if not store.files().feedback:
        return []
    rows = store.query(PREFERRED).to_pylist()
    return [Preference(users=(_digest(by),) if (by := row.pop("said_by")) else (), **row) for row in rows]


def copy_said(store: Store, into: Store, sample_ids: Sequence[str]) -> int:
    """Put these samples and all that people said of them into another store, and return how many samples there are.

    A preference is copied where both of its answers are; done again after a crash, nothing comes twice.
    """
    wanted = {*sample_ids}
    spoken = [Feedback(**row) for row in store.query(SPOKEN_OF).to_pylist()]
    spoken = [row for row in spoken if row.sample_id in wanted and (not row.over or row.over in wanted)]
    samples = list(store.stored_samples(sorted(wanted)))
    into.append(samples)
    into.append_feedback(spoken)
    return len(samples)


def read_samples(store: Store, sample_ids: Sequence[str]) -> dict[str, Sample]:
    """Return these samples as they were recorded, by id; those that are not there are left out."""
    return {sample.sample_id: sample for sample in store.stored_samples(list(sample_ids))}


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
