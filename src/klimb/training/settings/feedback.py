"""What of people's feedback is learnt from: preferences, corrections, comments, whole conversations."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MaxLen

from klimb.declarations import Checked, configurable, require, require_known

Preferences = Literal["pairs", "off"]


PREFERENCES: tuple[str, ...] = get_args(Preferences)


Corrections = Literal["pairs", "demonstrations", "off"]


CORRECTIONS_OF_PEOPLE: tuple[str, ...] = get_args(Corrections)


Conversations = Literal["turns", "whole"]


CONVERSATIONS: tuple[str, ...] = get_args(Conversations)


CommentTeacher = Literal["policy", "reference"]


COMMENT_TEACHERS: tuple[str, ...] = get_args(CommentTeacher)


COMMENT_SLOTS = ("{question}", "{comment}")


COMMENT_TEMPLATE = (
    "{question}\n\nA person said of an earlier answer to this: {comment}\n\nAnswer with that taken into account."
)


def check_comment_template(text: str) -> str:
    """Return the template if both things have a place in it.

    Raises:
        ValueError: one has none.
    """
    missing = [slot for slot in COMMENT_SLOTS if slot not in text]
    if missing:
        raise ValueError(
            f"comment_template has no {' and no '.join(missing)}, got {text!r}; write both where they are to stand"
        )
    return text


@configurable
@dataclass(frozen=True, kw_only=True)
class FeedbackSettings:
    """What people's words become. A rating is the reward of its answer in any case."""

    preferences: Preferences = "pairs"
    """`pairs`: two answers of which people preferred one are a group of their own, the share of the people who chose an
    answer its reward. `off` leaves preferences out."""
    corrections: Corrections = "pairs"
    """The answer that a person wrote instead: `pairs` sets it (reward 1) against the answer it corrects (reward 0),
    `demonstrations` gives it alone, with reward 1; `off` leaves corrections out."""
    conversations: Conversations = "turns"
    """`turns`: each rated answer by itself. `whole`: those of a conversation joined to one sample, with its ratings as
    the rewards of its turns, where each prompt begins with all tokens before it."""
    max_rater_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """Most that one named person's ratings may be of all that count, and the same of preferences and of corrections;
    with k people at least 2/k. Which of a person's count is chance, and the same each time. 1 counts all."""
    comment_weight: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of what a comment says in the advantages of the answer's tokens, the rating's being the rest; 0 switches it
    off. A token's is log pi with the comment in the prompt less log pi without."""
    comment_template: Annotated[str, MaxLen(20_000), Checked(check_comment_template)] = COMMENT_TEMPLATE
    """The last user's message where the comment is shown; {question} stands for the message and {comment} for it."""
    comment_teacher: CommentTeacher = "policy"
    """Who is shown the comment: the policy as it was before the batch, or the reference, which moves no further."""

    def __post_init__(self) -> None:
        require_known("preferences", self.preferences, PREFERENCES)
        require_known("corrections", self.corrections, CORRECTIONS_OF_PEOPLE)
        require_known("conversations", self.conversations, CONVERSATIONS)
        require(0 < self.max_rater_fraction <= 1, "max_rater_fraction", self.max_rater_fraction, "in (0, 1]")
        require(0 <= self.comment_weight <= 1, "comment_weight", self.comment_weight, "in 0 to 1")
        cap = self.max_rater_fraction
        require(0 < cap <= 1, "max_rater_fraction", cap, "above 0 and at most 1, which counts all")
        require_known("comment_teacher", self.comment_teacher, COMMENT_TEACHERS)
        check_comment_template(self.comment_template)
