"""Hold out a part of a log: whole prompts, and whole users, so that nothing of what is held out was learnt from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

LARGEST_SHARE = 0.5
"""Of the groups, that may hang together by their users; beyond it users are on both sides."""


@dataclass(frozen=True, kw_only=True)
class HeldOutGroups:
    """Which groups of a log are held out.

    Attributes:
        group_ids: of the groups, sorted.
        unit_of: group -> what was drawn whole with it: the same for groups that share a prompt or, if `by_users`, a
            user. Of every group, the others too.
        by_users: no user is on both sides; else only no prompt is.
    """

    group_ids: tuple[str, ...]
    unit_of: Mapping[str, str]
    by_users: bool

    @property
    def unit(self) -> str:
        """The noun for what was drawn whole."""
        return "user" if self.by_users else "prompt"


def hold_out(
    prompts: Mapping[str, str], users: Mapping[str, Iterable[str]], *, fraction: float, seed: int
) -> HeldOutGroups:
    """Return about `fraction` of the groups, at least one, with all that share a prompt or a user with them.

    Which these are depends on the prompts and the seed alone. Where users tie more than half of all groups together
    (one user asked most of them), the split is by prompt.

    Args:
        prompts: group -> what it was asked, in any form that is equal for equal prompts.
        users: group -> users of its samples; none for groups that name none.
        fraction: of the groups, in (0, 1).
        seed: another one holds out others.

    Raises:
        ValueError: there are no two units, of which one could be held out.
    """
    by_prompt = {group: f"prompt {prompt}" for group, prompt in prompts.items()}
    tied = _tie_users(by_prompt, users)
    has_users = any(any(users.get(group, ())) for group in prompts)
    by_users = has_users and max(Counter(tied.values()).values()) <= LARGEST_SHARE * len(prompts)
    unit_of = tied if by_users else by_prompt
    sizes = Counter(unit_of.values())
    if len(sizes) < 2:
        raise ValueError(
            f"{len(prompts)} groups with one prompt in all: there is none to hold out. Collect answers to more "
            "questions, or set log.held_out_fraction = 0, and nothing says whether the model is better"
        )
    chosen = _choose(sizes, ceil(fraction * len(prompts)), seed)
    return HeldOutGroups(
        group_ids=tuple(sorted(group for group, unit in unit_of.items() if unit in chosen)),
        unit_of=unit_of,
        by_users=by_users,
    )


def _tie_users(by_prompt: Mapping[str, str], users: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return group -> the first node of what hangs together by prompts and users (union and find)."""
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for group, prompt in by_prompt.items():
        for user in users.get(group, ()):
            first, second = sorted((root(prompt), root(f"user {user}")))
            parents[second] = first
    return {group: root(prompt) for group, prompt in by_prompt.items()}


def _choose(sizes: Mapping[str, int], wanted: int, seed: int) -> set[str]:
    """Return units with about so many groups, in the order of their hashes, and never all units."""
    order = sorted(sizes, key=lambda unit: blake2b(f"{seed} {unit}".encode(), digest_size=8).digest())
    chosen, taken = {order[0]}, sizes[order[0]]
    for unit in order[1:-1]:
        if taken + sizes[unit] <= wanted:
            chosen.add(unit)
            taken += sizes[unit]
    return chosen
