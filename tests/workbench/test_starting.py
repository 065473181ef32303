"""`klimb start`: from a file to a run file, and from there to a word on whether the model is better."""

import csv
import json
import random
import tomllib
from pathlib import Path

import pytest

COLUMNS = ["ticket", "customer_message", "bot_reply", "csat", "agent_note", "created"]


def write_desk(path: Path, *, number: int = 80, seed: int = 0, shuffled: bool = False) -> None:
    """Write an export of a help desk: helpful replies are rated 4 or 5, others 1 or 2; some are not rated."""
    draw = random.Random(seed)
    rows = []
    for place in range(number):
        is_good = draw.random() < 0.5
        reply = f"Press reset in page {place}." if is_good else "Sorry, I cannot help with that."
        rating = draw.choice(["4", "5"] if is_good else ["1", "2"]) if draw.random() < 0.9 else ""
        rows.append(
            [f"T-{place}", f"How do I reset {place}?\nAnna 🙂", reply, rating, "", f"2026-05-{place % 28 + 1:02}"]
        )
    if shuffled:
        ratings = [row[3] for row in rows]
        draw.shuffle(ratings)
        for row, rating in zip(rows, ratings, strict=True):
            row[3] = rating
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


@pytest.fixture
def desk(workplace):
    write_desk(workplace.path / "desk.csv")
    return workplace


def test_one_command_imports_audits_and_writes_the_run_file_and_says_the_next(desk):
    started = desk.klimb("start", "desk.csv", "--model", str(desk.model))
    assert started.status == 0, started.err
    said = " ".join(started.out.split())
    assert "prompt = customer_message, response = bot_reply, reward = csat" in said
    assert "1 to 5 became 0 to 1, guessed: whole numbers 1 to 5, 4 of 5 seen" in said
    assert "80 read = 80 came in" in said
    assert "learn from the ratings" in said and "RL with ratios" in said
    assert "klimb train desk.toml" in said
    tables = tomllib.loads(Path("desk.toml").read_text())
    assert tables["log"] == {"path": "desk-store", "held_out_fraction": 0.2}
    assert tables["model"]["path"] == str(desk.model)
    assert Path("desk-store-audit.html").is_file()


def test_the_second_command_ends_with_a_word_on_the_held_out_rows(desk):
    assert desk.klimb("start", "desk.csv", "--model", str(desk.model)).status == 0
    settings = ("--set", "training.num_steps=2", "--set", "run.report=false", "--set", "run.loggers=[]")
    trained = desk.klimb("train", "desk.toml", "--folder", "r", *settings)
    assert trained.status == 0, trained.err
    found = json.loads(Path("r/held_out_log.json").read_text())
    assert found["sentence"] in " ".join(trained.out.split())
    held_out = {row["sample_id"] for row in found["rows"]}
    assert 12 <= len(held_out) <= 20


def test_a_stated_scale_or_map_is_not_guessed_over(desk):
    started = desk.klimb("start", "desk.csv", "--scale", "0", "10", "--into", "other", "--model", str(desk.model))
    assert started.status == 0, started.err
    assert "guessed: whole numbers" not in started.out


def test_where_more_is_to_be_collected_the_run_file_still_learns_from_the_log(workplace):
    write_desk(workplace.path / "few.csv", number=9)
    started = workplace.klimb("start", "few.csv", "--model", str(workplace.model))
    assert started.status == 0, started.err
    assert "more" in started.out
    tables = tomllib.loads(Path("few.toml").read_text())
    assert tables["sources"] == {"log": 1.0}
    assert tables["objective"]["recipe"] in ("kto", "dro", "asymre", "bc", "bc-filtered")


def test_a_conversation_with_several_rated_turns_and_one_with_none_start(workplace):
    asked, answered = {"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "It was sent."}
    rated = [{**answered, "feedback": {"type": kind}} for kind in ("thumbs_up", "thumbs_down")]
    rows = [{"id": "a", "messages": [asked, rated[0], asked, rated[1]]}, {"id": "b", "messages": [asked, answered]}]
    Path("thumbs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in reversed(rows)))
    started = workplace.klimb("start", "thumbs.jsonl", "--model", str(workplace.model))
    assert started.status == 0, started.err
    assert "2 read = 2 came in" in started.out and "3 added" in started.out


def test_stars_in_lists_of_ratings_are_put_on_their_scale_by_the_name_that_is_asked_for(workplace):
    def rated(place: int) -> dict[str, object]:
        stars = {"from_name": "stars", "to_name": "answer", "type": "rating", "value": {"rating": place % 5 + 1}}
        other = {"from_name": "tone", "to_name": "answer", "type": "number", "value": {"number": 40}}
        data = {"prompt": f"What is {place}?", "response": f"It is {place}."}
        return {"id": place, "data": data, "annotations": [{"id": place, "result": [stars, other]}]}

    tasks = [*map(rated, range(1, 11)), {"id": 11, "data": {"prompt": "And?", "response": "So."}, "annotations": []}]
    Path("tasks.json").write_text(json.dumps(tasks))
    started = workplace.klimb("start", "tasks.json", "--score-name", "stars", "--model", str(workplace.model))
    assert started.status == 0, started.err
    assert "1 to 5 became 0 to 1" in " ".join(started.out.split())


def test_one_question_alone_is_not_sent_to_a_run_that_cannot_hold_one_out(workplace):
    rows = [{"prompt": "2 + 2?", "completion": answer, "label": answer == "4"} for answer in "345"]
    Path("one.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    started = workplace.klimb("start", "one.jsonl", "--model", str(workplace.model))
    assert started.status == 0, started.err
    assert "one question alone: none can be held out" in started.out and "try next" not in started.out
    assert "sources.rollout" not in started.out and "No --model" not in started.out


def test_data_in_the_place_of_a_store_or_a_run_file_is_sent_to_start(desk):
    for command in ("audit", "train"):
        refused = desk.klimb(command, "desk.csv")
        assert refused.status == 2 and "klimb start desk.csv" in refused.err and "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "give a file"), (("no.csv",), "no.csv"), (("desk.csv", "--held-out", "0.9"), "at most 0.5")],
)
def test_what_cannot_be_started_is_one_line(desk, arguments, said):
    started = desk.klimb("start", *arguments)
    assert started.status == 2
    assert said in started.err and "Traceback" not in started.err
