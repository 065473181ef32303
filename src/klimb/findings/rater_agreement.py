"""How far a machine that rates answers agrees with people about those that both rated."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from klimb.findings.audit.evidence import counted, numbered, unknown
from klimb.findings.audit.raters import agreement_finding
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.reward_model import against_chance
from klimb.findings.statistics import krippendorff_alpha, mean_interval

DEFAULTS = Thresholds()


SAME_SCALE = (0.0, 1.0)
"""Ratings on it can be compared as numbers; others only by their order."""


@dataclass(frozen=True, kw_only=True)
class RatedTwice:
    """An answer that people and a machine rated.

    Attributes:
        prompt: which it answers.
        by_people: their mean rating.
        by_machine: its rating.
    """

    prompt: str
    by_people: float
    by_machine: float


ORDER = "order of answers to a prompt"


def compare_raters(rated: Sequence[RatedTwice], *, rater: str, thresholds: Thresholds = DEFAULTS) -> Block:
    """Return Krippendorff's α, and how often both put two answers to one prompt in the same order."""
    title = f"{rater} beside people: {counted(len(rated), 'answer')} that both rated"
    if not rated:
        why = "no answer has a rating by people: let them rate some"
        return Block(name="agreement", title=title, findings=(unknown("agreement of raters", why),))
    return Block(name="agreement", title=title, findings=(_alpha(rated, thresholds), _order(rated)))


def _alpha(rated: Sequence[RatedTwice], thresholds: Thresholds) -> Finding:
    low, high = SAME_SCALE
    if not all(low <= value <= high for each in rated for value in (each.by_people, each.by_machine)):
        return unknown("agreement of raters", f"they do not rate on one scale, {low:g} to {high:g}; see the order")
    values = [(each.by_people, each.by_machine) for each in rated]
    return agreement_finding(krippendorff_alpha(values, unit="answer"), thresholds)


def _order(rated: Sequence[RatedTwice]) -> Finding:
    by_prompt: dict[str, list[RatedTwice]] = defaultdict(list)
    for each in rated:
        by_prompt[each.prompt].append(each)
    same: list[float] = []
    prompts: list[str] = []
    for prompt, answers in by_prompt.items():
        for first, second in combinations(answers, 2):
            apart = first.by_people - second.by_people
            if apart:
                same.append(0.5 + 0.5 * float(np.sign((first.by_machine - second.by_machine) * apart)))
                prompts.append(prompt)
    if not same:
        return unknown(ORDER, "people rated no two answers to one prompt differently")
    found = mean_interval(same, numbered(prompts), unit="prompt", bounds=(0.0, 1.0))
    return against_chance(ORDER, found, 0.5, "a coin has 0.5")
