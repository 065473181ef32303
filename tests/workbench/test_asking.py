"""The warm-up by cloning asks as the run asks, and where prompts differ it is said."""

import json
from collections.abc import Sequence

import pytest

from klimb.tasks import chat
from klimb.training.run_folder import read_run
from klimb.workbench.asking import find_differences, read_pairs
from klimb.workbench.config import build_config, read_config
from klimb.workbench.session import make_session

FILE_TASK = """
[task]
kind = "file"
path = "letters.jsonl"
template = "Is {question} a vowel?"
system_prompt = "Say yes or no."
reward = "python:my_reward.digits"
held_out_fraction = 0.25

[cloning]
path = "letters.jsonl"
prompt = "question"
response = "answer"
"""


def as_lines(rows: Sequence[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def with_letters(workplace):
    text = (workplace.path / "run.toml").read_text()
    kept = text[: text.index("[task]")] + text[text.index("[sampling]") :]
    workplace.write("run.toml", kept + FILE_TASK)
    letters = [{"question": letter, "answer": "yes" if letter in "aeiou" else "no"} for letter in "abcdefgh"]
    workplace.write("letters.jsonl", as_lines(letters))
    return workplace


def pairs_of(tables: dict, asked=()) -> list:
    config = build_config(tables, source="run.toml")
    assert config.cloning is not None
    return read_pairs(config.cloning, task=config.task, asked=asked)


def test_a_warm_up_on_questions_of_a_file_is_asked_as_the_run_asks(with_letters):
    config = read_config(with_letters.path / "run.toml")
    session = make_session(config)
    asked = [problem.messages for problem in (*session.task.train, *session.task.held_out)]
    cloned = [messages for messages, _ in session.pairs or ()]
    assert len(cloned) == len(asked) == 8
    assert all(messages in asked for messages in cloned)
    assert {response for _, response in session.pairs or ()} == {"yes", "no"}
    assert session.prompt_differences == ()


@pytest.mark.parametrize(
    ("override", "message", "words"),
    [
        ("cloning.system_prompt=none", "Is a vowel", "no system message"),
        pytest.param(
            "cloning.system_prompt='Think first.'",
            "Is a vowel",
            "the system message 'Think first.'",
            marks=pytest.mark.slow,
        ),
        ("cloning.template='{question}!'", "worded otherwise", "'Is b a vowel?'"),
    ],
)
def test_a_warm_up_that_is_told_to_ask_otherwise_is_told_in_a_dry_run_and_found_in_the_report(
    with_letters, override: str, message: str, words: str
):
    dry = with_letters.klimb("train", "run.toml", "--dry-run", "--set", override)
    assert dry.status == 0, dry.err
    assert "prompts differ" in dry.out
    run = with_letters.klimb("train", "run.toml", "--set", override, "training.num_steps=1", "run.report=true")
    assert run.status == 0, run.err
    assert "8 of 8 prompts of the warm-up" in " ".join(run.out.split())
    record = read_run(with_letters.path / "runs" / "run")
    assert len(record.prompt_differences) == 1
    assert "is asked otherwise elsewhere" in (with_letters.path / "runs" / "run" / "report.html").read_text()


def test_a_run_that_asks_alike_leaves_no_word_about_it(with_letters):
    run = with_letters.klimb("train", "run.toml", "--set", "training.num_steps=1")
    assert run.status == 0, run.err
    assert "prompts differ" not in run.out
    assert "warm-up" in run.out and "8 answers from letters.jsonl cloned in 1 optimiser steps" in run.out
    assert not (with_letters.path / "runs" / "run" / "prompts.json").exists()


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["a", "b"], ["Is a so?", "Is b so?"]),
        (["Is a so?", "Is b so?"], ["Is a so?", "Is b so?"]),
        (["Is a so?", "b"], ["Is Is a so? so?", "Is b so?"]),
    ],
)
def test_the_template_is_put_around_questions_unless_all_have_its_words(tmp_path, texts, wanted):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(as_lines([{"prompt": text, "response": "yes"} for text in texts]))
    task = {"kind": "file", "path": "questions.jsonl", "template": "Is {question} so?"}
    pairs = pairs_of({"task": task, "cloning": {"path": str(rows)}})
    assert [messages[-1]["content"] for messages, _ in pairs] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("3 + 4", "Sum of 3 + 4:"), ("Sum of 1+1:", "Sum of 1+1:"), ("Name a fruit.", "Name a fruit.")],
)
def test_an_arithmetic_task_words_expressions_alone(tmp_path, text: str, wanted: str):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(as_lines([{"prompt": text, "response": "7"}]))
    tables = {"task": {"wording": "Sum of {expression}:"}, "cloning": {"path": str(rows)}}
    assert pairs_of(tables)[0][0] == ({"role": "user", "content": wanted},)


def test_what_all_prompts_of_a_run_begin_with_begins_those_of_the_warm_up(tmp_path):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(as_lines([{"prompt": "q", "response": "r"}]))
    lead = (*chat("One example?", system_prompt="Be brief."), {"role": "assistant", "content": "Yes."})
    asked = [(*lead, *chat(question)) for question in ("x", "y")]
    assert pairs_of({"cloning": {"path": str(rows)}}, asked)[0][0] == (*lead, *chat("q"))
    mixed = [*asked, chat("z")]
    assert pairs_of({"cloning": {"path": str(rows)}}, mixed)[0][0] == chat("q")


def test_differences_are_counted_by_system_message_and_by_wording():
    training = [chat(f"What is {number}?", system_prompt="s") for number in range(12)]
    evaluation = [chat(f"What is {number}?", system_prompt="s") for number in range(50, 60)]
    assert find_differences({"training": training, "the evaluations": evaluation}, template=None) == ()
    plain = [*evaluation[:7], *(chat(f"What is {number}?") for number in range(3))]
    (lead,) = find_differences({"training": training, "the evaluations": plain}, template=None)
    assert lead.startswith("3 of 10 prompts of the evaluations have no system message")
    worded = [*evaluation[:8], *(chat(f"Compute {number}.", system_prompt="s") for number in range(2))]
    (words,) = find_differences({"training": training, "the evaluations": worded}, template="What is {question}?")
    assert words.startswith("2 of 10 prompts of the evaluations are worded otherwise")
    assert words == find_differences({"training": training, "the evaluations": worded}, template=None)[0]


def test_questions_that_happen_to_begin_alike_are_no_wording_where_the_template_is_known():
    training = [chat(f"What is the capital of {name}?") for name in ("Peru", "Chad", "Laos", "Fiji")]
    assert find_differences({"training": training, "the warm-up": [chat("Who wrote it?")]}, template="{question}") == ()


SYSTEM = {"role": "system", "content": "Be brief."}


def turns(*texts: str, system=()):
    roles = ("user", "assistant")
    return (*system, *({"role": roles[number % 2], "content": text} for number, text in enumerate(texts)))


def test_conversations_with_turns_of_their_own_differ_by_their_system_message_alone():
    trained = [turns("a", "b", "c"), turns("d", "e", "f"), turns("g")]
    assert find_differences({"training": trained, "the evaluations": [turns("h", "i", "j")]}, template=None) == ()
    led = [turns("h", "i", "j", system=[SYSTEM])]
    (found,) = find_differences({"training": trained, "the evaluations": led}, template=None)
    assert "1 of 1 prompts of the evaluations" in found


def test_the_warm_up_begins_with_the_examples_before_every_question(tmp_path):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(as_lines([{"prompt": "q", "response": "r"}]))
    asked = [turns("example", "shown", "a", system=[SYSTEM]), turns("example", "shown", "b", system=[SYSTEM])]
    pairs = pairs_of({"cloning": {"path": str(rows)}}, asked=asked)
    assert pairs[0][0] == turns("example", "shown", "q", system=[SYSTEM])
    conversations = [turns("a", "b", "c", system=[SYSTEM]), turns("d", "e", "f", system=[SYSTEM])]
    assert pairs_of({"cloning": {"path": str(rows)}}, asked=conversations)[0][0] == turns("q", system=[SYSTEM])
