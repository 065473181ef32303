"""Label Studio's exports: who rated what, and which results are ratings."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, made_of, reason_of, written

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.rules import ImportRules
from klimb.experience.store import Store

EXPORTS = Path(__file__).parent / "exports"
(TASK,) = json.loads((EXPORTS / "labelstudio.json").read_text())
DATA = {"prompt": "2 + 2?", "response": "4"}


def result(kind: str, value: object, *, name: str = "quality", **more: Any) -> dict[str, Any]:
    key = {"textarea": "text", "pairwise": "selected"}.get(kind, kind)
    return {"from_name": name, "to_name": "response", "type": kind, "value": {key: value, **more}}


def annotation(*results: Any, by: object = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": more.pop("id", 10),
        "completed_by": by,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "updated_at": "2026-01-02T03:04:05Z",
        **more,
    }


def task(*annotations: Any, data: Any = DATA, **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": data, "annotations": list(annotations), "project": 3, **more}


def split(row: dict[str, Any], **rules: Any) -> tuple[Sample, list[Feedback]]:
    sample, *ratings = made_of("label-studio", row, **rules)
    assert isinstance(sample, Sample)
    return sample, [each for each in ratings if isinstance(each, Feedback)]


def test_the_exported_task_has_an_answer_without_a_question_and_says_so():
    assert guess_importer(as_row(TASK)).name == "label-studio"
    assert reason_of("label-studio", TASK) == "no response"
    asked = {**TASK, "data": {"prompt": "Which planet is the largest?", "response": TASK["data"]["q"]}}
    sample, (rating,) = split(asked, value_map={"good": 1.0, "bad": 0.0})
    assert (sample.response, rating.value, rating.name) == ("Jupiter is the largest planet.", 1.0, "c")


def test_several_annotators_rate_the_same_answer():
    stars = [annotation(result("rating", value), by=person, id=person) for person, value in ((1, 5), (2, 2))]
    sample, ratings = split(task(*stars), scale=(1, 5))
    assert (sample.prompt, sample.response) == (({"role": "user", "content": "2 + 2?"},), "4")
    assert sample.reward is None
    assert [rating.value for rating in ratings] == [1.0, 0.25]
    assert len({rating.user for rating in ratings}) == 2
    assert {rating.sample_id for rating in ratings} == {sample.sample_id}


def test_skipped_annotations_predictions_and_drafts_are_no_ratings():
    skipped = annotation(result("rating", 1), was_cancelled=True)
    row = task(skipped, predictions=[annotation(result("rating", 5))], drafts=[annotation(result("rating", 5))])
    sample, ratings = split(row)
    assert (sample.reward, ratings) == (None, [])


def test_stars_without_a_scale_are_refused_even_where_all_are_1():
    assert reason_of("label-studio", task(annotation(result("rating", 1)))) == "stars without a scale"
    assert reason_of("label-studio", task(annotation(result("number", 0.5)))) == "stars without a scale"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (result("choices", ["good"]), 1.0),
        (result("taxonomy", [["fine", "good"]]), 0.5),
        (result("rating", 5), 0.75),
    ],
)
def test_each_control_of_one_value_can_be_mapped(given: Any, value: float):
    stated = {"good": 1.0, "fine/good": 0.5, "5": 0.75}
    _, (rating,) = split(task(annotation(given)), value_map=stated)
    assert rating.value == value


def test_a_text_area_is_a_comment_and_a_ground_truth_is_marked():
    given = annotation(
        result("choices", ["up"]), result("textarea", ["short", "and right"], name="why"), ground_truth=True
    )
    _, (rating,) = split(task(given))
    assert (rating.value, rating.comment) == (1.0, "ground truth; short; and right")


def test_controls_of_several_names_rate_several_things():
    row = task(annotation(result("choices", ["up"]), result("choices", ["down"], name="tone")))
    assert reason_of("label-studio", row) == "ratings of several things"
    _, (rating,) = split(row, score_name="tone")
    assert (rating.name, rating.value) == ("tone", 0.0)


def test_a_comparison_is_two_answers_of_which_one_was_chosen():
    compared = {**result("pairwise", "right"), "to_name": "a,b"}
    row = task(annotation(compared), data={"prompt": "2 + 2?", "a": "5", "b": "4"})
    first, loses, second, wins = made_of("label-studio", row)
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert isinstance(loses, Feedback) and isinstance(wins, Feedback)
    assert (first.response, second.response) == ("5", "4")
    assert (loses.sample_id, loses.value, wins.sample_id, wins.value) == (first.sample_id, 0.0, second.sample_id, 1.0)
    assert first.group_id == second.group_id
    assert reason_of("label-studio", task(annotation(compared))) == "a comparison of answers that are not there"


def test_a_conversation_with_an_answer_at_its_end_is_read_whole():
    spoken = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    sample, _ = split(task(data={"messages": spoken}))
    assert (sample.prompt, sample.response) == ((spoken[0],), "4")
    sample, _ = split(task(data={"messages": spoken, "prompt": "Sure?", "response": '["yes"]'}))
    assert ([each["content"] for each in sample.prompt], sample.response) == (["2 + 2?", "4", "Sure?"], '["yes"]')


def test_fields_of_other_names_are_mapped_by_their_place(tmp_path: Path):
    row = task(annotation(result("choices", ["up"])), data={"first": "2 + 2?", "second": {"text": "4"}})
    path = written(tmp_path / "tasks.jsonl", [row])
    columns = {"prompt": "data.first", "response": "data.second.text"}
    store = Store(tmp_path / "store")
    import_rows(store, path, rules=ImportRules(columns=columns))
    (sample,) = store.samples()
    assert (sample.prompt[0]["content"], sample.response, sample.reward) == ("2 + 2?", "4", 1.0)
    with pytest.raises(ValueError, match=r"data\.third"):
        import_rows(store, path, rules=ImportRules(columns={**columns, "prompt": "data.third"}))


def test_fields_of_telling_names_are_found_and_what_is_about_them_is_not():
    data = {"user_prompt": "2 + 2?", "llm_output": "4", "expected_output": "5", "prompt_id": "p", "output_tokens": 1}
    sample, _ = split(task(data=data))
    assert (sample.prompt[0]["content"], sample.response) == ("2 + 2?", "4")
    two = task(data={**data, "other_output": "6"})
    assert reason_of("label-studio", two) == "several fields of the task's data that may be one"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (task(data={}), "no prompt"),
        (task(data=None), "no prompt"),
        (task(data={"prompt": "2 + 2?"}), "no response"),
        (task(data={"response": "4"}), "no prompt"),
        (task(data={**DATA, "question": "3 + 3?"}), "several fields of the task's data that may be one"),
        (task(data={**DATA, "context": "A text."}), "a prompt with documents beside it"),
        (task(annotation(result("choices", ["a", "b"]))), "several choices in one rating"),
        (task(annotation(result("choices", ["fine"]))), "a rating that is text"),
        (task(annotation(result("rating", 4, start=0, end=2))), "a rating of a part of the answer"),
        (task(annotation(result("rating", 4), result("rating", 5))), "a rating of a part of the answer"),
        (task(annotation({**result("pairwise", "left"), "to_name": "a"})), "a comparison that does not say of what"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(row: Any, reason: str):
    assert reason_of("label-studio", row) == reason


@pytest.mark.parametrize("value", [None, [], {}, "x", 3, [None], [[]], [{"result": [None]}]])
@pytest.mark.parametrize("name", ["id", "annotations", "data", "created_at", "project"])
def test_no_field_that_is_something_else_ends_in_a_traceback(name: str, value: object):
    reason_of("label-studio", {**task(annotation(result("choices", ["up"]))), name: value})
    reason_of("label-studio", task(annotation(result("choices", value), by=value)))
    reason_of("label-studio", task({**annotation(), "result": value}))


SMALLEST = {
    **DATA,
    "id": 7,
    "annotator": 1,
    "annotation_id": 10,
    "lead_time": 1.5,
    "updated_at": "2026-01-02T03:04:05Z",
}


def test_rows_of_json_min_are_one_annotation_each(tmp_path: Path):
    rows = [
        {**SMALLEST, "stars": [{"rating": 5}]},
        {**SMALLEST, "stars": [{"rating": 1}], "annotator": 2, "annotation_id": 11},
        {**SMALLEST, "id": 8, "response": "5", "annotation_id": 12},
    ]
    assert guess_importer(as_row(rows[0])).name == "label-studio"
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="--scale"):
        import_rows(store, written(tmp_path / "min.jsonl", rows))
    import_rows(store, tmp_path / "min.jsonl", rules=ImportRules(scale=(1, 5)))
    assert {each.response: each.reward for each in store.samples()} == {"4": 0.5, "5": None}


def test_a_single_choice_of_json_min_is_a_bare_text():
    _, (rating,) = split({**SMALLEST, "verdict": "up"})
    assert (rating.name, rating.value) == ("verdict", 1.0)
    _, (rating,) = split({**SMALLEST, "my_tag": "down"}, score_name="my_tag")
    assert rating.value == 0.0
