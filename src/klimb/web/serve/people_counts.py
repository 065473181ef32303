"""What people have said of a store's answers, counted: by day, by policy, and how far they agree."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from klimb.experience.answer_index import Answer, JudgedAnswers
from klimb.findings.statistics.agreement import krippendorff_alpha

MOST_DAYS = 30
"""The latest days with an answer that are told one by one."""


MOST_POLICIES = 20
"""The latest policies that are told one by one."""


@dataclass
class _Count:
    """Answers of one day or one policy."""

    num_answers: int = 0
    num_rated: int = 0
    ratings: list[float] = field(default_factory=list[float])
    latest: float = 0.0

    def add(self, answer: Answer, rating: float | None, is_judged: bool) -> None:
        self.num_answers += 1
        self.num_rated += is_judged
        self.latest = max(self.latest, answer.created_at)
        if rating is not None:
            self.ratings.append(rating)

    def told(self) -> dict[str, Any]:
        mean = sum(self.ratings) / len(self.ratings) if self.ratings else None
        return {"answers": self.num_answers, "rated": self.num_rated, "mean_rating": mean}


def people_counts(judged: JudgedAnswers) -> dict[str, Any]:
    """Return the counts as the page shows them. Days are those of UTC, of the answers and not of their ratings."""
    days: dict[str, _Count] = {}
    policies: dict[tuple[str, int], _Count] = {}
    whole = _Count()
    for answer in judged.answers.values():
        rating, is_judged = judged.rating(answer), judged.is_judged(answer)
        policy = (answer.model, answer.policy_version)
        for count in (whole, _of(days, _day(answer.created_at)), _of(policies, policy)):
            count.add(answer, rating, is_judged)
    latest = sorted(policies.items(), key=lambda item: item[1].latest, reverse=True)[:MOST_POLICIES]
    return {
        **whole.told(),
        "unrated": whole.num_answers - whole.num_rated,
        "preferences": judged.num_preferences,
        "corrections": judged.num_corrections,
        "comments": judged.num_comments,
        "raters": len(judged.raters),
        "days": [{"day": day, **count.told()} for day, count in sorted(days.items(), reverse=True)[:MOST_DAYS]],
        "policies": [{"name": name, "version": version, **count.told()} for (name, version), count in latest],
        "agreement": agreement(ratings.values() for ratings in judged.ratings.values()),
    }


def agreement(ratings: Iterable[Iterable[float]]) -> dict[str, Any]:
    """Return Krippendorff's α over the answers that two or more people rated; None where it is not known, and why."""
    found = krippendorff_alpha([list(values) for values in ratings], unit="answer")
    return {
        "alpha": _finite(found.value),
        "low": _finite(found.low),
        "high": _finite(found.high),
        "answers": found.num_units,
        "reason": found.reason,
    }


def _of(counts: dict[Any, _Count], key: Any) -> _Count:
    if key not in counts:
        counts[key] = _Count()
    return counts[key]


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
