import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import reason_of, samples_of, written

from klimb.experience.importing import import_rows
from klimb.experience.store import Store


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


ARENA = {"conversation_a": talk("q", "one"), "conversation_b": talk("q", "two"), "model_a": "m", "model_b": "n"}


@pytest.mark.parametrize(
    ("row", "rewards"),
    [
        ({**ARENA, "winner": "model_a"}, [1, 0]),
        ({**ARENA, "winner": "model_b"}, [0, 1]),
        (
            {"prompt": "q", "response_a": "one", "response_b": "two", "winner_model_a": 0, "winner_model_b": 1},
            [0, 1],
        ),
        ({"prompt": "q", "response_0": "one", "response_1": "two", "better_response_id": 1}, [0, 1]),
        ({"prompt": "q", "response_1": "one", "response_2": "two", "preference_strength": -2}, [1, 0]),
        ({"context": talk("q"), "response1": "one", "response2": "two", "overall_preference": 1}, [0, 1]),
        (
            {"question": {"full_text": "q"}, "answer_0": "one", "answer_1": "two", "score_0": 0.5, "score_1": -0.5},
            [1, 0],
        ),
        ({"history": "q", "human_ref_A": "one", "human_ref_B": "two", "labels": 1}, [1, 0]),
        ({"history": "q", "human_ref_A": "one", "human_ref_B": "two", "labels": 0}, [0, 1]),
    ],
)
def test_the_better_of_two_has_reward_1(row: Mapping[str, Any], rewards: list[int], tmp_path: Path):
    report = import_rows(store := Store(tmp_path / "store"), written(tmp_path / "rows.jsonl", [row]))
    assert report.kind == "comparison"
    found = list(store.samples())
    assert [(sample.response, sample.reward) for sample in found] == list(zip(("one", "two"), rewards, strict=True))
    assert all(sample.prompt == ({"role": "user", "content": "q"},) for sample in found)
    assert found[0].group_id == found[1].group_id


def test_a_tie_is_counted_and_gives_nothing(tmp_path: Path):
    rows = [{**ARENA, "winner": winner} for winner in ("tie", "tie (bothbad)", "model_a")]
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "rows.jsonl", rows))
    assert (report.tally.num_rows_in, report.tally.held_nothing["comparisons without a winner"]) == (1, 2)


def test_what_is_no_verdict_is_refused():
    assert reason_of("comparison", {**ARENA, "winner": "gpt-4"}) == "a winner that is none"
    assert reason_of("comparison", ARENA) == "no winner"


def test_conversations_that_went_apart_are_compared_as_a_whole():
    row = {**ARENA, "conversation_a": talk("q", "one", "r", "1"), "conversation_b": talk("q", "two", "r", "2")}
    row["winner"] = "model_b"
    assert reason_of("comparison", row) == "two conversations with different histories"
    first, second = samples_of("comparison", row, turns=True)
    assert (first.reward, second.reward) == (0, 1)
    assert first.prompt == second.prompt == ({"role": "user", "content": "q"},)


def test_turns_in_lists_of_a_table_are_a_conversation(tmp_path: Path):
    cells = [json.dumps(cell).replace('"', '""') for cell in (["q", "r"], ["x", "one"], ["x", "two"])]
    table = tmp_path / "arena.csv"
    table.write_text(
        "prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
        + ",".join(f'"{cell}"' for cell in cells)
        + ",1,0,0\n",
        encoding="utf-8",
    )
    import_rows(store := Store(tmp_path / "store"), table)
    assert [(sample.response, sample.reward) for sample in store.samples()] == [("one", 1), ("two", 0)]
    assert [each["content"] for each in next(store.samples()).prompt] == ["q", "x", "r"]
