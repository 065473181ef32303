"""What a policy said in several turns, as rows have it: chat messages, some of them the policy's and some put in."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from klimb.experience.importing.cells import (
    are_messages,
    as_json,
    first_of,
    listed,
    mapping,
    message,
    message_role,
    messages,
)
from klimb.experience.importing.rating_texts import read_thumb
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.thoughts import ADVICE, REASON, has_thoughts
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
    if isinstance(value, Mapping):
        value = [_as_message(mapping(cast(object, value)), what=what)]
    return said_in(value, messages(value, what=what), what=what)


def _as_message(value: Mapping[str, object], *, what: str) -> object:
    if not are_messages(value):
        raise RowError(f"{what} is an object and no message", "write the text as it was drawn, spaces and all")
    return value


def read_dialogue(value: object, *, what: str, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    """Return a whole conversation as what was asked and what was said.

    Without `rules.turns` the last message is the response and all before it is asked. With it, the response begins
    with the assistant's first turn behind the first question. A turn of `weight` 0 (OpenAI), or of which `train` is
    false, is none to learn from: it is context and no answer, so the response is the last turn before it, or with
    `rules.turns` begins behind it.

    Raises:
        RowError: it does not end with the assistant, no turn is to be learnt from, or with `rules.turns` such a turn
            stands among others.
    """
    value = as_json(value)
    spoken = messages(value, what=what)
    own = _own_turns(listed(value) or (), spoken)
    if not own or (spoken[-1]["role"] != POLICY_ROLE and not rules.turns):
        raise RowError(f"{what} do not end with the assistant", "nothing is there to learn from")
    entries = listed(value) or ()
    drawn = [place for place in own if not is_context(mapping(entries[place]))]
    if not drawn:
        raise RowError("no turn to learn from", "all turns of the assistant have the weight 0: they are context")
    if not rules.turns:
        start, end = drawn[-1], drawn[-1] + 1
    elif len(drawn) < len([place for place in own if place >= drawn[0]]):
        raise RowError(f"{what} have a turn of weight 0 among others", "it is neither the policy's nor put in")
    else:
        start, end = drawn[0], len(spoken)
    return spoken[:start], said_in(entries[start:end], spoken[start:end], what=what)


def _own_turns(entries: Sequence[object], spoken: Sequence[Message]) -> list[int]:
    """Return where the assistant speaks behind the first question; what greets before it was asked by nobody."""
    roles = [each["role"] for each in spoken]
    question = roles.index("user") if "user" in roles else -1
    return [place for place, role in enumerate(roles[: len(entries)]) if role == POLICY_ROLE and place > question]


_LEARNT = ("weight", "train", "training", "trainable", "loss", "loss_mask", "learn")
"""What others call whether a message is to be learnt from: OpenAI, axolotl, ms-swift."""


_PARTLY = ("train_detail", "training_detail", "loss_scale")


_MARKS = frozenset((*_LEARNT, *_PARTLY))


def is_context(entry: Mapping[str, object]) -> bool:
    """Tell whether a message is marked as none to learn from: `weight` 0, or `train` false.

    Raises:
        RowError: the mark is another number, or of a part of the message.
    """
    if entry.keys().isdisjoint(_MARKS):
        return False
    for name in _PARTLY:
        if entry.get(name) not in (None, [], {}):
            raise RowError("a message of which a part is to be learnt", f"by its {name!r}; all of it is, or nothing")
    marks = {name: entry[name] for name in _LEARNT if entry.get(name) is not None}
    for name, mark in marks.items():
        if mark not in (0, 1):
            raise RowError("a weight of a message that is neither 0 nor 1", f"{name} is {mark!r}"[:80])
    return 0 in marks.values()


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
        said = said_in([entry], [each], what=what, is_rating_read=True)
        found.append(RatedTurn(prompt=spoken[:place], said=said, rating=stated, place=place))
    return found


_RATINGS = ("rating", "label", "score", "reward", "feedback", "thumb", "thumbs", "vote", "annotation", "kto_tag")
"""Where conversations that people rated have the rating of a message."""


_INNER = ("rating", "value", "score", "label", "thumb", "thumbs", "vote", "type")
"""Where the rating stands in an object, `{"rating": 1}` or `{"type": "thumbs_up", "comment": …}`."""


def rating_beside(entry: Mapping[str, object], *, name: str = "") -> tuple[str, object]:
    """Return what is rated beside the words of a message, and the rating as it stands there; None for none.

    Args:
        entry: the message.
        name: the one to take where there are several; empty for the only one.

    Raises:
        RowError: there are several.
    """
    found = dict(ratings_beside(entry))
    if name in found:
        return name, found[name]
    if len(found) > 1:
        names = ", ".join(found)
        raise RowError(
            "a turn with several ratings", f"{names}; say which is the reward: --score-name {next(iter(found))}"
        )
    return next(iter(found.items()), ("", None))


def ratings_beside(entry: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return all of them; a remark beside one that is a number or a thumb is none.

    Raises:
        RowError: one is a list of several.
    """
    found = {each: stated for each in _RATINGS if (stated := _stated(entry.get(each))) is not None}
    clear = {each: stated for each, stated in found.items() if not _is_remark(stated)}
    return list((clear or found).items())


def is_rated(entry: Mapping[str, object]) -> bool:
    """Tell whether a rating, or several, stand beside the words of a message of the assistant."""
    if entry.keys().isdisjoint(_RATINGS) or not are_messages(entry) or message_role(entry) != POLICY_ROLE:
        return False
    return any(_rates(entry.get(name)) for name in _RATINGS)


def _rates(value: object) -> bool:
    """Tell whether a rating stands in a field of a message."""
    try:
        return _stated(value) is not None
    except RowError:
        return True


def _stated(value: object) -> object:
    """Return the rating itself, out of the object around it; None for an empty one."""
    entries = listed(value)
    if entries is not None:
        if len(entries) > 1:
            raise RowError("a turn with several ratings", f"{len(entries)} of them; leave the one that counts")
        value = entries[0] if entries else None
    if isinstance(value, Mapping):
        value = first_of(mapping(cast(object, value)), *_INNER)
    return None if value == "" else value


def _is_remark(stated: object) -> bool:
    return isinstance(stated, str) and read_thumb(stated) is None


def said_in(value: object, spoken: Sequence[Message], *, what: str, is_rating_read: bool = False) -> Said:
    """Return what is said in messages that were read out of a cell.

    Args:
        value: the cell's messages.
        spoken: the same, read.
        what: they are called, in messages for people.
        is_rating_read: the caller reads ratings that stand in the messages; else one is refused.

    Raises:
        RowError: nobody, or not the assistant, says something; a turn's thoughts are kept apart from it; or it has
            marks that would be lost.
    """
    if not any(each["role"] == POLICY_ROLE for each in spoken):
        roles = ", ".join(each["role"] for each in spoken)
        raise RowError(f"{what} is no message of the assistant", f"its messages are of: {roles or 'nobody'}")
    for entry, each in zip(listed(value) or (), spoken, strict=True):
        if each["role"] == POLICY_ROLE:
            _check_answer(mapping(entry), what=what, is_rating_read=is_rating_read)
    if len(spoken) == 1 and not spoken[0].get("tool_calls"):
        return Said(text=spoken[0]["content"])
    return Said(turns=tuple(map(as_turn, spoken)))


def check_thoughts(entry: Mapping[str, object]) -> None:
    """Raise RowError for a message of the policy whose thoughts stand beside its text."""
    if has_thoughts(entry):
        raise RowError(REASON, ADVICE)


def _check_answer(entry: Mapping[str, object], *, what: str, is_rating_read: bool) -> None:
    check_thoughts(entry)
    if is_context(entry):
        raise RowError(f"{what} has a turn of weight 0", "it is context and no answer")
    if is_rating_read:
        return
    rated = [name for name in _RATINGS if name in entry and _rates(entry[name])]
    if rated:
        raise RowError(f"{what} has a rating in a message", f"{rated[0]!r}; put it beside it, in a column of the row")


def read_answer(entry: Mapping[str, object], *, what: str) -> Said:
    """Return what a model's own message says; its role need not be there.

    Raises:
        RowError: thoughts kept apart: then the text as it was drawn is not known.
    """
    return said_in([entry], [message({"role": POLICY_ROLE, **entry}, what=what)], what=what)


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
