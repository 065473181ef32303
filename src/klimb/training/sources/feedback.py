"""What people said of stored answers, as samples: ratings, preferences, corrections, comments, conversations.

A store's rated answers are samples already: the mean of the ratings is the reward. What else was said becomes samples
beside them, in groups of their own, so that nothing is compared that nobody compared. Each row of feedback that is not
used is counted, with the reason.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from klimb.experience.episodes import join_turns
from klimb.experience.feedback import Feedback, is_by_machine
from klimb.experience.rater_cap import ratings_that_count
from klimb.experience.samples import Sample
from klimb.experience.samples_in_memory import SamplesInMemory, store_in_memory
from klimb.experience.store import Store
from klimb.training.settings.feedback import FeedbackSettings

logger = logging.getLogger(__name__)


COMMENT = "comment"
"""Of a sample's metadata: what a person said of the answer."""


RATED = "reward is not null"


IN_A_CONVERSATION = "episode <> ''"


@dataclass(frozen=True, kw_only=True)
class Derived:
    """Samples made of what people said, and what of it could not be used.

    Attributes:
        samples: in groups of their own.
        used: what was used, in words for people -> how many rows of feedback.
        unused: why rows were not used, in words for people -> how many.
    """

    samples: tuple[Sample, ...] = ()
    used: Mapping[str, int] = field(default_factory=dict[str, int])
    unused: Mapping[str, int] = field(default_factory=dict[str, int])


Find = Callable[[Sequence[str]], Mapping[str, Sample]]
"""From ids to those of the samples that there are."""


def latest(rows: Iterable[Feedback], key: Callable[[Feedback], object]) -> tuple[list[Feedback], int]:
    """Return the last row of each key, in the order of their ids, and the number of the others."""
    found: dict[object, Feedback] = {}
    number = 0
    for row in sorted(rows, key=lambda row: (row.created_at, row.feedback_id)):
        number += 1
        found[key(row)] = row
    return sorted(found.values(), key=lambda row: row.feedback_id), number - len(found)


def cap_raters(rows: Sequence[Feedback], *, max_fraction: float) -> tuple[list[Feedback], int]:
    """Return the rows that count where nobody named may have more than a share of them, and the number of the others.

    Which of a person's rows count goes by the hash of their ids: as chance has it, and the same each time.
    """
    counts = Counter(row.user for row in rows if row.user)
    most = ratings_that_count(counts.values(), max_fraction=max_fraction)
    if most is None:
        return list(rows), 0
    kept: Counter[str] = Counter()
    counting: set[str] = set()
    for row in sorted(rows, key=lambda row: blake2b(row.feedback_id.encode(), digest_size=8).digest()):
        if not row.user or kept[row.user] < most:
            kept[row.user] += 1
            counting.add(row.feedback_id)
    return [row for row in rows if row.feedback_id in counting], len(rows) - len(counting)


def derive_preferences(rows: Sequence[Feedback], find: Find) -> Derived:
    """Return two samples for each two answers of which people preferred one: a group whose rewards are win shares.

    The reward of an answer is the share of the people who preferred it to the other; each person's last word counts
    once, and all without a name are one person. A pair of which as many preferred one as the other says nothing. Only
    the two answers of a pair are compared: that a beat b and c beat d says nothing of a and d.
    """
    unused: Counter[str] = Counter()
    given, num_earlier = latest(rows, lambda row: (row.user, frozenset((row.sample_id, row.over))))
    if num_earlier:
        unused["an earlier preference of the same person between the same two answers"] = num_earlier
    samples = find([name for row in given for name in (row.sample_id, row.over)])
    votes: dict[tuple[str, str], Counter[str]] = {}
    for row in given:
        reason = _why_no_pair(samples.get(row.sample_id), samples.get(row.over))
        if reason:
            unused[reason] += 1
        else:
            first, second = sorted((row.sample_id, row.over))
            votes.setdefault((first, second), Counter())[row.sample_id] += 1
    made: list[Sample] = []
    num_used = 0
    for pair, won in votes.items():
        total = won.total()
        if won[pair[0]] == won[pair[1]]:
            unused["as many people preferred the other answer"] += total
            continue
        num_used += total
        made += [_preferred(samples[name], pair, won=won[name], total=total) for name in pair]
    used = {"preferences": num_used} if num_used else {}
    return Derived(samples=tuple(made), used=used, unused=dict(unused))


def _why_no_pair(one: Sample | None, other: Sample | None) -> str:
    if one is None or other is None:
        return "one of the two answers is not in the store"
    asked = [(sample.prompt, () if sample.prompt else sample.prompt_ids) for sample in (one, other)]
    return "" if asked[0] == asked[1] else "the two answers are to different prompts"


def _preferred(sample: Sample, pair: tuple[str, str], *, won: int, total: int) -> Sample:
    other = pair[1] if sample.sample_id == pair[0] else pair[0]
    return replace(
        sample,
        sample_id=f"{sample.sample_id}+against+{other}",
        group_id=f"preference+{pair[0]}+{pair[1]}",
        reward=won / total,
        reward_parts={},
        reward_reason=f"preferred by {won} of {total} to {other}",
        log_ref=None,
        metadata=_without_verdict(sample),
        episode="",
    )


def derive_corrections(rows: Sequence[Feedback], find: Find, *, as_pairs: bool) -> Derived:
    """Return the answers that people wrote instead, with reward 1, each before the answer it corrects, with reward 0.

    A written answer is text: it has no log_mu, for nobody drew it. Each person's last correction of an answer counts.

    Args:
        rows: with a correction each.
        find: the samples.
        as_pairs: False leaves the corrected answers out.
    """
    unused: Counter[str] = Counter()
    given, num_earlier = latest(rows, lambda row: (row.user, row.sample_id))
    if num_earlier:
        unused["an earlier correction of the same answer by the same person"] = num_earlier
    samples = find([row.sample_id for row in given])
    made: list[Sample] = []
    num_used = 0
    for row in given:
        reason = _why_no_correction(samples.get(row.sample_id), row)
        if reason:
            unused[reason] += 1
            continue
        num_used += 1
        corrected = samples[row.sample_id]
        made.append(_written(corrected, row))
        if as_pairs:
            made.append(_corrected(corrected, row))
    used = {f"corrections as {'pairs' if as_pairs else 'demonstrations'}": num_used} if num_used else {}
    return Derived(samples=tuple(made), used=used, unused=dict(unused))


def _why_no_correction(sample: Sample | None, row: Feedback) -> str:
    if sample is None:
        return "the corrected answer is not in the store"
    if sample.turns:
        return "a correction of a conversation of several turns in one sample"
    return "the correction is the answer itself" if row.correction.strip() == sample.response.strip() else ""


def _written(sample: Sample, row: Feedback) -> Sample:
    return replace(
        sample,
        sample_id=f"{sample.sample_id}+written+{row.feedback_id}",
        group_id=f"correction+{row.feedback_id}",
        response=row.correction,
        response_ids=(),
        finish_reason="stop",
        reward=1.0,
        reward_parts={},
        reward_reason=f"written by a person instead of {sample.sample_id}",
        log_mu=None,
        log_mu_provenance="absent",
        log_ref=None,
        support=None,
        sampling=None,
        model="",
        metadata=_without_verdict(sample),
        raw="",
        episode="",
    )


def _corrected(sample: Sample, row: Feedback) -> Sample:
    return replace(
        sample,
        sample_id=f"{sample.sample_id}+corrected+{row.feedback_id}",
        group_id=f"correction+{row.feedback_id}",
        reward=0.0,
        reward_parts={},
        reward_reason="corrected by a person",
        log_ref=None,
        metadata=_without_verdict(sample),
        episode="",
    )


def _without_verdict(sample: Sample) -> dict[str, str]:
    """Return the metadata without what a scorer said: the reward is another."""
    return {name: text for name, text in sample.metadata.items() if name != "correct"}


def derive_conversations(samples: Sequence[Sample]) -> Derived:
    """Return the conversations that have a reward, each as few samples as its tokens allow."""
    joined = [sample for sample in join_turns(samples) if sample.reward is not None]
    num_whole = sum(len(sample.turns) > 0 for sample in joined)
    used = {"whole conversations": num_whole} if num_whole else {}
    apart = len(joined) - num_whole
    unused = {"answers that no later prompt continues token by token, each a sample of its own": apart} if apart else {}
    return Derived(samples=tuple(joined), used=used, unused=unused)


def latest_comments(rows: Iterable[Feedback]) -> dict[str, str]:
    """Return the last thing that people said in words of each sample, by its id."""
    given, _ = latest((row for row in rows if row.comment.strip()), lambda row: row.sample_id)
    return {row.sample_id: row.comment.strip() for row in given}


class FeedbackStore:
    """A store's rated answers and what else people said of them, as training reads a store.

    Attributes:
        used: what beside ratings is used, in words for people -> how many rows of feedback.
        unused: why rows of feedback are not used -> how many.
    """

    def __init__(self, store: Store, settings: FeedbackSettings) -> None:
        """Read the store's feedback, and make samples of what is no rating.

        Args:
            store: of answers and feedback; that of raters in quarantine is not in what it shows.
            settings: what becomes of it.
        """
        self._store = store
        self._whole = settings.conversations == "whole"
        rows, unused = _sort_rows(_read_rows(store))
        parts = [self._derive(settings, rows)] if not self._whole else [self._derive(settings, rows), self._join()]
        self._comments, of_comments = self._read_comments(settings, rows)
        samples = [sample for part in parts for sample in part.samples]
        self._derived: SamplesInMemory | None = store_in_memory(samples) if samples else None
        self.used = _add([*(part.used for part in parts), of_comments.used])
        self.unused = _add([unused, *(part.unused for part in parts), of_comments.unused])

    def count(self, where: str = "") -> int:
        """As a store does."""
        derived = 0 if self._derived is None else self._derived.count(where)
        return self._store.count(self._within(where)) + derived

    def group_ids(self, *, where: str = "") -> list[str]:
        """As a store does."""
        derived = [] if self._derived is None else self._derived.group_ids(where=where)
        return sorted({*self._store.group_ids(where=self._within(where)), *derived})

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        """As a store does."""
        stored = self._store.groups(group_ids, where=self._within(where))
        derived = [[] for _ in group_ids] if self._derived is None else self._derived.groups(group_ids, where=where)
        return [
            [self._with_comment(sample) for sample in [*one, *other]]
            for one, other in zip(stored, derived, strict=True)
        ]

    def in_words(self) -> str:
        """Return what is used and what is not, for people; empty where there are ratings alone."""
        used = ", ".join(f"{number} {what}" for what, number in self.used.items())
        unused = "; ".join(f"{number} × {why}" for why, number in self.unused.items())
        return " · ".join(part for part in (used, f"not used: {unused}" if unused else "") if part)

    def _within(self, where: str) -> str:
        conditions = [RATED, *([f"not ({IN_A_CONVERSATION})"] if self._whole else []), *([where] if where else [])]
        return " and ".join(f"({condition})" for condition in conditions)

    def _derive(self, settings: FeedbackSettings, rows: Sequence[Feedback]) -> Derived:
        most = settings.max_rater_fraction
        preferences, num_beyond = cap_raters([row for row in rows if row.over], max_fraction=most)
        corrections, num_corrections_beyond = cap_raters([row for row in rows if row.correction], max_fraction=most)
        off = {
            "preferences = 'off'": len(preferences) if settings.preferences == "off" else 0,
            "corrections = 'off'": len(corrections) if settings.corrections == "off" else 0,
            "beyond max_rater_fraction, what one person may decide": num_beyond + num_corrections_beyond,
        }
        parts = [Derived(unused={name: number for name, number in off.items() if number})]
        if settings.preferences != "off":
            parts.append(derive_preferences(preferences, self._find))
        if settings.corrections != "off":
            as_pairs = settings.corrections == "pairs"
            parts.append(derive_corrections(corrections, self._find, as_pairs=as_pairs))
        return Derived(
            samples=tuple(sample for part in parts for sample in part.samples),
            used=_add(part.used for part in parts),
            unused=_add(part.unused for part in parts),
        )

    def _join(self) -> Derived:
        rated = self._store.query(f"select distinct episode from samples where {IN_A_CONVERSATION} and {RATED}")
        names = set(rated.column(0).to_pylist())
        return derive_conversations(
            [sample for sample in self._store.samples(where=IN_A_CONVERSATION) if sample.episode in names]
        )

    def _find(self, ids: Sequence[str]) -> Mapping[str, Sample]:
        return {sample.sample_id: sample for sample in self._store.stored_samples(sorted(set(ids)))}

    def _read_comments(self, settings: FeedbackSettings, rows: Sequence[Feedback]) -> tuple[dict[str, str], Derived]:
        """Return the comments by sample, and how many are used; those that stand beside a preference are about two."""
        written = [row for row in rows if row.comment.strip()]
        if not settings.comment_weight:
            return {}, Derived(unused={"comments, with comment_weight = 0": len(written)} if written else {})
        about_one = latest_comments(row for row in written if not row.over)
        rated = set(self._store.query(f"select sample_id from samples where {self._within('')}").column(0).to_pylist())
        found = {name: comment for name, comment in about_one.items() if name in rated}
        unused = {
            "an earlier comment on the same answer, or one on a preference": len(written) - len(about_one),
            "a comment on an answer that has no rating, is joined to others, or is not in the store": len(about_one)
            - len(found),
        }
        return found, Derived(
            used={"comments": len(found)} if found else {},
            unused={why: number for why, number in unused.items() if number},
        )

    def _with_comment(self, sample: Sample) -> Sample:
        comment = self._comments.get(sample.sample_id)
        return sample if comment is None else replace(sample, metadata={**sample.metadata, COMMENT: comment})


COLUMNS = ("feedback_id", "sample_id", "value", "name", "comment", "user", "created_at", "over", "correction")


def _read_rows(store: Store) -> list[Feedback]:
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    return [Feedback(**row) for row in store.query(f"select {columns} from feedback").to_pylist()]


def _sort_rows(rows: Sequence[Feedback]) -> tuple[list[Feedback], dict[str, int]]:
    """Return what people said, and why the rest is not used. A machine's rating alone is none of a person's anyway."""
    by_machine = [row for row in rows if is_by_machine(row.name)]
    number = sum(bool(row.over or row.correction or row.comment) for row in by_machine)
    unused = {"given by a reward model or a judge, and no person": number} if number else {}
    return [row for row in rows if not is_by_machine(row.name)], unused


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
