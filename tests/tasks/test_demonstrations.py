import json
from pathlib import Path

import pytest

from klimb.tasks import DEMONSTRATIONS, Problem, ProblemSet, chat, make_task, write_demonstrations
from klimb.tasks.demonstrations import main
from klimb.tasks.tools import tools_of

EXAMPLES = Path(__file__).parents[2] / "examples"

KINDS = ("calculator", "guessing", "sql")


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_a_conversation_about_a_training_problem_and_the_tools(kind, tmp_path):
    task = make_task(kind, num_problems=60)
    path = tmp_path / "rows.jsonl"
    write_demonstrations(task, path, 5)
    rows = rows_in(path)
    assert len(rows) == 5
    assert task.environment is not None
    for problem, row in zip(task.train, rows, strict=False):
        assert list(row) == ["messages", "tools"]
        assert row["messages"][: len(problem.messages)] == list(problem.messages)
        assert row["tools"] == [tool.schema for tool in tools_of(task.environment())]
        names = {each["function"]["name"] for each in row["tools"]}
        called = [call["function"] for message in row["messages"] for call in message.get("tool_calls", ())]
        assert called
        assert {each["name"] for each in called} <= names
        assert all(isinstance(each["arguments"], dict) for each in called)
        assert row["messages"][-1]["role"] == "assistant"


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_question_is_shown(kind, tmp_path):
    task = make_task(kind, num_problems=60)
    write_demonstrations(task, tmp_path / "rows.jsonl", len(task.train))
    shown = {row["messages"][0]["content"] for row in rows_in(tmp_path / "rows.jsonl")}
    assert not shown & {problem.messages[0]["content"] for problem in task.held_out} or kind == "sql"
    assert len(rows_in(tmp_path / "rows.jsonl")) == len(task.train)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_problems_have_the_same_file(kind, tmp_path):
    for name in ("first", "second"):
        write_demonstrations(make_task(kind, num_problems=60), tmp_path / name, 6)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_the_examples_are_what_is_written(kind, tmp_path):
    write_demonstrations(make_task(kind), tmp_path / "rows", 4)
    lines = (EXAMPLES / f"{kind}.jsonl").read_text().splitlines()
    assert len(lines) == {"calculator": 16, "guessing": 240, "sql": 64}[kind]
    assert (tmp_path / "rows").read_text().splitlines() == lines[:4]


def test_every_environment_of_klimb_has_demonstrations():
    assert {make_task(kind, num_problems=60).environment for kind in KINDS} == set(DEMONSTRATIONS)


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no environment"):
        write_demonstrations(make_task("arithmetic"), tmp_path / "rows", 1)
    task = make_task("calculator", num_problems=10)
    for num in (0, 9):
        with pytest.raises(ValueError, match=r"num must be in \[1, 8\]"):
            write_demonstrations(task, tmp_path / "rows", num)
    own = ProblemSet(name="own", train=task.train, held_out=(), environment=object)
    with pytest.raises(ValueError, match="say how a conversation goes"):
        write_demonstrations(own, tmp_path / "rows", 1)
    assert not (tmp_path / "rows").exists()


def test_a_task_of_ones_own_says_how_a_conversation_goes(tmp_path):
    class Echo:
        def reset(self, **row):
            pass

        def echo(self, text: str) -> str:
            """Say it again.

            Args:
                text: What to say.
            """
            return text

    problem = Problem(problem_id="a", messages=chat("Say a."), answer="a")
    task = ProblemSet(name="own", train=(problem,), held_out=(), environment=Echo)

    def demonstrate(problem):
        return (*problem.messages, {"role": "assistant", "content": Echo().echo(problem.answer)})

    write_demonstrations(task, tmp_path / "rows", 1, demonstrate=demonstrate)
    (row,) = rows_in(tmp_path / "rows")
    assert [message["content"] for message in row["messages"]] == ["Say a.", "a"]
    assert row["tools"][0]["function"]["name"] == "echo"


def test_the_command_line_says_the_task_and_its_settings(tmp_path):
    main(["calculator", str(tmp_path / "rows"), "3", "digits=2", "operators=+"])
    assert [len(row["messages"][0]["content"]) for row in rows_in(tmp_path / "rows")] == [len("What is 12+34?")] * 3


@pytest.mark.parametrize(
    "arguments", [[], ["calculator", "rows"], ["calculator", "rows", "x"], ["sql", "rows", "1", "seed"]]
)
def test_another_command_line_is_met_with_an_example(arguments):
    with pytest.raises(ValueError, match="for example `calculator"):
        main(arguments)
