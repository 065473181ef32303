"""Which observations may judge yet: whoever rates most does not decide alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_OF_ONE = 0.2
"""Share of the observations that one person may have given."""


FEWEST_RATERS = 2
"""With k raters a share is at least this over k, as it is where ratings train."""


def admit(known: Iterable[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those of the new observations that may judge now, in their order; the others may once there are more.

    One counts where each person named in it has given, with it, at most max(1, s·n) of the n that count then, where
    s = max(0.2, 2/k) and k are the people. Who is meant is all that is looked at, never how an answer was rated, so
    evidence may still be looked at as often as one likes. What is from nobody named may be of many: all of it counts.

    >>> rows = [{"users": ["one"]}] * 9 + [{"users": [name]} for name in "abcdefghij"]
    >>> len(admit([], rows)), sum(row["users"] == ["one"] for row in admit([], rows))
    (12, 2)

    Args:
        known: those that were looked at.
        new: those that were not, each with its `users`.
    """
    counts: Counter[str] = Counter()
    num_known = 0
    for row in known:
        num_known += 1
        counts.update(set(row.get("users", ())))
    people = counts.keys() | {user for row in new for user in row["users"]}
    share = max(MOST_OF_ONE, FEWEST_RATERS / max(1, len(people)))
    admitted: set[int] = set()
    is_more = True
    while is_more:
        is_more = False
        for place, row in enumerate(new):
            users = set(row["users"])
            most = max(1.0, share * (num_known + len(admitted) + 1) + 1e-9)
            if place not in admitted and all(counts[user] + 1 <= most for user in users):
                admitted.add(place)
                counts.update(users)
                is_more = True
    return [row for place, row in enumerate(new) if place in admitted]
