"""What the user states about a file. Nothing in it is guessed from the rows.

What people said of a response, as a number. Nothing said is None, never a bad rating.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from klimb.experience.importing.cells import number, python_value
from klimb.experience.importing.rating_texts import is_unrated, read_rating, read_thumb
from klimb.experience.importing.request_settings import HELD, is_known
from klimb.experience.reading.records import DateOrder, DateRule, Row, RowError, UnsettledError
from klimb.experience.samples import Sample

FUTURE_SLACK = 86400.0
"""Seconds that a clock may be ahead."""


LogProbKind = Literal["raw", "processed"]
"""`raw`: of the model before temperature and truncation, as servers log by default. `processed`: after them."""


IdKind = Literal["logged", "content"]


@dataclass(frozen=True, kw_only=True)
class ImportRules:
    """How rows become samples.

    Attributes:
        columns: our name of a column -> its name in the file.
        guessed: our names of those that were guessed and not stated; a row need not have them.
        dates: order of day, month and year in dates of three numbers; empty where the whole column shows it.
        rating_form: how the file writes its ratings, as `rating_texts.RatingText` says; empty for plain numbers.
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
    guessed: frozenset[str] = frozenset()
    dates: DateOrder = ""
    rating_form: str = ""
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

    @cached_property
    def date_rule(self) -> DateRule:
        """What is known of the file's dates."""
        return DateRule(order=self.dates, latest=self.now + FUTURE_SLACK)


def rating(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return the value of a rating, in [0, 1] unless a map of the user says otherwise.

        words and booleans:  up, good, yes, true -> 1; down, bad, no, false -> 0
        with a scale:        (value − lowest)/(highest − lowest)
        with a map:          what the map says; nothing else is a rating
        percents:            a hundredth of them, where no scale is stated

    Raises:
        RowError: a text without a map, or a number outside [0, 1] without a scale.
        UnsettledError: a number that is written in a way of which the whole column decides.
    """
    found = _stated(value, rules, row)
    if found is None or rules.value_map or isinstance(found, bool):
        return None if found is None else float(found)
    low, high = rules.scale if rules.scale is not None else (0.0, 1.0)
    if not low <= found <= high:
        advice = "" if rules.scale else "; state the scale: --scale MIN MAX"
        raise RowError("a rating outside its scale", f"{found:g} is not in {low:g} to {high:g}{advice}")
    return (found - low) / (high - low)


def reward(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return a reward as it is; on the scale or by the map of the user if there is one.

    Raises:
        RowError: text that is no number and none of the words that `rating` reads; NaN, infinite.
        UnsettledError: as of `rating`.
    """
    if rules.scale is not None or rules.value_map:
        return rating(value, rules, row)
    found = _stated(value, rules, row, what="the reward")
    return None if found is None else float(found)


def _stated(value: object, rules: ImportRules, row: Row, *, what: str = "the rating") -> float | bool | None:
    """Return what is rated: by the map, a number as the file has it, or a bool for good and bad; None for nothing."""
    value = python_value(value)
    if value is None:
        return None
    if rules.value_map and (found := _mapped(value, rules.value_map)) is not None:
        return found
    if isinstance(value, str) and is_unrated(value):
        return None
    if rules.value_map:
        names = ", ".join(rules.value_map)
        raise RowError("a rating that the map does not name", f"{str(value)[:40]!r}; it names {names}")
    if isinstance(value, str):
        return _in_text(value, rules, row, what=what)
    as_float = number(value, what=what, row=row)
    return value if isinstance(value, bool) else as_float


def _in_text(text: str, rules: ImportRules, row: Row, *, what: str) -> float | bool:
    if (thumb := read_thumb(text)) is not None:
        return bool(thumb)
    found = read_rating(text)
    if found is None or (found.form in ("number", "comma") and not row.is_text):
        reason = "the reward is text" if what == "the reward" else "a rating that is text"
        said = text.strip()[:40]
        raise RowError(reason, f"{said!r}; write a number, or say what it stands for: --map {said}=1")
    if found.form == "number":
        return number(text, what=what, row=row)
    if not rules.rating_form:
        raise UnsettledError("rating", text)
    return _in_unit(found.value, found.form, rules)


def _in_unit(value: float, form: str, rules: ImportRules) -> float:
    """Return a percent as a part of 1, unless the user states another scale of it."""
    highest = 1.0 if rules.scale is None else rules.scale[1]
    return value / 100 if form == "percent" and highest <= 1 else value


def _mapped(value: object, value_map: Mapping[str, float]) -> float | None:
    """Return what the map says of a value; 4.0 is 4."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float) and value.is_integer() and text not in value_map:
        text = str(int(value))
    return value_map.get(text, value_map.get(text.strip()))
