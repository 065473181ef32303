from collections.abc import Mapping
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, reason_of, sample_of, samples_of, written

from klimb.experience.importing import ImportRules, RowError, import_rows
from klimb.experience.importing.conversations import rating_beside, read_rated_turns
from klimb.experience.store import Store

CALL = {"id": "c", "function": {"name": "add", "arguments": "{}"}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "2 and 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "4"},
    {"role": "assistant", "content": "Four", "feedback": {"type": "thumbs_up", "comment": "short"}},
    {"role": "user", "content": "Twice?"},
    {"role": "assistant", "content": "Six", "feedback": {"type": "thumbs_down"}},
    {"role": "user", "content": "Really?"},
    {"role": "assistant", "content": "Eight"},
]


def test_each_rated_turn_is_a_sample_with_its_history_as_prompt():
    good, bad = samples_of("prompt-completion", {"id": "talk", "messages": TALK})
    assert [(each.sample_id, each.response, each.reward) for each in (good, bad)] == [
        ("talk#3", "Four", 1.0),
        ("talk#5", "Six", 0.0),
    ]
    assert [message["role"] for message in good.prompt] == ["user", "assistant", "tool"]
    assert good.prompt[2] == {"role": "tool", "content": "4", "name": "add"}
    assert [message["content"] for message in bad.prompt[3:]] == ["Four", "Twice?"]


def test_a_turn_that_is_rated_later_moves_no_id():
    later = [*TALK[:7], {**TALK[7], "feedback": {"type": "thumbs_up"}}]
    ids = [each.sample_id for each in samples_of("prompt-completion", {"id": "talk", "messages": later})]
    assert ids == ["talk#3", "talk#5", "talk#7"]


def test_a_conversation_without_ratings_is_read_as_before():
    plain = [{name: value for name, value in each.items() if name != "feedback"} for each in TALK]
    sample = sample_of("prompt-completion", {"id": "talk", "messages": plain, "reward": 0.5})
    assert (sample.sample_id, sample.response, sample.reward) == ("talk", "Eight", 0.5)
    unrated = [*plain[:7], {**plain[7], "annotation": {}, "rating": None, "feedback": []}]
    assert sample_of("prompt-completion", {"messages": unrated}).reward is None


@pytest.mark.parametrize(
    ("beside", "name", "stated"),
    [
        ({"rating": 4}, "rating", 4),
        ({"annotation": {"rating": -1}}, "annotation", -1),
        ({"feedback": {"type": "thumbs_up"}}, "feedback", "thumbs_up"),
        ({"feedback": [{"value": 0, "type": "thumbs"}]}, "feedback", 0),
        ({"thumbs": "down"}, "thumbs", "down"),
        ({"score": 0.25, "feedback": "too long"}, "score", 0.25),
        ({"label": False}, "label", False),
        ({"annotations": [{"type": "url_citation"}]}, "", None),
        ({}, "", None),
    ],
)
def test_a_rating_is_found_where_exports_have_it(beside: dict[str, Any], name: str, stated: object):
    assert rating_beside({"role": "assistant", "content": "a", **beside}) == (name, stated)


def test_of_several_ratings_of_a_turn_the_one_that_is_named_counts():
    entry = {"rating": 4, "score": 0.5}
    with pytest.raises(RowError, match="several ratings"):
        rating_beside(entry)
    assert rating_beside(entry, name="score") == ("score", 0.5)


def test_stars_need_a_scale_before_any_comes_in(tmp_path):
    stars = [QUESTION[0], {"role": "assistant", "content": "a", "rating": 1}]
    more = [*stars, QUESTION[0], {"role": "assistant", "content": "b", "rating": 5}]
    path = written(tmp_path / "stars.jsonl", [{"id": "x", "messages": stars}, {"id": "y", "messages": more}])
    with pytest.raises(ValueError, match="State the lowest"):
        import_rows(Store(tmp_path / "store"), path)
    import_rows(Store(tmp_path / "store"), path, rules=ImportRules(scale=(1, 5)))
    rewards = {each.sample_id: each.reward for each in Store(tmp_path / "store").samples()}
    assert rewards == {"x#1": 0.0, "y#1": 0.0, "y#3": 1.0}


def test_several_ratings_of_turns_are_of_several_things_until_one_is_named(tmp_path):
    rated = [{"role": "assistant", "content": "a", "score": 0.5, "rating": 1}, QUESTION[0]]
    more = [QUESTION[0], *rated, {"role": "assistant", "content": "b", "score": 1, "rating": 5}]
    path = written(tmp_path / "both.jsonl", [{"id": "x", "messages": more}])
    with pytest.raises(ValueError, match="rates several things: rating, score"):
        import_rows(Store(tmp_path / "store"), path)
    with pytest.raises(ValueError, match="the rating 5 is not in 0 to 1"):
        import_rows(Store(tmp_path / "store"), path, rules=ImportRules(score_name="rating"))
    import_rows(Store(tmp_path / "store"), path, rules=ImportRules(score_name="score"))
    assert {each.sample_id: each.reward for each in Store(tmp_path / "store").samples()} == {"x#1": 0.5, "x#3": 1.0}


def test_a_rated_greeting_has_no_prompt_and_a_rating_nobody_reads_is_refused():
    greeting = {"role": "assistant", "content": "Hi", "rating": 1}
    assert reason_of("prompt-completion", {"messages": [greeting, *QUESTION]}) == "a rated turn without a prompt"
    row = {"prompt": QUESTION, "completion": [greeting], "label": True}
    assert reason_of("kto", row) == "completion has a rating in a message"


def test_another_place_of_the_rating_is_told_by_who_reads():
    def thumb(entry: Mapping[str, object]) -> object:
        return entry.get("liked")

    spoken = [*QUESTION, {"role": "assistant", "content": "4", "liked": True}]
    (turn,) = read_rated_turns(spoken, what="messages", rating_of=thumb)
    assert (turn.prompt, turn.said.text, turn.rating, turn.place) == (tuple(QUESTION), "4", True, 1)
    assert read_rated_turns(QUESTION, what="messages", rating_of=thumb) == []


def test_ratings_of_turns_that_a_kind_does_not_read_are_named(tmp_path):
    asked = [QUESTION[0], {"role": "assistant", "content": "a", "rating": 0}, QUESTION[0]]
    row = {"prompt": asked, "completion": "4", "label": True}
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "rows.jsonl", [row]))
    assert report.tally.unread == {"prompt: ratings of turns": 1}
    read = written(tmp_path / "talk.jsonl", [{"id": "talk", "messages": TALK}])
    assert import_rows(Store(tmp_path / "store"), read).tally.unread == {}
