"""What the user states about a file. Nothing in it is guessed from the rows.

What people said of a response, as a number. Nothing said is None, never a bad rating.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from klimb.experience.importing.cells import number
from klimb.experience.importing.request_settings import HELD, is_known
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import Sample

LogProbKind = Literal["raw", "processed"]
"""`raw`: of the model before temperature and truncation, as servers log by default. `processed`: after them."""


IdKind = Literal["logged", "content"]


@dataclass(frozen=True, kw_only=True)
class ImportRules:
    """How rows become samples.

    Attributes:
        columns: our name of a column -> its name in the file.
        scale: (lowest, highest) rating; ratings become (value − lowest)/(highest − lowest).
        value_map: text of a rating -> its value; with it, no other text is a rating.
        sampling: settings that the user states for what a request does not say, e.g. `{"temperature": 1.0}`; those
            that no sample holds (`frequency_penalty`) count as the request's own do.
        log_probs: what the file's log-probabilities are of.
        max_reward: a reward of larger magnitude is rejected.
        max_tokens: more prompt and response tokens than this are rejected; None asks nothing.
        num_vocab: token ids from here on are rejected; None knows no vocabulary.
        keep_users: user ids stay as they are; else they are hashed with `salt`.
        salt: kept with the store, so that a user has one hash in all files.
        resolve: token byte strings -> token ids, ValueError if one of them is not a token; None without a model.
        tokenizer: fingerprint of the tokenizer behind `resolve`.
        decode: token ids of a drawn turn -> its text, with the marks of its calls; None without a model.
        encode: a conversation that is text alone -> the same with token ids: one sample, or one a turn where the chat
            template rewrites what was said; ValueError where it cannot be rendered. None without a model.
        turns: of a whole conversation, all turns of the assistant behind the first question are the policy's; else
            the last alone.
        score_name: keep the scores of this name alone.
        ignore: columns of the file that are not there for the import; the raw row keeps them.
        ids: `logged`: a sample has the id that its row has; `content`: ids of the file are not unique, and a hash of
            the row is the id.
        redact: a text -> the same without personal data, for what is kept of a row; None keeps it.
        now: seconds since the epoch; later rows are rejected.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    scale: tuple[float, float] | None = None
    value_map: Mapping[str, float] = field(default_factory=dict[str, float])
    sampling: Mapping[str, float] = field(default_factory=dict[str, float])
    log_probs: LogProbKind = "raw"
    max_reward: float = math.inf
    max_tokens: int | None = None
    num_vocab: int | None = None
    keep_users: bool = False
    salt: bytes = b""
    resolve: Callable[[Sequence[bytes]], tuple[int, ...]] | None = None
    tokenizer: str = ""
    decode: Callable[[Sequence[int]], str] | None = None
    encode: Callable[[Sample], Sequence[Sample]] | None = None
    turns: bool = False
    score_name: str = ""
    ignore: tuple[str, ...] = ()
    ids: IdKind = "logged"
    redact: Callable[[str], str] | None = None
    now: float = math.inf

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError(f"a scale goes from the lowest to the highest rating, got {self.scale[0]} {self.scale[1]}")
        if not self.max_reward > 0:
            raise ValueError(f"max_reward must be > 0, got {self.max_reward}")
        unknown = [name for name in self.sampling if not is_known(name)]
        if unknown:
            raise ValueError(
                f"sampling settings are {', '.join(HELD)} and those that servers have besides (frequency_penalty, "
                f"typical_p, …), got {', '.join(sorted(unknown))}"
            )


THUMBS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("up", "thumbs_up", "thumbsup", "thumb_up", "upvote", "like", "\N{THUMBS UP SIGN}"), 1.0),
        **dict.fromkeys(
            ("down", "thumbs_down", "thumbsdown", "thumb_down", "downvote", "dislike", "\N{THUMBS DOWN SIGN}"), 0.0
        ),
    }
)
"""Texts that are a rating without a map, in small letters; a space or a hyphen in them is an underscore here."""


def thumb(value: object) -> float | None:
    """Return what a text says that is a thumb; None for any other text, and for what is none."""
    return THUMBS.get(re.sub(r"[ -]", "_", value.strip().lower())) if isinstance(value, str) else None


def rating(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return the value of a rating, in [0, 1] unless a map of the user says otherwise.

        thumbs and booleans:  up, true -> 1; down, false -> 0
        with a scale:         (value − lowest)/(highest − lowest)
        with a map:           what the map says; nothing else is a rating

    Raises:
        RowError: a text without a map, or a number outside [0, 1] without a scale.
    """
    if value is None:
        return None
    if rules.value_map:
        return _mapped(value, rules.value_map)
    if (found := thumb(value)) is not None:
        return found
    if isinstance(value, str) and not row.is_text:
        raise RowError("a rating that is text", f"{value[:40]!r}; say what it stands for: --map {value[:40]}=1")
    as_float = number(value, what="the rating", row=row)
    low, high = rules.scale if rules.scale is not None and not isinstance(value, bool) else (0.0, 1.0)
    if not low <= as_float <= high:
        advice = "" if rules.scale else "; state the scale: --scale MIN MAX"
        raise RowError("a rating outside its scale", f"{as_float:g} is not in {low:g} to {high:g}{advice}")
    return (as_float - low) / (high - low)


def reward(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return a reward as it is; on the scale or by the map of the user if there is one.

    Raises:
        RowError: text, NaN, infinite.
    """
    if value is None:
        return None
    if rules.scale is not None or rules.value_map:
        return rating(value, rules, row)
    return number(value, what="the reward", row=row)


def _mapped(value: object, value_map: Mapping[str, float]) -> float:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text not in value_map:
        raise RowError("a rating that the map does not name", f"{text[:40]!r}; it names {', '.join(value_map)}")
    return value_map[text]
