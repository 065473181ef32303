"""What happened in a conversation: calls of tools and what became of them, why it ended, which samples it is."""

from dataclasses import dataclass

from klimb.experience.samples import Sample, Turn

ENDED = "ended"
"""Key of a sample's metadata: what ended its conversation.

`over`: the policy or the environment. `max_new_tokens`: a turn was cut. `max_turns`, `max_tokens`, `sample_seconds`:
the limits of `[environment]`. `context`: the model has no more positions, for another turn or for the rest of one.
`template`: it refuses what was said or came in. `error`: the environment is lost.
"""


ENVIRONMENT_ERROR = "environment_error"
"""Key of a sample's metadata: why its environment is lost, so that there is no reward."""


LIMITS = ("max_turns", "max_tokens", "context", "sample_seconds")
"""What `metadata["ended"]` says of a conversation that a limit ended."""


def is_conversation(sample: Sample) -> bool:
    """Return whether the sample has several turns, was offered tools, or is a turn of a conversation.

    So is one whose environment was lost before anything could be said.
    """
    return bool(sample.turns or sample.tools or sample.episode or has_environment_error(sample))


def is_cut(sample: Sample) -> bool:
    """Return whether a limit ended the response: of its last turn's tokens, or of the conversation."""
    return sample.finish_reason == "length" or sample.metadata.get(ENDED) in LIMITS


@dataclass(frozen=True)
class Calls:
    """How many tools a sample asked for.

    Attributes:
        num_made: calls, and turns whose calls could not be read, each of which counts as one.
        num_failed: those of them that could not be read, named no tool, had wrong arguments, raised, or took too long.
    """

    num_made: int
    num_failed: int


def count_calls(sample: Sample) -> Calls:
    """Count the calls of a sample by its turns: the errors of what follows a turn are those of its calls."""
    made = failed = left = 0
    for turn in sample.conversation:
        if turn.is_drawn:
            left = len(turn.calls)
            made += left + bool(turn.error)
            failed += bool(turn.error)
        elif turn.error and left:
            failed += 1
            left -= 1
    return Calls(num_made=made, num_failed=failed)


def turns_drawn(sample: Sample) -> list[Turn]:
    """Return the policy's turns; none of a conversation that ended before it could say anything."""
    if not sample.turns and not sample.response_ids and not sample.response:
        return []
    return [turn for turn, _ in sample.drawn_turns]


def has_environment_error(sample: Sample) -> bool:
    """Return whether the sample's environment died."""
    return bool(sample.metadata.get(ENVIRONMENT_ERROR))
