"""Which turn of a conversation a reward is credited to. Pure functions of samples, read without torch.

A conversation is one sample, or several that share an `episode`: then each has its own prompt, and all have the
conversation's reward R. Its turns have rewards of their own where an environment gave them; what is left of R belongs
to the last one:

    r_k = reward of turn k,   r_last = R − Σ_{k < last} r_k,   G_k = Σ_{j ≥ k} r_j
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

from klimb.experience.samples import Sample


def number_conversations(samples: Sequence[Sample]) -> list[int]:
    """Return a number for each sample, from 0 in their order; samples of one conversation share it."""
    numbers: dict[object, int] = {}
    return [
        numbers.setdefault((sample.group_id, sample.episode) if sample.episode else place, len(numbers))
        for place, sample in enumerate(samples)
    ]


def group_conversations(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Return the samples of each conversation together."""
    found: dict[int, list[Sample]] = {}
    for number, sample in zip(number_conversations(samples), samples, strict=True):
        found.setdefault(number, []).append(sample)
    return [tuple(members) for members in found.values()]


def one_of_each(samples: Sequence[Sample]) -> list[Sample]:
    """Return the first sample of each conversation: what is counted or compared is conversations."""
    return [members[0] for members in group_conversations(samples)]


def turn_rewards(samples: Sequence[Sample], rewards: Sequence[float]) -> list[tuple[float, ...]]:
    """Return for each sample the reward of each turn that the policy drew: r_k as above, for its last Σ_{j ≥ k} r_j.

    So what comes after a sample that is not the end of its conversation stands at its last turn.

    Args:
        samples: those of a conversation in its order, all of them.
        rewards: R of each, or what stands for it: in other units, or less a baseline.
    """
    spent: dict[int, float] = {}
    found: list[tuple[float, ...]] = []
    for number, sample, whole in zip(number_conversations(samples), samples, rewards, strict=True):
        own = [turn.reward or 0.0 for turn, _ in sample.drawn_turns]
        before = spent.get(number, 0.0)
        found.append((*own[:-1], whole - before - sum(own[:-1])))
        spent[number] = before + sum(own)
    return found


Compare = Callable[[Sequence[float]], Sequence[float]]
"""From one number a conversation to the advantage of each."""


def turn_advantages(samples: Sequence[Sample], rewards: Sequence[float], compare: Compare) -> list[tuple[float, ...]]:
    """Return for each sample the advantage of each turn that the policy drew.

    Turn k is compared by its return G_k with those of the other conversations' turns k; of a conversation that has
    ended by then, with its last turn's. With rewards for whole conversations alone, each turn has the advantage of its
    conversation. The comparison does not depend on what the policy says at turn k or later in the same conversation, as
    long as `compare` leaves each one's own number out of its baseline.

    Args:
        samples: those of a conversation in its order, all of them.
        rewards: R of each, or what stands for it.
        compare: called once for each turn number, with G_k of each conversation in the order of
            `number_conversations`.
    """
    numbers = number_conversations(samples)
    returns: dict[int, list[float]] = {}
    for number, rewards_of_turns in zip(numbers, turn_rewards(samples, rewards), strict=True):
        returns.setdefault(number, []).extend(reversed([*accumulate(reversed(rewards_of_turns))]))
    most = max(map(len, returns.values()), default=0)
    by_turn = [compare([of_one[min(k, len(of_one) - 1)] for of_one in returns.values()]) for k in range(most)]
    places = dict.fromkeys(returns, 0)
    found: list[tuple[float, ...]] = []
    for number, sample in zip(numbers, samples, strict=True):
        start = places[number]
        places[number] += len(sample.drawn_turns)
        found.append(tuple(float(by_turn[k][number]) for k in range(start, places[number])))
    return found


def spread_over_tokens(sample: Sample, by_turn: Sequence[float], *, at_ends: bool) -> list[float]:
    """Return a number for each token of the response: that of its turn, 0 for what the policy did not draw.

    Args:
        sample: one.
        by_turn: a number for each turn that the policy drew.
        at_ends: give it to the last token of the turn alone. That of a turn without a token goes to the last drawn one
            before; where there is none, nothing that the policy said can have brought it about.
    """
    left = iter(by_turn)
    tokens: list[float] = []
    last: int | None = None
    for turn in sample.conversation:
        number = next(left) if turn.is_drawn else 0.0
        tokens += [0.0 if at_ends else number] * turn.num_tokens
        if turn.is_drawn and turn.num_tokens:
            last = len(tokens) - 1
        if at_ends and last is not None:
            tokens[last] += number
    return tokens
