"""Ratings of a store's samples by a reward model or a judge, beside people's, and how far they agree with those."""

import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.experience.feedback import Feedback, is_by_machine
from klimb.experience.samples import Message, Sample
from klimb.experience.store import Store, open_store
from klimb.findings.rater_agreement import RatedTwice, compare_raters
from klimb.tasks.batches import BatchLimits, Scored, prepare, score_batch
from klimb.tasks.judge.reward import JudgeReward
from klimb.tasks.judge.settings import JudgeSettings
from klimb.tasks.protocol import Problem, Response, Score
from klimb.tasks.reward_model import MODEL_PREFIX, ModelReward
from klimb.training.run_folder import is_run, read_object
from klimb.ui.terminal.audit import print_block
from klimb.ui.text import printable
from klimb.workbench.reward_model import FACTS_FILE, read_feedback

BATCH = 64
"""Answers that are rated, and their ratings written, together: what ends the command costs no more."""


LEAST_TO_STOP = 8
"""Answers asked about together of which none could be rated: then the rater is what fails."""


MOST_REASONS = 3


TURNS = "is a conversation of several turns, and a reward model reads one answer"


@dataclass(frozen=True, kw_only=True)
class Rater:
    """Who rates.

    Attributes:
        name: of its ratings, and of it as their user: `model:HASH` or `judge:HASH`.
        label: for people.
        score: asks it.
        low: of the ratings that its scores are turned into.
        span: their range.
        offset: added to a score before.
        link: what makes a rating of a score: `logistic`, `linear`, or `none` for the score itself.
    """

    name: str
    label: str
    score: ModelReward | JudgeReward
    low: float = 0.0
    span: float = 1.0
    offset: float = 0.0
    link: str = "none"

    def rating_of(self, reward: float) -> float:
        """Return a reward as a rating, in the units that the reward model learnt."""
        if self.link == "none":
            return reward
        score = reward + self.offset
        if self.link == "logistic":
            score = 0.5 * (1 + math.tanh(score / 2))
        return self.low + self.span * score


@dataclass
class Rating:
    """What came of it.

    Attributes:
        by_people: ids of samples that a person rated in the store's feedback.
        num_rated: answers that have a rating now and had none by this rater.
        errors: reason -> answers that have none.
        both: answers that people rated too.
    """

    by_people: frozenset[str]
    num_rated: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    both: list[RatedTwice] = field(default_factory=list[RatedTwice])


def make_rater(rater: str, judge: JudgeSettings | None) -> Rater:
    """Return who rates, ready to be asked.

    Raises:
        ValueError: the folder holds no reward model, or the judge's rubric or key is not there.
    """
    if judge is not None:
        asked = JudgeReward.of_settings(judge)
        made = Rater(name=f"judge:{asked.content}", label=f"{judge.model} as a judge", score=asked)
    else:
        folder = Path(rater.removeprefix(MODEL_PREFIX))
        scored = ModelReward.of_folder(str(folder), key="--with")
        made = replace(
            Rater(name=f"{MODEL_PREFIX}{scored.content}", label=f"reward model {folder.name}", score=scored),
            **_link_of(folder / FACTS_FILE),
        )
    prepare(made.score)
    return made


def _link_of(path: Path) -> dict[str, float | str]:
    """Return how logits become ratings; nothing for a classifier that does not say, or that learnt from pairs alone."""
    if not path.is_file():
        return {}
    content, _ = read_object(path)
    ratings = content.get("ratings")
    if not isinstance(ratings, dict) or not ratings.get("has_ratings"):
        return {}
    numbers = {name: float(ratings[name]) for name in ("low", "span", "offset")}
    return {**numbers, "link": "logistic" if ratings["is_logistic"] else "linear"}


def run_rate(
    path: Path,
    *,
    rater: str,
    judge: JudgeSettings | None,
    where: str,
    into: Path | None,
    limits: BatchLimits,
    console: Console,
) -> Rating:
    """Rate what this rater has not rated, write its ratings, and print how far it agrees with people.

    Raises:
        ConfigError: there is nothing to rate, or the first answers all fail.
    """
    store = open_store(path)
    total = store.count(where)
    if not total:
        raise ConfigError(f"{path} holds no samples{f' where {where}' if where else ''}")
    if into is None and is_run(path):
        raise ConfigError(f"{path} is a run, whose rollouts stay as they were drawn; write a new store: --into FOLDER")
    asked, done = make_rater(rater, judge), Rating(_rated_by_people(store))
    known = {} if into is not None else _known_ratings(store, asked.name)
    with console.status(f"rating {total} answers") as status:
        if into is None:
            for batch in _rate(store, asked, known, where, limits, done):
                store.append_feedback([_row(asked, sample, score) for sample, score in batch])
                status.update(f"rated {done.num_rated} of {total} answers")
        else:
            _write_new(into, _rate(store, asked, known, where, limits, done), asked)
    if not done.num_rated and not known:
        raise ConfigError(f"no answer could be rated: {_reasons(done)}")
    _report(console, asked, done, num_known=len(known), target=path if into is None else into)
    return done


def _reasons(done: Rating) -> str:
    return "; ".join(reason for reason, _ in done.errors.most_common(MOST_REASONS))


def _known_ratings(store: Store, name: str) -> dict[str, float]:
    """Return sample -> what this rater gave it before."""
    escaped = name.replace("'", "''")
    rows = store.query(f"select sample_id, value from feedback where name = '{escaped}' and value is not null")
    return {row["sample_id"]: row["value"] for row in rows.to_pylist()}


def _rated_by_people(store: Store) -> frozenset[str]:
    return frozenset(
        row.sample_id for row in read_feedback(store) if row.value is not None and not is_by_machine(row.name)
    )


Rated = list[tuple[Sample, Score]]


def _rate(
    store: Store, rater: Rater, known: dict[str, float], where: str, limits: BatchLimits, done: Rating
) -> Iterator[Rated]:
    """Yield batches of what has a rating now; what was rated before is compared, and what has none counted."""
    samples = store.samples(where=where)
    while batch := list(islice(samples, BATCH)):
        for sample in batch:
            if sample.sample_id in known:
                _compare(sample, known[sample.sample_id], done)
        asked = [sample for sample in batch if sample.sample_id not in known and not _refuse(sample, rater, done)]
        pairs = [_question(sample) for sample in asked]
        scores = score_batch(rater.score, [each for each, _ in pairs], [each for _, each in pairs], limits)
        rated = [found for pair in zip(asked, scores, strict=True) if (found := _with_rating(*pair, rater, done))]
        if not rated and len(asked) >= LEAST_TO_STOP:
            raise ConfigError(f"none of {len(asked)} answers could be rated, so this ends here: {_reasons(done)}")
        for sample, score in rated:
            _compare(sample, score.reward or 0.0, done)
        yield rated


def _refuse(sample: Sample, rater: Rater, done: Rating) -> bool:
    is_refused = isinstance(rater.score, ModelReward) and len(sample.conversation) > 1
    if is_refused:
        done.errors[TURNS] += 1
    return is_refused


def _question(sample: Sample) -> tuple[Problem, Response]:
    """Return what the sample's answer is an answer to, and the answer as score functions take it."""
    turns = tuple(Message(role=turn.role, content=turn.text) for turn in sample.turns)
    return (
        Problem(problem_id=sample.group_id, messages=sample.prompt, answer=""),
        Response(
            text=sample.response,
            num_tokens=sample.num_drawn,
            finish_reason=sample.finish_reason,
            messages=turns if len(turns) > 1 else (),
        ),
    )


def _with_rating(sample: Sample, scored: Scored, rater: Rater, done: Rating) -> tuple[Sample, Score] | None:
    if isinstance(scored, Exception) or scored.reward is None:
        done.errors[f"{scored}" if isinstance(scored, Exception) else scored.reason] += 1
        return None
    done.num_rated += 1
    return sample, replace(scored, reward=rater.rating_of(scored.reward))


def _compare(sample: Sample, rating: float, done: Rating) -> None:
    # What came with a log was given there; a rollout's reward is its task's, until a person rates it.
    is_by_people = sample.sample_id in done.by_people or sample.source in ("log", "feedback")
    if sample.reward is not None and is_by_people:
        prompt = json.dumps(sample.prompt, sort_keys=True)
        done.both.append(RatedTwice(prompt=prompt, by_people=sample.reward, by_machine=rating))


def _row(rater: Rater, sample: Sample, score: Score) -> Feedback:
    return Feedback(
        feedback_id=f"{rater.name} {sample.sample_id}",
        sample_id=sample.sample_id,
        value=score.reward,
        name=rater.name,
        comment=score.reason,
        user=rater.name,
        created_at=time.time(),
    )


def _write_new(into: Path, batches: Iterator[Rated], rater: Rater) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    # Renamed at the end, so that a rating that was stopped leaves no half store behind.
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as aside:
        new = Store(Path(aside) / "store")
        for batch in batches:
            new.append(
                [
                    replace(
                        sample,
                        reward=score.reward,
                        reward_parts={},
                        reward_reason=f"by {rater.name}: {score.reason}",
                    )
                    for sample, score in batch
                ]
            )
        new.folder.rename(into)


def _report(console: Console, rater: Rater, done: Rating, *, num_known: int, target: Path) -> None:
    lines = [f"{done.num_rated:,} answers have a rating by {rater.label}, as {rater.name}, in {target}"]
    if num_known:
        lines.append(f"{num_known:,} had one before, and were not asked about again")
    lines += [f"no rating for {number:,}: {reason}" for reason, number in done.errors.most_common(MOST_REASONS)]
    rest = sum(done.errors.values()) - sum(number for _, number in done.errors.most_common(MOST_REASONS))
    if rest:
        lines.append(f"no rating for {rest:,} more, for other reasons")
    for line in lines:
        console.print(Text(printable(line, limit=1000)), soft_wrap=True)
    print_block(console, compare_raters(done.both, rater=rater.label))
