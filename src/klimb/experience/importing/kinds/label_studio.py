"""Label Studio's exports of projects in which people rate answers: JSON, a task a row, and JSON-MIN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from klimb.experience.feedback import Feedback
from klimb.experience.importing.calls import unpacked
from klimb.experience.importing.cells import first_of, listed, mapping, name_of, seconds
from klimb.experience.importing.fields import exchange_in, pair_in, prompt_in
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.ratings import Given, name_unread, pairs_of, with_ratings
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError

SIDES = ("left", "right")
"""What `Pairwise` says of the two answers that its tag names, in their order."""


_MIN_MARKS = ("annotation_id", "annotator", "lead_time")


_MIN_OWN = ("id", "created_at", "updated_at", "task", "project", "annotation_id", "annotator", "lead_time")


_VALUES = ("rating", "choices", "number", "taxonomy", "selected")
"""Keys of a result's value -> what was rated by a control of the type Rating, Choices, Number, Taxonomy, Pairwise."""


_READ = ("rating", "choices", "number", "taxonomy", "pairwise", "textarea", "selected")
"""Types of results, as an export names them, of which something is taken."""


_SPANS = ("start", "end", "startOffset", "endOffset", "x", "y")
"""Keys of a value that is of a part of the text."""


_MIN_NAMES = ("choice", "choices", "label", "sentiment", "quality", "rating", "thumbs", "verdict")
"""Columns of JSON-MIN in which a single choice is a bare text."""


DATA = "the task's data"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Annotation:
    """What one person said of a task."""

    name: str
    results: Sequence[Mapping[str, object]]
    user: str
    at: float
    is_truth: bool


def read_label_studio(row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """Return the answer of a task and a rating of it for each annotation that was not skipped; of a pair both answers.

    What was asked and what was said are fields of the task's `data`, under their usual names. Each control, by its
    `from_name`, rates a thing of its own. Results of TextArea are comments. Predictions and drafts are no ratings; a
    task of which all annotations were skipped is unrated. Several annotators of a task each rate the same answer.

    Source: Label Studio 1.23, "Label Studio JSON format of annotated tasks" and "JSON_MIN" in its documentation, and
    the JSON export itself.
    """
    data = mapping(row.values.get("data")) or row.values
    annotations = _annotations_of(row, named=rules.score_name)
    task = name_of(row.values.get("id"))
    found = ParsedRow(
        prompt=(),
        response="",
        row_id=task and f"task-{task}",
        created_at=seconds(row.values.get("created_at"), row) if "data" in row.values else 0.0,
        model=name_of(first_of(data, "model", "model_id")),
        metadata={"project": str(row.values["project"])} if row.values.get("project") is not None else {},
    )
    for kind in sorted({name_of(result.get("type")) for each in annotations for result in each.results}):
        if kind not in _READ:
            name_unread(row, f"annotations: results of the type {kind}")
    if pair := _compared_in(annotations):
        return _read_pair(replace(found, prompt=prompt_in(data, row, what=DATA)), pair, annotations, row, rules)
    asked, said = exchange_in(data, row, rules, what=DATA)
    found = replace(found, prompt=asked, response=said.text, turns=said.turns)
    return with_ratings(found, _given(annotations, row), row, rules, value_of=_value_of)


def ratings_in(row: Row) -> list[tuple[str, object]]:
    """Return what is rated in a task, and each rating as it stands there."""
    given = pairs_of(_given(_annotations_of(row), row))
    return [(name, None if value in SIDES else value) for name, value in given]


def _read_pair(
    found: ParsedRow, names: tuple[str, str], annotations: Sequence[_Annotation], row: Row, rules: ImportRules
) -> Sequence[ParsedRow | Feedback]:
    """Return both answers; the one that was chosen has the rating 1, the other 0."""
    made: list[ParsedRow | Feedback] = []
    for part, said in enumerate(pair_in(mapping(row.values.get("data")) or row.values, names)):
        of_part = replace(found, response=said.text, turns=said.turns, part=part)
        given = [
            replace(each, value=each.value == SIDES[part], own_id=each.own_id and f"{each.own_id}-{SIDES[part]}")
            for each in _given(annotations, row)
            if each.value in SIDES
        ]
        made += with_ratings(of_part, given, row, rules)
    return made


def _annotations_of(row: Row, *, named: str = "") -> Sequence[_Annotation]:
    """Return the annotations that hold: skipped ones say nothing. A row of JSON-MIN is one of them."""
    if "data" not in row.values:
        return [_smallest(row, named)]
    given = listed(first_of(row.values, "annotations", "completions")) or ()
    return [
        _Annotation(
            name=name_of(each.get("id")),
            results=[mapping(result) for result in listed(each.get("result")) or ()],
            user=_person(each.get("completed_by")),
            at=seconds(first_of(each, "updated_at", "created_at"), row),
            is_truth=each.get("ground_truth") is True,
        )
        for each in map(mapping, given)
        if not each.get("was_cancelled") and not each.get("skipped")
    ]


def _smallest(row: Row, named: str) -> _Annotation:
    """Return the annotation of a JSON-MIN row: its results are the columns that have the form of one."""
    cells = mapping(unpacked(row.raw))
    results = [
        {"from_name": name, **result}
        for name, value in cells.items()
        if name not in _MIN_OWN
        for result in _results_in(value, is_named=name in (named, *_MIN_NAMES))
    ]
    for result in results:
        row.values.get(str(result["from_name"]))
    return _Annotation(
        name=name_of(row.values.get("annotation_id")),
        results=results,
        user=_person(row.values.get("annotator")),
        at=seconds(first_of(row.values, "updated_at", "created_at"), row),
        is_truth=False,
    )


def _results_in(value: object, *, is_named: bool) -> Sequence[Mapping[str, object]]:
    if is_named and isinstance(value, str | int | float):
        return [{"type": "choices", "value": {"choices": [value]}}]
    parts = [mapping(part) for part in listed(unpacked(value)) or [unpacked(value)]]
    return [{"value": part, "type": kind} for part in parts for kind in _VALUES if kind in part]


def _person(value: object) -> str:
    """Return the annotator: an id, or an object with one."""
    person = mapping(value)
    return name_of(first_of(person, "id", "email", "username") if person else value)


def _compared_in(annotations: Sequence[_Annotation]) -> tuple[str, str] | None:
    """Return the names of the two answers that a control of the type Pairwise compares; None without one."""
    for annotation in annotations:
        for result in annotation.results:
            if result.get("type") == "pairwise" or "selected" in mapping(result.get("value")):
                names = [name.strip() for name in name_of(result.get("to_name")).split(",")]
                if len(names) != 2:
                    raise RowError("a comparison that does not say of what", f"to_name is {result.get('to_name')!r}")
                return names[0], names[1]
    return None


def _given(annotations: Sequence[_Annotation], row: Row) -> list[Given]:
    return [given for each in annotations for given in _ratings_of(each)]


def _ratings_of(annotation: _Annotation) -> Sequence[Given]:
    """Return the ratings of one annotation, each with its comments.

    Raises:
        RowError: one control rates several parts of the answer, or states several choices.
    """
    stated: dict[str, Mapping[str, object]] = {}
    for result in annotation.results:
        name, value = name_of(result.get("from_name")) or "rating", mapping(result.get("value"))
        if not any(key in value for key in _VALUES):
            continue
        if name in stated or any(key in value for key in _SPANS):
            raise RowError("a rating of a part of the answer", f"control {name!r} rates several, or a span")
        stated[name] = result
    comment = "; ".join([*(["ground truth"] if annotation.is_truth else []), *_comments_in(annotation.results)])
    return [
        Given(
            name=name,
            value=_stated(mapping(result["value"]), name),
            entry={"annotation": annotation.name, "result": result},
            own_id=f"annotation-{annotation.name}-{name}" if annotation.name else "",
            comment=comment,
            user=annotation.user,
            created_at=annotation.at,
        )
        for name, result in stated.items()
    ]


def _comments_in(results: Sequence[Mapping[str, object]]) -> list[str]:
    texts = [mapping(result.get("value")).get("text") for result in results if result.get("type") == "textarea"]
    return [str(line) for text in texts for line in (listed(text) or [text]) if isinstance(line, str)]


def _stated(value: Mapping[str, object], name: str) -> object:
    """Return the rating as it stands there: of a choice its word, of a taxonomy its path."""
    for key in ("rating", "number", "selected"):
        if key in value:
            return value[key]
    chosen = listed(first_of(value, "choices", "taxonomy")) or ()
    if len(chosen) > 1:
        raise RowError("several choices in one rating", f"control {name!r}: {', '.join(map(str, chosen))[:80]}")
    path = chosen[0] if chosen else None
    return "/".join(map(str, nested)) if (nested := listed(path)) is not None else path


def _value_of(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return the value of a rating; the number of stars that there are is not in the export."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not (rules.scale or rules.value_map):
        raise RowError("stars without a scale", f"got {value}; state the scale: --scale 1 5")
    return rating(value, rules, row)


def _looks_alike(values: Mapping[str, object]) -> bool:
    is_task = isinstance(values.get("data"), Mapping) and ("annotations" in values or "completions" in values)
    return is_task or all(name in values for name in _MIN_MARKS)


IMPORTER = Importer(
    name="label-studio",
    read=read_label_studio,
    summary="Label Studio's export, JSON or JSON-MIN, of answers that people rated",
    looks_alike=_looks_alike,
    rank=8,
    because="it has the data of a task and its annotations",
    rating_in=ratings_in,
)
