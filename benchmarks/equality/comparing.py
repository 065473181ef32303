"""Two outcomes of a case, aspect by aspect: equal, different, expected to be, or not compared and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.equality.declared import EXPECTED, Expected

Status = Literal["equal", "differs", "expected", "not compared"]
Outcome = Mapping[str, Any]
"""Aspect -> what a state gave: anything that JSON can say, or `NotCompared`."""

ABSENT = "(absent)"
LONGEST = 100


@dataclass(frozen=True)
class NotCompared:
    """Stands in an outcome for an aspect that was not measured."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One value that is another one in the new state."""

    path: str
    old: Any
    new: Any

    def describe(self) -> str:
        """Say where and what, in one line."""
        old, new = around_difference(self.old, self.new)
        return f"{self.path or 'all'}: {old} → {new}"


@dataclass(frozen=True, kw_only=True)
class AspectResult:
    """What the comparison of one aspect of one case gave."""

    case: str
    aspect: str
    status: Status
    note: str


def compare_outcomes(
    case: str, old: Outcome, new: Outcome, *, expected: Sequence[Expected] = EXPECTED
) -> list[AspectResult]:
    """Compare every aspect that either of the two has."""
    return [
        _compare_aspect(case, aspect, old.get(aspect, ABSENT), new.get(aspect, ABSENT), expected)
        for aspect in dict.fromkeys([*old, *new])
    ]


def find_differences(old: Any, new: Any) -> list[Difference]:
    """List the values that differ, in the order of the old outcome."""
    before, after = dict(flatten(old)), dict(flatten(new))
    return [
        Difference(path=path, old=before.get(path, ABSENT), new=after.get(path, ABSENT))
        for path in dict.fromkeys([*before, *after])
        if not is_same(before.get(path, ABSENT), after.get(path, ABSENT))
    ]


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each leaf; an empty list or mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple) and value:
        yield f"{path}.length" if path else "length", len(value)
        for number, inner in enumerate(value):
            yield from flatten(inner, f"{path}[{number}]")
    else:
        yield path, value


def is_same(old: Any, new: Any) -> bool:
    """Tell whether two leaves are the same value: 1 is not true, and NaN is NaN."""
    if isinstance(old, bool) != isinstance(new, bool):
        return False
    return bool(old == new) or (old != old and new != new)


def is_empty(value: Any) -> bool:
    """Tell whether a leaf is a list or mapping with nothing in it."""
    return isinstance(value, list | tuple | Mapping) and not value


def around_difference(old: Any, new: Any) -> tuple[str, str]:
    """Both as text; of long ones the part where they begin to differ."""
    texts = repr(old), repr(new)
    if max(map(len, texts)) <= LONGEST:
        return texts
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - LONGEST // 3)
    first, second = (f"{'…' if start else ''}{text[start : start + LONGEST]}" for text in texts)
    return first, second


def _compare_aspect(case: str, aspect: str, old: Any, new: Any, expected: Sequence[Expected]) -> AspectResult:
    for value in (old, new):
        if isinstance(value, NotCompared):
            return AspectResult(case=case, aspect=aspect, status="not compared", note=value.reason)
    differences = find_differences(old, new)
    reasons: dict[str, int] = {}
    undeclared: list[Difference] = []
    for difference in differences:
        reason = next(
            (
                row.reason
                for row in expected
                if row.covers(case, aspect, difference.path, old=difference.old, is_gone=difference.new == ABSENT)
            ),
            None,
        )
        if reason is None:
            undeclared.append(difference)
        else:
            reasons[reason] = reasons.get(reason, 0) + 1
    if undeclared:
        note = f"{len(undeclared)} values; the first: {undeclared[0].describe()}"
        return AspectResult(case=case, aspect=aspect, status="differs", note=note)
    if reasons:
        note = "; ".join(f"{reason} ({count} values)" for reason, count in reasons.items())
        return AspectResult(case=case, aspect=aspect, status="expected", note=note)
    count = sum(not is_empty(value) for _, value in flatten(new))
    if count == 0:
        return AspectResult(case=case, aspect=aspect, status="not compared", note="empty in both states")
    return AspectResult(case=case, aspect=aspect, status="equal", note=f"{count:,} values")
