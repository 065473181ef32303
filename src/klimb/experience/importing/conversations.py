"""What a policy said in several turns, as rows have it: chat messages, some of them the policy's and some put in."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from klimb.experience.importing.cells import listed, mapping, message, messages
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import RowError
from klimb.experience.samples import POLICY_ROLE, FinishReason, Message, ToolCall, Turn

NO_MODEL = "its token ids are there: name the model that drew it, --model MODEL, to decode them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A response as a row has it.

    Attributes:
        text: of one turn without calls.
        turns: of all others, without token ids: the text of a turn is what it says beside its calls.
    """

    text: str = ""
    turns: tuple[Turn, ...] = ()


def read_response(value: object, *, what: str) -> Said:
    """Return a response: a text, a message of the assistant, or the messages of several turns.

    Raises:
        RowError: it is none of these, or the assistant says nothing in it.
    """
    if isinstance(value, str):
        return Said(text=value)
    return said_in(value, messages(value, what=what), what=what)


def read_dialogue(value: object, *, what: str, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    """Return a whole conversation as what was asked and what was said.

    Without `rules.turns` the last message is the response and all before it is asked. With it, the response begins
    with the assistant's first turn behind the first question. OpenAI's `weight` 0 says that a turn is none to learn
    from, so the response begins behind it.

    Raises:
        RowError: it does not end with the assistant, or a turn of weight 0 stands among others.
    """
    spoken = messages(value, what=what)
    start = _first_turn(value, spoken, what=what) if rules.turns else len(spoken) - 1
    if not spoken or not any(each["role"] == POLICY_ROLE for each in spoken[start:]):
        raise RowError(f"{what} do not end with the assistant", "nothing is there to learn from")
    entries = listed(value) or ()
    return spoken[:start], said_in(entries[start:], spoken[start:], what=what)


def _first_turn(value: object, spoken: Sequence[Message], *, what: str) -> int:
    roles = [each["role"] for each in spoken]
    question = roles.index("user") if "user" in roles else -1
    own = [place for place, role in enumerate(roles) if role == POLICY_ROLE and place > question]
    weights = [mapping(entry).get("weight") for entry in listed(value) or ()]
    drawn = [place for place in own if weights[place] != 0]
    if not drawn:
        return len(spoken)
    if any(weights[place] == 0 and place > drawn[0] for place in own):
        raise RowError(f"{what} have a turn of weight 0 among others", "it is neither the policy's nor put in")
    return drawn[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedTurn:
    """One turn of the assistant that somebody rated, of a conversation with others.

    Attributes:
        prompt: all messages before it, other turns of the assistant with their calls among them.
        said: what is rated.
        rating: as it stands there; `rules.rating` makes a number of it.
        place: of its message in the conversation, from 0. As a `part` it gives ids that stay when others are rated.
    """

    prompt: tuple[Message, ...]
    said: Said
    rating: object
    place: int


def read_rated_turns(
    value: object, *, what: str, rating_of: Callable[[Mapping[str, object]], object]
) -> list[RatedTurn]:
    """Return each turn of the assistant that was rated, with the history before it; empty where none was.

    Turns without a rating are context: nothing said of them is neither good nor bad.

    Args:
        value: chat messages, as a row has them.
        what: they are called, in messages for people.
        rating_of: the rating beside the words of one message, as it stands there; None for none. It is asked for those
            of the assistant alone.

    Raises:
        RowError: no chat messages; nothing stands before a rated turn; or its thoughts are kept apart from it.
    """
    spoken = messages(value, what=what)
    found: list[RatedTurn] = []
    for place, (entry, each) in enumerate(zip(listed(value) or (), spoken, strict=False)):
        stated = rating_of(mapping(entry)) if each["role"] == POLICY_ROLE else None
        if stated is None:
            continue
        if place == 0:
            raise RowError("a rated turn without a prompt", f"{what} begin with it, and nothing was asked before")
        said = said_in([entry], [each], what=what)
        found.append(RatedTurn(prompt=spoken[:place], said=said, rating=stated, place=place))
    return found


def said_in(value: object, spoken: Sequence[Message], *, what: str) -> Said:
    """Return what is said in messages that were read out of a cell.

    Raises:
        RowError: nobody, or not the assistant, says something; or a turn's thoughts are kept apart from it.
    """
    if not any(each["role"] == POLICY_ROLE for each in spoken):
        roles = ", ".join(each["role"] for each in spoken)
        raise RowError(f"{what} is no message of the assistant", f"its messages are of: {roles or 'nobody'}")
    for entry, each in zip(listed(value) or (), spoken, strict=True):
        if each["role"] == POLICY_ROLE:
            check_thoughts(mapping(entry))
    if len(spoken) == 1 and not spoken[0].get("tool_calls"):
        return Said(text=spoken[0]["content"])
    return Said(turns=tuple(map(as_turn, spoken)))


def read_answer(entry: Mapping[str, object], *, what: str) -> Said:
    """Return what a model's own message says; its role need not be there.

    Raises:
        RowError: thoughts kept apart: then the text as it was drawn is not known.
    """
    return said_in([entry], [message({"role": POLICY_ROLE, **entry}, what=what)], what=what)


def check_thoughts(entry: Mapping[str, object]) -> None:
    """Raise RowError for a message whose thoughts a server cut out of its text."""
    if has_thoughts(entry):
        raise RowError("thoughts kept apart from the response", "log the text as it was drawn: no reasoning parser")


def has_thoughts(entry: Mapping[str, object]) -> bool:
    """Tell whether a server cut thoughts out of the text of a message."""
    return bool(entry.get("reasoning_content") or entry.get("reasoning"))


def as_turn(spoken: Message, *, finish_reason: FinishReason = "unknown") -> Turn:
    """Return a message as a turn without tokens."""
    return Turn(
        role=spoken["role"],
        text=spoken["content"],
        num_tokens=0,
        finish_reason=finish_reason if spoken["role"] == POLICY_ROLE else "unknown",
        calls=tuple(
            ToolCall(
                name=call["function"]["name"], arguments=json.dumps(call["function"]["arguments"], ensure_ascii=False)
            )
            for call in spoken.get("tool_calls", ())
        ),
        name=spoken.get("name", ""),
    )


def with_drawn_text(turn: Turn, ids: Sequence[int], rules: ImportRules, *, has_thoughts: bool = False) -> Turn:
    """Return a drawn turn with its tokens, and as its text what they spell.

    A server that reads the calls and the thoughts out of a turn logs what is left, which is not what was drawn.

    Raises:
        RowError: its text was not logged and no model is named that could decode the ids, or they spell another turn.
    """
    turn = replace(turn, num_tokens=len(ids))
    if not (turn.calls or has_thoughts):
        return turn
    if rules.decode is None:
        raise RowError("a turn whose text as it was drawn is not recorded", NO_MODEL)
    drawn = rules.decode(ids)
    for part in (turn.text.strip(), *(call.name for call in turn.calls)):
        if part not in drawn:
            raise RowError(
                "token ids that do not spell the turn",
                f"{drawn[:60]!r} lacks {part[:60]!r}; is --model the one that drew?",
            )
    return replace(turn, text=drawn)


def join_texts(turns: Sequence[Turn]) -> str:
    """Return what the policy said, with an empty line between its turns."""
    return "\n\n".join(turn.text for turn in turns if turn.is_drawn)
