"""What a program sends about an answer, in the forms that are understood, read into one.

- klimb's own: `{completion_id, score | label, comment?, correction?, over?, choice_index?, rater?, name?}`
- Langfuse's score (`traceId` or `observationId`, `value`, `dataType`, `comment`), which is also what programs behind
  LiteLLM send of a call: LiteLLM has no endpoint for feedback of its own and points there.
- OpenTelemetry's event `gen_ai.evaluation.result`, alone or in an OTLP/JSON export of logs or spans.

Thumbs are 1 and 0, as `klimb import` reads them: a store has one scale. Nothing said is no rating, and none is bad.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from klimb.experience.feedback import is_by_machine
from klimb.experience.importing.cells import first_of
from klimb.experience.importing.rating_texts import is_unrated, read_thumb
from klimb.experience.importing.spans import EVALUATION, SPAN_IDS, has_export, split_spans
from klimb.experience.importing.users import USER_NAMES, user_in
from klimb.experience.reading.records import Row, RowError
from klimb.web.serve.openai_errors import RequestRefused

COMPLETION_NAMES = ("completion_id", "sample_id", "response_id", "observationId", "observation_id", "traceId")


SCORE_NAMES = ("score", "value", "rating", "reward")


LABEL_NAMES = ("label", "thumbs", "stringValue")


OVER_NAMES = ("over", "preferred_over")


RATER_NAMES = ("rater", *USER_NAMES)


_TEXTS = {"comment": 10_000, "correction": 100_000, "name": 100, "feedback_id": 200}
"""Texts, and the most characters of each."""


_UNREAD = ("dataType", "metadata", "environment", "configId", "sessionId", "queueId", "object")
"""What Langfuse's scores have besides; kept with the rating as it came."""


_OWN = (*_TEXTS, "id", "choice_index", "over_choice_index", "created_at")


KNOWN = frozenset((*COMPLETION_NAMES, *SCORE_NAMES, *LABEL_NAMES, *OVER_NAMES, *RATER_NAMES, *_UNREAD, *_OWN))


_OF_EVALUATORS = {"pass": 1.0, "fail": 0.0, "relevant": 1.0, "not_relevant": 0.0}
"""Labels that OpenTelemetry's conventions give as examples, besides the words of thumbs."""


LONGEST_ID = 300


LATEST = 1e12
"""Seconds since 1970 beyond which a number is no time; milliseconds are."""


@dataclass(frozen=True, kw_only=True)
class GivenFeedback:
    """What was said of an answer, before anything is looked up.

    Attributes:
        completion_id: of the answer.
        choice_index: which of the completion's choices; None where it has one.
        value: the rating; None for none.
        name: what was asked.
        comment: the person's words.
        correction: the answer that the person would have wanted.
        over: the completion to which this one was preferred; empty for none.
        over_choice_index: which of its choices.
        rater: who said it, as it was sent; empty for nobody named.
        created_at: seconds since the epoch, where the program said when; None for now.
        feedback_id: where the program gave one.
        raw: what came, without the rater.
    """

    completion_id: str
    choice_index: int | None = None
    value: float | None = None
    name: str = "rating"
    comment: str = ""
    correction: str = ""
    over: str = ""
    over_choice_index: int | None = None
    rater: str = ""
    created_at: float | None = None
    feedback_id: str = ""
    raw: str = ""


def read_given(row: object, *, max_score: float) -> GivenFeedback:
    """Return what one row says; an event of OpenTelemetry is read as one.

    Raises:
        RequestRefused: it says nothing, or what cannot be read.
    """
    if not isinstance(row, dict):
        raise _wrong("a row of feedback is an object", "")
    fields = cast(dict[str, object], row)
    if is_event(fields):
        fields = _only_evaluation(fields)
    unknown = [name for name in fields if name not in KNOWN]
    if unknown:
        raise _wrong(
            f"unknown field {unknown[0][:60]!r}; what else you want to keep goes into metadata", unknown[0][:60]
        )
    texts = {name: _text(fields, name, most) for name, most in _TEXTS.items()}
    if is_by_machine(texts["name"]):
        raise _wrong("names that begin with model: or judge: are of reward models and judges, not of people", "name")
    given = GivenFeedback(
        completion_id=_id(fields, COMPLETION_NAMES),
        choice_index=_index(fields, "choice_index"),
        value=_value(fields, max_score),
        name=texts["name"] or "rating",
        comment=texts["comment"],
        correction=texts["correction"],
        over=_id(fields, OVER_NAMES) if first_of(fields, *OVER_NAMES) is not None else "",
        over_choice_index=_index(fields, "over_choice_index"),
        rater=_rater(fields),
        created_at=_time(fields),
        feedback_id=texts["feedback_id"] or _text(fields, "id", LONGEST_ID),
        raw=json.dumps({name: fields[name] for name in fields if name not in RATER_NAMES}, ensure_ascii=False),
    )
    if given.value is None and not (given.comment or given.correction or given.over):
        raise _wrong("it says nothing: give a score, a label, a comment, a correction or over", "score")
    return given


def is_event(fields: Mapping[str, object]) -> bool:
    """Tell whether an object is OpenTelemetry's: one event, or an export of many."""
    if has_export(fields):
        return True
    named = first_of(fields, "event_name", "eventName", "event.name", "name")
    return ("attributes" in fields and named == EVALUATION) or fields.get("event.name") == EVALUATION


def _only_evaluation(export: Mapping[str, object]) -> dict[str, object]:
    records = records_in(export)
    if len(records) != 1 or not is_evaluation(records[0]):
        raise _wrong(f"expected one event {EVALUATION}; exports of several go to /v1/logs", "name")
    return evaluation_row(records[0])


def records_in(export: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the log records and spans of an export with flat attributes, and behind each the events in it.

    Raises:
        RequestRefused: it is none.
    """
    try:
        return [row.values for row in split_spans(Row("", export, ""))]
    except RowError as error:
        raise _wrong(f"OpenTelemetry's export cannot be read: {error}", "") from None


def is_evaluation(values: Mapping[str, object]) -> bool:
    """Tell whether a record rates something."""
    return any(values.get(name) == EVALUATION for name in ("name", "eventName", "event_name", "event.name"))


def evaluation_row(values: Mapping[str, object]) -> dict[str, object]:
    """Return an evaluation in klimb's own form. Of a score and a label the score counts, as `klimb import` has it.

    Source: OpenTelemetry's Semantic conventions for generative AI, event `gen_ai.evaluation.result`; OTLP 1.8, JSON.
    """
    score, label = values.get("gen_ai.evaluation.score.value"), values.get("gen_ai.evaluation.score.label")
    moment = first_of(values, "timeUnixNano", "time_unix_nano", "observedTimeUnixNano")
    row = {
        "completion_id": first_of(values, "gen_ai.response.id", *SPAN_IDS),
        "score": score,
        "label": label if score is None else None,
        "name": values.get("gen_ai.evaluation.name"),
        "comment": values.get("gen_ai.evaluation.explanation"),
        "rater": user_in(values),
        "created_at": _seconds_of(moment) or None,
        "metadata": None if score is None or label is None else {"label": label},
    }
    return {name: value for name, value in row.items() if value is not None and value != ""}


def _seconds_of(nanoseconds: object) -> float:
    text = str(nanoseconds)
    return int(text) / 1e9 if text.isdecimal() and len(text) < 20 else 0.0


def _id(fields: Mapping[str, object], names: tuple[str, ...]) -> str:
    value = first_of(fields, *names)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID:
        raise _wrong(f"{names[0]} must be the id of a completion, a text of 1 to {LONGEST_ID} characters", names[0])
    return value


def _index(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10_000:
        raise _wrong(f"{name} must be the number of a choice, from 0 on", name)
    return value


def _text(fields: Mapping[str, object], name: str, most: int) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise _wrong(f"{name} must be a text of at most {most:,} characters", name)
    return value


def _value(fields: Mapping[str, object], max_score: float) -> float | None:
    score, label = first_of(fields, *SCORE_NAMES), first_of(fields, *LABEL_NAMES)
    if score is not None and label is not None:
        raise _wrong("give a score or a label, not both", "label")
    if label is None and isinstance(score, str):
        score, label = None, score  # Langfuse's categories stand in `value`
    if label is not None:
        return _thumb(label)
    if score is None:
        return None
    if isinstance(score, bool):
        return float(score)
    if not isinstance(score, int | float) or not abs(score) <= max_score:
        raise _wrong(f"score must be a number between {-max_score:g} and {max_score:g}", "score")
    return float(score)


def _thumb(label: object) -> float | None:
    if isinstance(label, bool):
        return float(label)
    if isinstance(label, str):
        value = read_thumb(label)
        value = _OF_EVALUATORS.get(label.strip().lower()) if value is None else value
        if value is not None or (label.strip() and is_unrated(label)):
            return value
    shown = repr(label)[:40]
    raise _wrong(f"label {shown} is none of up/down, good/bad, yes/no and the like; give a number as score", "label")


def _rater(fields: Mapping[str, object]) -> str:
    rater = fields.get("rater")
    if rater is None:
        return user_in(fields)[:LONGEST_ID]
    if not isinstance(rater, str) or len(rater) > LONGEST_ID:
        raise _wrong(
            f"rater must be a text of at most {LONGEST_ID} characters; it is hashed before it is kept", "rater"
        )
    return rater


def _time(fields: Mapping[str, object]) -> float | None:
    value = fields.get("created_at")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise _wrong("created_at must be seconds since 1970", "created_at")
    return float(value)


def _wrong(message: str, param: str) -> RequestRefused:
    return RequestRefused(message, code="invalid_feedback", param=param)
