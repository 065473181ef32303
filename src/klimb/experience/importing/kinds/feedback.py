"""Ratings of responses that are in the store, or will be: an id and what somebody said."""

from collections.abc import Mapping, Sequence

from klimb.experience.feedback import Feedback
from klimb.experience.importing.cells import first_of, name_of, seconds
from klimb.experience.importing.chat import user_of
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import hash_of
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError

SAMPLE_NAMES = ("completion_id", "sample_id", "observation_id", "observationId", "response_id")


VALUE_NAMES = ("value", "label", "score", "rating", "reward", "thumbs", "stringValue", "string_value")


_FEEDBACK_NAMES = ("feedback_id", "score_id", "id")


def read_feedback(row: Row, rules: ImportRules) -> Sequence[Feedback]:
    """One rating. The response is named by `completion_id` (or a like name), or by `id` where that is all there is."""
    sample_id = name_of(first_of(row.values, *SAMPLE_NAMES))
    if sample_id:
        return _feedback(row, rules, sample_id=sample_id, own_id=name_of(first_of(row.values, *_FEEDBACK_NAMES)))
    sample_id = name_of(row.values.get("id"))
    if not sample_id:
        raise RowError("no response named", f"expected one of {', '.join((*SAMPLE_NAMES, 'id'))}")
    return _feedback(row, rules, sample_id=sample_id, own_id=name_of(first_of(row.values, "feedback_id", "score_id")))


def read_score(row: Row, rules: ImportRules, *, last_of_trace: Mapping[str, str]) -> Sequence[Feedback]:
    """One score of Langfuse: of its observation, else of the last generation of its trace.

    Source: Langfuse's documentation, "Scores data model".
    """
    sample_id = name_of(first_of(row.values, "observationId", "observation_id"))
    trace_id = name_of(first_of(row.values, "traceId", "trace_id"))
    if not sample_id and trace_id not in last_of_trace:
        raise RowError("a score of a trace without a generation", f"trace {trace_id[:80]!r} is not in the file")
    own_id = name_of(row.values.get("id"))
    return _feedback(row, rules, sample_id=sample_id or last_of_trace[trace_id], own_id=own_id)


def score_name(row: Row) -> str:
    """Return what was rated; ratings of different things must not be averaged."""
    return name_of(first_of(row.values, "name", "key")) or "rating"


def rating_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the rating as it stands there; None for a category, which is no number."""
    kind, value = _stated(row)
    return score_name(row), None if kind == "CATEGORICAL" else value


def _feedback(row: Row, rules: ImportRules, *, sample_id: str, own_id: str) -> Sequence[Feedback]:
    """Nothing if the row is of another name than the user asked for."""
    name = score_name(row)
    if rules.score_name and name != rules.score_name:
        return []
    return [
        Feedback(
            feedback_id=own_id or hash_of(row.raw),
            sample_id=sample_id,
            value=_value(row, rules),
            name=name,
            comment=name_of(row.values.get("comment")),
            user=user_of(row.values),
            created_at=seconds(first_of(row.values, "created_at", "createdAt", "timestamp", "created"), row),
            raw=row.raw,
        )
    ]


def _value(row: Row, rules: ImportRules) -> float | None:
    kind, value = _stated(row)
    if kind == "CATEGORICAL" and not rules.value_map:
        raise RowError("a category without a map", f"{value!r}; say what each is: --map good=1 bad=0")
    if kind == "BOOLEAN" and value in (0, 1):
        value = bool(value)
    found = rating(value, rules, row)
    if found is not None and abs(found) > rules.max_reward:
        raise RowError("a rating beyond the cap", f"{found:g}, and at most {rules.max_reward:g} was allowed")
    return found


def _stated(row: Row) -> tuple[str, object]:
    """Return the kind of rating that Langfuse names, empty for others, and the rating; of a category, its text."""
    kind = name_of(first_of(row.values, "dataType", "data_type")).upper()
    text = first_of(row.values, "stringValue", "string_value")
    return kind, text if kind == "CATEGORICAL" and text is not None else first_of(row.values, *VALUE_NAMES)


def _is_feedback(values: Mapping[str, object]) -> bool:
    is_named = any(name in values for name in (*SAMPLE_NAMES, "id"))
    return is_named and any(name in values for name in VALUE_NAMES)


IMPORTER = Importer(
    name="feedback",
    read=read_feedback,
    summary="ratings of responses by their id",
    looks_alike=_is_feedback,
    rank=90,
    because="it has an id and a rating, and no response",
    rating_in=rating_in,
    nothing="ratings of another name than --score-name",
)
