"""A conversation as tokens that were logged message by message, cut into responses.

Each piece says what it adds to the sequence and which of its tokens were drawn. Its tokens one after another are what
the model saw.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from klimb.experience.importing.cells import listed, message, token_ids
from klimb.experience.importing.conversations import as_turn, with_drawn_text
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.thoughts import has_thoughts
from klimb.experience.reading.records import RowError
from klimb.experience.samples import POLICY_ROLE, FinishReason, Message, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One message with what it adds to the sequence.

    Attributes:
        message: as klimb has it.
        is_drawn: the policy said it. An assistant's message of others is a part of the history.
        ids: its tokens, with the template's own text before it; empty where only the text was logged.
        mask: of each token whether the policy drew it.
        log_probs: of each drawn token; None where none were logged.
        has_thoughts: a server cut them out of the text.
        finish_reason: of a drawn message.
        reward: of this turn alone.
    """

    message: Message
    is_drawn: bool = False
    ids: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()
    log_probs: tuple[object, ...] | None = None
    has_thoughts: bool = False
    finish_reason: FinishReason = "unknown"
    reward: float | None = None

    def __post_init__(self) -> None:
        if len(self.mask) != len(self.ids):
            raise RowError("a mask of another length than its tokens", f"{len(self.mask)} for {len(self.ids)}")
        num_drawn = sum(self.mask)
        if num_drawn and not self.is_drawn:
            raise RowError("drawn tokens in a message that the model did not say", f"{num_drawn} tokens")
        if self.log_probs is not None and len(self.log_probs) != num_drawn:
            raise RowError(
                "another number of log-probabilities than of drawn tokens", f"{len(self.log_probs)} for {num_drawn}"
            )


@dataclass(kw_only=True)
class Part:
    """A prompt and the turns behind it.

    Attributes:
        log_probs: of the drawn tokens; None as soon as one turn has none.
    """

    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    turns: list[Turn] = field(default_factory=list[Turn])
    response_ids: list[int] = field(default_factory=list[int])
    log_probs: list[object] | None = field(default_factory=list[object])

    @property
    def finish_reason(self) -> FinishReason:
        """Of the last turn that was drawn."""
        drawn = [turn for turn in self.turns if turn.is_drawn]
        return drawn[-1].finish_reason

    def take(self, piece: Piece, rules: ImportRules) -> None:
        """Add a message behind what is there."""
        start, end = _span(piece.mask)
        if not piece.is_drawn:
            self._put_in(as_turn(piece.message), piece.ids)
            return
        self._put_in(None, piece.ids[:start])
        turn = replace(as_turn(piece.message, finish_reason=piece.finish_reason), reward=piece.reward)
        drawn = piece.ids[start:end]
        if piece.ids or piece.has_thoughts:
            turn = with_drawn_text(turn, drawn, rules, has_thoughts=piece.has_thoughts)
        self.turns.append(turn)
        self.response_ids += drawn
        self._put_in(None, piece.ids[end:])
        if self.log_probs is not None:
            self.log_probs = None if piece.log_probs is None else [*self.log_probs, *piece.log_probs]

    def _put_in(self, turn: Turn | None, ids: Sequence[int]) -> None:
        """Add context; its tokens belong to the first of the context turns that stand together."""
        self.response_ids += ids
        if turn is not None:
            self.turns.append(turn)
        if not ids:
            return
        first = len(self.turns)
        while first and not self.turns[first - 1].is_drawn:
            first -= 1
        if first == len(self.turns):
            self.turns.append(Turn(role="system", text="", num_tokens=0))  # the template's own text, before a turn
        self.turns[first] = replace(self.turns[first], num_tokens=self.turns[first].num_tokens + len(ids))


def _span(mask: Sequence[bool]) -> tuple[int, int]:
    """Return where the drawn tokens begin and end.

    Raises:
        RowError: there is a hole in them.
    """
    drawn = [place for place, is_drawn in enumerate(mask) if is_drawn]
    if not drawn:
        return len(mask), len(mask)
    if drawn[-1] - drawn[0] + 1 != len(drawn):
        raise RowError("a drawn turn with tokens in it that were not drawn", f"{len(drawn)} of {len(mask)}")
    return drawn[0], drawn[-1] + 1


def cut_into_parts(pieces: Iterable[Piece], rules: ImportRules) -> list[Part]:
    """Return the responses in a path: one, unless somebody else speaks as the assistant in between.

    Raises:
        RowError: one has a turn that is not what its tokens spell.
    """
    parts: list[Part] = []
    messages: list[Message] = []
    ids: list[int] = []
    is_open = False
    for piece in pieces:
        if piece.is_drawn and not is_open:
            start, _ = _span(piece.mask)
            parts.append(Part(prompt=tuple(messages), prompt_ids=(*ids, *piece.ids[:start])))
            parts[-1].take(replace(piece, ids=piece.ids[start:], mask=piece.mask[start:]), rules)
            is_open = True
        elif is_open and (piece.is_drawn or piece.message["role"] != POLICY_ROLE):
            parts[-1].take(piece, rules)
        else:
            is_open = False
        messages.append(piece.message)
        ids += piece.ids
    for part in parts:
        if part.response_ids and not all(turn.num_tokens for turn in part.turns if turn.is_drawn):
            raise RowError("a response of which some turns have no token ids", "expected those of all, or of none")
    return parts


def read_piece(
    entry: Mapping[str, object],
    *,
    is_drawn: bool,
    ids: object = None,
    mask: object = None,
    log_probs: object = None,
    finish_reason: FinishReason = "unknown",
    tool: str = "",
) -> Piece:
    """Return a logged message with its tokens; without a mask all tokens of a drawn one are drawn."""
    tokens = token_ids(ids, what="token ids")
    flags = listed(mask)
    values = listed(log_probs)
    # Logs leave out what is null, and an assistant that only calls or thinks says nothing.
    is_silent = is_drawn and entry.get("content") is None
    return Piece(
        message=message({**entry, "content": ""} if is_silent else entry, what="a message", tool=tool),
        is_drawn=is_drawn,
        ids=tokens,
        mask=tuple(bool(flag) for flag in flags) if flags else (is_drawn,) * len(tokens),
        log_probs=tuple(values) if is_drawn and tokens and values else None,
        has_thoughts=is_drawn and has_thoughts(entry),
        finish_reason=finish_reason,
    )
