"""Rules about conversations: calls that nobody can read, tools that are not used, talk that is paid, limits."""

from klimb.findings.finding import Finding
from klimb.findings.run.evidence import Curve, at, counts_of, curve_of, in_words, runs_of_steps
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import Thresholds


def environment_dies(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Environments died, and their conversations have no reward."""
    counts, drawn = counts_of(record, "num_environment_errors"), sum(counts_of(record, "num_samples").values())
    died = sum(counts.values())
    if not drawn or died / drawn <= limits.max_environment_errors:
        return None
    where = [step for step, count in counts.items() if count]
    return Finding(
        status="warning",
        title="Environments died often",
        evidence=(
            f"{died:.0f} of {drawn:.0f} ({died / drawn:.1%}, limit {limits.max_environment_errors:.0%}), at "
            f"{runs_of_steps(where)}. Their conversations have no reward and are in no average."
        ),
        advice=(
            "Read environment_error in the metadata of rollouts/ (klimb experience show). Memory that runs out, a "
            "process that ends, and an error while it is set up cost the whole conversation; a tool that raises does "
            "not."
        ),
        steps=(where[0], where[-1]),
    )


def calls_not_read(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Nearly no call of a tool could be read, to the end."""
    unread = curve_of(record, "unread_calls_fraction", limits)
    if unread is None or unread.last.mean <= limits.unread_calls:
        return None
    return Finding(
        status="bad",
        title="The model's calls of tools cannot be read",
        evidence=(
            f"{unread.last.mean:.0%} of its calls ({at(unread.last)}; {unread.first.mean:.0%} at the start, limit "
            f"{limits.unread_calls:.0%}) are in no format that is read, so no tool was ever run for them."
        ),
        advice=(
            "Look at one of them (klimb experience show): the error says what was expected. Name the model's format in "
            "environment.call_format, raise sampling.max_new_tokens if calls are cut off, or clone a few conversations "
            "with calls first."
        ),
        steps=unread.last.steps,
    )


def tools_not_used(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Tools are offered, and nearly no conversation calls one, to the end."""
    unused = curve_of(record, "tools_unused_fraction", limits)
    if unused is None or unused.last.mean <= limits.unused_tools:
        return None
    return Finding(
        status="warning",
        title="Tools are offered and not used",
        evidence=(
            f"{unused.last.mean:.0%} of the conversations with tools ({at(unused.last)}; {unused.first.mean:.0%} at "
            f"the start, limit {limits.unused_tools:.0%}) call none."
        ),
        advice=(
            "Say in the prompt when to call which tool, and read a conversation: a call in another format than the "
            "model's template has looks like plain text. If the task is solved without tools, offer none: their "
            "schemas cost tokens in every prompt."
        ),
        steps=unused.last.steps,
    )


def talk_is_paid(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Within groups the reward goes with the length of the dialogue, and being correct does not."""
    for size, words in (("turns", "the number of turns"), ("drawn", "the number of drawn tokens")):
        reward = curve_of(record, f"reward_{size}_correlation", limits)
        correct = curve_of(record, f"correct_{size}_correlation", limits)
        if reward is not None and correct is not None and _is_paid(reward, correct, limits):
            return Finding(
                status="bad",
                title="The reward pays for the length of the dialogue",
                evidence=(
                    f"Among answers to one prompt the reward goes with {words} (correlation of ranks "
                    f"{reward.mean:.2f}, limit {limits.dialogue_reward:g}) and being correct does not "
                    f"({correct.mean:.2f}, limit {limits.dialogue_correct:g}); means over steps "
                    f"{in_words(reward.span)}."
                ),
                advice=(
                    "Take what is paid by the turn or by the token out of the reward (look at reward_part_*, and at "
                    "the rewards of single turns), or pay for the result alone."
                ),
                steps=reward.span,
            )
    return None


def _is_paid(reward: Curve, correct: Curve, limits: Thresholds) -> bool:
    return reward.mean > limits.dialogue_reward and correct.mean < limits.dialogue_correct


def turn_limit(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Most conversations end because a limit is reached."""
    ended = curve_of(record, "turn_limit_fraction", limits)
    if ended is None or ended.last.mean <= limits.max_turn_limit:
        return None
    turns = curve_of(record, "num_turns_mean", limits)
    most = record.setting("environment.max_turns", "not known")
    return Finding(
        status="warning",
        title="Most conversations end at a limit",
        evidence=(
            f"{ended.last.mean:.0%} ({at(ended.last)}; {ended.first.mean:.0%} at the start, limit "
            f"{limits.max_turn_limit:.0%}) did not end by themselves"
            + ("" if turns is None else f", after {turns.last.mean:.1f} turns on average")
            + f"; environment.max_turns = {most}."
        ),
        advice=(
            "ended in the metadata of rollouts/ says which limit it was: raise environment.max_turns, "
            "environment.max_tokens or the seconds, or say in the prompt how to end. A model that repeats one failing "
            "call needs an error that says what to do."
        ),
        steps=ended.last.steps,
    )
