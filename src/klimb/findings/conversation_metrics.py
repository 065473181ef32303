"""The metrics of a step's conversations: turns, calls, tokens, ends, and what goes with their length."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from klimb.experience.samples import Sample
from klimb.experience.turn_rewards import group_conversations
from klimb.findings.conversations import (
    ENDED,
    LIMITS,
    count_calls,
    has_environment_error,
    is_conversation,
    turns_drawn,
)
from klimb.findings.statistics.correlations import pearson, ranks


def measure_conversations(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the metrics of those samples that are conversations; none where there are none."""
    talks = [sample for sample in samples if is_conversation(sample)]
    if not talks:
        return {}
    episodes = group_conversations(talks)
    turns = [turn for sample in talks for turn in turns_drawn(sample)]
    num_tokens, num_drawn = sum(len(sample.response_ids) for sample in talks), sum(map(_num_drawn, talks))
    calls = [count_calls(sample) for sample in talks]
    num_calls = sum(each.num_made for each in calls)
    metrics = {
        "num_turns_mean": len(turns) / len(episodes),
        "calls_mean": num_calls / len(episodes),
        "num_context_tokens": float(num_tokens - num_drawn),
        "num_environment_errors": float(sum(any(map(has_environment_error, members)) for members in episodes)),
        "split_fraction": statistics.fmean(bool(members[0].episode) for members in episodes),
    }
    if turns:
        metrics["truncated_turns_fraction"] = statistics.fmean(turn.finish_reason == "length" for turn in turns)
    if num_tokens:
        metrics["drawn_fraction"] = num_drawn / num_tokens
    if num_calls:
        metrics["failed_calls_fraction"] = sum(each.num_failed for each in calls) / num_calls
    ended = [reason for members in episodes if (reason := _why_ended(members))]
    if ended:
        metrics["turn_limit_fraction"] = statistics.fmean(reason in LIMITS for reason in ended)
    return metrics | _measure_calls_read(talks) | _measure_what_is_rewarded(episodes)


def _measure_calls_read(talks: Sequence[Sample]) -> dict[str, float]:
    """Return the share of calls that could not be read, and of conversations with tools that used none."""
    turns = [turn for sample in talks for turn in turns_drawn(sample)]
    num_unread, num_read = sum(bool(turn.error) for turn in turns), sum(len(turn.calls) for turn in turns)
    metrics: dict[str, float] = {}
    if num_unread + num_read:
        metrics["unread_calls_fraction"] = num_unread / (num_unread + num_read)
    offered = group_conversations([sample for sample in talks if sample.tools])
    if offered:
        unused = [not any(count_calls(sample).num_made for sample in members) for members in offered]
        metrics["tools_unused_fraction"] = statistics.fmean(unused)
    return metrics


def _num_drawn(sample: Sample) -> int:
    return sample.num_drawn


def _why_ended(members: Sequence[Sample]) -> str:
    """Return why the conversation ended, as its last turn says that says it; empty where none does."""
    return next((sample.metadata[ENDED] for sample in reversed(members) if sample.metadata.get(ENDED)), "")


def _measure_what_is_rewarded(episodes: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Return how reward, and being right, go with the length of a dialogue among those with the same prompt.

    Each is a correlation of ranks that are taken, and centred, within a group: a prompt that takes more turns and
    earns less than others says nothing.
    """
    found: dict[str, float] = {}
    for size, measure in (("turns", _count_turns), ("drawn", _count_drawn)):
        for name, value_of in (("reward", _reward), ("correct", _is_correct)):
            value = _correlation_within(episodes, measure, value_of)
            if value is not None:
                found[f"{name}_{size}_correlation"] = value
    return found


Members = Sequence[Sample]


def _count_turns(members: Members) -> float:
    return float(sum(len(turns_drawn(sample)) for sample in members))


def _count_drawn(members: Members) -> float:
    return float(sum(map(_num_drawn, members)))


def _reward(members: Members) -> float | None:
    return next((sample.reward for sample in reversed(members) if sample.reward is not None), None)


def _is_correct(members: Members) -> float | None:
    verdicts = [verdict for sample in members if (verdict := sample.metadata.get("correct")) is not None]
    return float(verdicts[-1] == "yes") if verdicts and _reward(members) is not None else None


def _correlation_within(
    episodes: Sequence[Members], size_of: Callable[[Members], float], value_of: Callable[[Members], float | None]
) -> float | None:
    groups: dict[str, list[tuple[float, float]]] = {}
    for members in episodes:
        value = value_of(members)
        if value is not None:
            groups.setdefault(members[0].group_id, []).append((size_of(members), value))
    columns = [np.array(pairs, dtype=np.float64).T for pairs in groups.values() if len(pairs) > 1]
    if not columns:
        return None
    centred = [np.stack([ranks(column) - (len(column) + 1) / 2 for column in pair]) for pair in columns]
    sizes, values = np.concatenate(centred, axis=1)
    return pearson(sizes, values)
