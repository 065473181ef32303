"""LangSmith's runs with their feedback: of a bulk export, or as the SDK's `Run` is dumped."""

from collections.abc import Mapping, Sequence

from klimb.experience.feedback import Feedback
from klimb.experience.importing.calls import Answer, answer_in, asked_in, chosen_call, said_of, unpacked
from klimb.experience.importing.cells import first_of, listed, mapping, name_of, seconds, tool_schemas
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.langchain import openai_form
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.ratings import Given, pairs_of, with_ratings
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import Message

MODEL_RUN = "llm"


_PEOPLE = ("api", "app", "")
"""Sources of feedback that people give, in an application or in LangSmith itself; the others are models."""


def read_langsmith(row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """One response of a run at the root of its trace, or of a model's call below that has feedback of its own.

    Of a chain that was dumped with the runs in it, it is that of the last call of a model whose words the chain gave
    back: that has the messages as the model read them. Other runs (tools, retrievers, parts of a chain) give nothing.
    Ratings are the entries of `feedback`, each key a thing of its own; without them the means of `feedback_stats`.

    Source: langsmith 0.15, `schemas.py` (`Run`, `Feedback`); LangSmith's documentation, "Run data format" and "Bulk
    export trace data".
    """
    run = row.values
    kind = name_of(run.get("run_type")).lower()
    given = _given(row)
    is_below = bool(run.get("parent_run_id"))
    if kind not in (MODEL_RUN, "chain") or (is_below and not (kind == MODEL_RUN and given)):
        return []
    if error := first_of(run, "error"):
        raise RowError("the request failed", str(error)[:200])
    asked, answer, call = _exchange_of(row)
    whole, extra = (mapping(unpacked(each.get("extra"))) for each in (run, call))
    settings = mapping(extra.get("invocation_params"))
    about = {**mapping(extra.get("metadata")), **mapping(whole.get("metadata"))}
    found = ParsedRow(
        prompt=asked,
        response=answer.said.text,
        turns=answer.said.turns,
        tools=tool_schemas(first_of(settings, "tools", "functions"), row),
        finish_reason=answer.finish_reason,
        row_id=name_of(run.get("id")),
        request=settings,
        model=name_of(first_of(settings, "model", "model_name") or about.get("ls_model_name")),
        created_at=seconds(run.get("start_time"), row),
        user=name_of(about.get("user_id")),
        metadata=_metadata(run, about),
    )
    return with_ratings(found, given, row, rules, value_of=_value_of)


def ratings_in(row: Row) -> list[tuple[str, object]]:
    """Return what is rated in a run, and each rating as it stands there."""
    return pairs_of(_given(row))


def _exchange_of(row: Row) -> tuple[tuple[Message, ...], Answer, Mapping[str, object]]:
    """Return what was asked, what was said, and the run of the call."""
    run = row.values
    inputs, outputs = unpacked(run.get("inputs")), unpacked(run.get("outputs"))
    calls = [call for call in _runs_in(unpacked(run.get("child_runs"))) if call.get("run_type") == MODEL_RUN]
    chosen = chosen_call([call.get("outputs") for call in calls], outputs)
    if chosen is not None:
        return asked_in(calls[chosen].get("inputs")), answer_in(calls[chosen].get("outputs")), calls[chosen]
    asked = asked_in(inputs)
    return asked, _answer_behind(asked, outputs), run


def _answer_behind(asked: Sequence[Message], outputs: object) -> Answer:
    """Return what was said; a graph gives the messages that it was asked back before those that it adds."""
    spoken = listed(mapping(outputs).get("messages")) or ()
    forms = [openai_form(entry) for entry in spoken]
    words = [(form.get("role"), form.get("content")) for form in forms[: len(asked)]]
    if spoken and words == [(each["role"], each["content"]) for each in asked]:
        return Answer(said=said_of(spoken[len(asked) :]))
    if any(form.get("role") == "user" for form in forms):
        raise RowError("outputs that repeat another conversation", "they are not the inputs with an answer behind")
    return answer_in(outputs)


def _runs_in(value: object) -> list[Mapping[str, object]]:
    """Return the runs in a run, in the order in which they began."""
    found: list[Mapping[str, object]] = []
    left = [mapping(each) for each in listed(value) or ()]
    while left:
        run = left.pop()
        found.append(run)
        left += [mapping(each) for each in listed(run.get("child_runs")) or ()]
    return sorted(found, key=lambda run: str(run.get("start_time")))


def _metadata(run: Mapping[str, object], about: Mapping[str, object]) -> dict[str, str]:
    named = {
        "trace_id": run.get("trace_id"),
        "session_id": first_of(about, "session_id", "thread_id", "conversation_id"),
        "name": run.get("name"),
    }
    return {name: str(value) for name, value in named.items() if value}


def _given(row: Row) -> list[Given]:
    run = row.values
    entries = unpacked(run.get("feedback"))
    if (given := listed(entries)) is not None:
        return [_rating_of(mapping(entry), row) for entry in given]
    return [
        _mean_of(name, mapping(unpacked(stats)), run_id=name_of(run.get("id")))
        for name, stats in mapping(unpacked(run.get("feedback_stats"))).items()
    ]


def _rating_of(entry: Mapping[str, object], row: Row) -> Given:
    source = mapping(entry.get("feedback_source"))
    kind = name_of(source.get("type"))
    user = name_of(first_of(source, "user_id") or mapping(source.get("metadata")).get("user_id"))
    return Given(
        name=name_of(first_of(entry, "key", "name")) or "feedback",
        value=first_of(entry, "score", "value"),
        entry=entry,
        own_id=name_of(entry.get("id")),
        comment=name_of(entry.get("comment")),
        user=user if kind in _PEOPLE else f"{kind}:{user}",
        created_at=seconds(first_of(entry, "modified_at", "created_at"), row),
    )


def _mean_of(name: str, stats: Mapping[str, object], *, run_id: str) -> Given:
    """Return the mean of the ratings of one name, where that is all that is there; of categories how many of each."""
    mean, counts = stats.get("avg"), mapping(stats.get("values"))
    count = stats.get("n")
    comment = f"the mean of {count} ratings" if isinstance(count, int) and count > 1 else ""
    return Given(
        name=name, value=counts or None if mean is None else mean, entry={"run": run_id, name: stats}, comment=comment
    )


def _value_of(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return the value of a rating; of categories with their numbers the mean of what each stands for."""
    counts = {word: count for word, count in mapping(value).items() if isinstance(count, int) and count > 0}
    if not counts:
        return rating(value, rules, row)
    values = [(rating(word, rules, row), count) for word, count in counts.items()]
    return sum(each * count for each, count in values if each is not None) / sum(counts.values())


def _looks_alike(values: Mapping[str, object]) -> bool:
    return "run_type" in values and "inputs" in values and ("outputs" in values or "feedback_stats" in values)


IMPORTER = Importer(
    name="langsmith",
    read=read_langsmith,
    summary="LangSmith's runs, with their feedback",
    looks_alike=_looks_alike,
    rank=8,
    because="it has the type, the inputs and the outputs of a run",
    rating_in=ratings_in,
    nothing="runs below another that nobody rated, or of something else than a model",
)
