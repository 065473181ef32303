import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from klimb.tasks import Response, from_file

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "level": n} for n in range(20)]


def write_jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path, rows=ROWS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows=ROWS):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def questions(problems):
    return {problem.messages[-1]["content"] for problem in problems}


@pytest.mark.parametrize(
    ("name", "write"), [("d.jsonl", write_jsonl), ("d.csv", write_csv), ("d.parquet", write_parquet)]
)
def test_the_three_formats_give_the_same_problems(tmp_path, name, write):
    task = from_file(write(tmp_path / name), held_out_fraction=0)
    by_question = {problem.messages[-1]["content"]: problem for problem in task.train}
    assert len(by_question) == 20
    problem = by_question["What is 7 + 1?"]
    assert (problem.answer, problem.metadata) == ("8", {"level": "7"})


def test_questions_are_on_one_side_and_the_seed_decides_which(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl")
    task = from_file(path, held_out_fraction=0.25)
    assert (len(task.train), len(task.held_out)) == (15, 5)
    assert not questions(task.train) & questions(task.held_out)
    assert from_file(path, held_out_fraction=0.25) == task
    assert questions(from_file(path, held_out_fraction=0.25, seed=1).held_out) != questions(task.held_out)


def test_a_repeated_question_is_kept_once_and_said_so(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [*ROWS, {**ROWS[3], "question": "What  is 3 + 1?\n"}])
    with pytest.warns(UserWarning, match="1 rows repeat an earlier question"):
        task = from_file(path)
    assert len(task.train) + len(task.held_out) == 20


def test_a_question_with_two_answers_is_an_error_that_names_both_lines(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [*ROWS, {**ROWS[3], "answer": "5"}])
    with pytest.raises(ValueError, match=r"d.jsonl:4 and d.jsonl:21 ask the same question .* '4' and '5'"):
        from_file(path)


def test_a_second_file_is_held_out_whole(tmp_path):
    train, held_out = write_jsonl(tmp_path / "a.jsonl", ROWS[:15]), write_csv(tmp_path / "b.csv", ROWS[15:])
    task = from_file(train, held_out_path=held_out)
    assert (len(task.train), len(task.held_out)) == (15, 5)


def test_a_second_file_with_a_training_question_is_an_error(tmp_path):
    train, held_out = write_jsonl(tmp_path / "a.jsonl", ROWS[:15]), write_jsonl(tmp_path / "b.jsonl", ROWS[14:])
    with pytest.raises(ValueError, match=r"1 held-out questions are training questions .* a.jsonl:15 and b.jsonl:1"):
        from_file(train, held_out_path=held_out)


def test_the_template_keeps_its_other_braces(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", ROWS[:1])
    task = from_file(path, template=r"{question} Answer in \boxed{}.", system_prompt="", held_out_fraction=0)
    assert task.train[0].messages == (
        {"role": "system", "content": ""},
        {"role": "user", "content": r"What is 0 + 1? Answer in \boxed{}."},
    )


def test_answer_after_keeps_the_end_of_a_worked_solution(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "q", "answer": "3+4 is #### odd\n#### 7"}])
    assert from_file(path, answer_after="####", held_out_fraction=0).train[0].answer == "7"
    with pytest.raises(ValueError, match=r"d.jsonl:1: the answer has no '@@'"):
        from_file(path, answer_after="@@", held_out_fraction=0)


def test_bom_crlf_blank_lines_and_line_separators_are_read_as_meant(tmp_path):
    path = tmp_path / "d.jsonl"
    text = '\ufeff{"question": "a\u2028b \u05d0 \U0001f600", "answer": 1}\r\n\r\n{"question": "c", "answer": 2.5}'
    path.write_bytes(text.encode())
    task = from_file(path, held_out_fraction=0)
    assert questions(task.train) == {"a\u2028b \u05d0 \U0001f600", "c"}
    assert {problem.answer for problem in task.train} == {"1", "2.5"}
    assert {problem.problem_id for problem in task.train} == {"d.jsonl:1", "d.jsonl:3"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n \n", "has no rows"),
        (b'{"question": "a", "answer": "b"}\n{"question": \n', "line 2: not JSON: Expecting value at column"),
        (b'["a", "b"]\n', r"line 1: expected an object \{...\}, one per line"),
        (b'{"question": "a", "answer": "\xff"}\n', "line 1: not UTF-8"),
        (b'{"question": "a", "answer": "\\uD83D"}\n', "line 1: half a character"),
        (b"[" * 200_000, "line 1: JSON that cannot be read"),
        (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", "line 1: JSON that cannot be read"),
        (b'{"Question": "a", "answer": "b"}', "no column 'question' .* Question, answer; did you mean 'Question'?"),
        (b'{"question": "a", "reply": "b"}', r"no column 'answer' \(row d.jsonl:1\); its columns are question, reply"),
        (b'{"question": " ", "answer": "b"}', "d.jsonl:1: column 'question' is empty"),
        (b'{"question": "a", "answer": null}', "d.jsonl:1: column 'answer' is empty"),
        (b'{"question": "a", "answer": NaN}', "d.jsonl:1: column 'answer' is empty"),
        (b'{"question": "a", "answer": ["b"]}', "d.jsonl:1: column 'answer' must be text or a number, got list"),
        (b'{"question": "a", "answer": true}', "must be text or a number, got bool"),
    ],
)
def test_a_bad_jsonl_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / "d.jsonl", held_out_fraction=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"question,answer\n", "has no rows"),
        (b"question,answer\na,b\nc\n", "line 3: expected 2 cells"),
        (b"question,answer\na,b,c\n", "line 2: expected 2 cells"),
        (b'question,answer\n"a,b\n', "not CSV"),
        (b"question,reply\na,b\n", "no column 'answer'"),
        (b"question,answer\n\xff,b\n", "not UTF-8"),
    ],
)
def test_a_bad_csv_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / "d.csv", held_out_fraction=0)


def test_a_csv_file_with_bom_and_line_breaks_in_cells_is_read(tmp_path):
    (tmp_path / "d.csv").write_bytes(b'\xef\xbb\xbfquestion,answer\r\n"a,\r\nb",1\r\n')
    task = from_file(tmp_path / "d.csv", held_out_fraction=0)
    assert questions(task.train) == {"a,\r\nb"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.jsonl", "no.jsonl does not exist"),
        ("folder.jsonl", "is a folder"),
        ("d.txt", "must end in .jsonl, .csv, .parquet, got '.txt'"),
        ("d.json", "one object per line and call it .jsonl"),
        ("d.parquet", "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, name, message):
    (tmp_path / "folder.jsonl").mkdir()
    for bad in ("d.txt", "d.json", "d.parquet"):
        (tmp_path / bad).write_text("not what its name says")
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reward": "math_verify"}, "got 'math_verify'; did you mean 'math-verify'?"),
        ({"reward": "python:reward"}, "written python:module.function, got 'python:reward'"),
        ({"reward": lambda **_: 1.0}, "cannot be imported by the process that runs it"),
        ({"template": "no slot"}, "must contain {question}"),
        ({"held_out_fraction": -0.1}, r"must be in \[0, 1\], got -0.1"),
        ({"answer": ""}, "needs an answer column"),
    ],
)
def test_a_bad_parameter_is_named(tmp_path, parameters, message):
    path = write_jsonl(tmp_path / "d.jsonl")
    with pytest.raises(ValueError) as error:
        from_file(path, **parameters)
    assert message.replace("\\", "") in str(error.value)


def test_one_question_cannot_be_divided(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", ROWS[:1])
    with pytest.raises(ValueError, match="held_out_fraction to 0"):
        from_file(path)


def test_the_integer_verifier_wants_integer_answers(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "a", "answer": "7"}, {"question": "b", "answer": "1/2"}])
    with pytest.raises(ValueError, match=r"d.jsonl:2: the verifier 'integer' needs integer answers, got '1/2'"):
        from_file(path, reward="integer", held_out_fraction=0)


@pytest.mark.parametrize(("verifier", "trusted"), [("integer", True), ("exact", True), ("math-verify", False)])
def test_verifiers_score_right_1_and_wrong_0(tmp_path, verifier, trusted):
    task = from_file(write_jsonl(tmp_path / "d.jsonl", ROWS[:1]), reward=verifier, held_out_fraction=0)
    right, wrong = (Response(text=text, num_tokens=1, finish_reason="stop") for text in ("1", "2"))
    assert task.score(task.train[0], right).reward == 1.0
    assert task.score(task.train[0], wrong).reward == 0.0
    assert task.trusted is trusted


OWN_REWARD = "python:my_rewards.short"


def test_a_reward_of_ones_own_gets_an_empty_text_where_the_answer_is_empty(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "a", "answer": None}, {"question": "b", "answer": "c"}])
    task = from_file(path, reward=OWN_REWARD, held_out_fraction=0)
    assert {problem.messages[-1]["content"]: problem.answer for problem in task.train} == {"a": "", "b": "c"}


def test_a_reward_of_ones_own_needs_no_answer_column_and_its_absence_is_told(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "a", "topic": "x"}, {"question": "b", "topic": "y"}])
    with pytest.warns(UserWarning, match="has no column 'answer': your reward gets an empty answer"):
        task = from_file(path, reward=OWN_REWARD, held_out_fraction=0)
    assert [problem.answer for problem in task.train] == ["", ""]


@pytest.mark.parametrize(
    ("columns", "answer"), [(("question", "Answer"), "answer"), (("question", "topic"), "solution")]
)
def test_an_answer_column_that_is_misspelt_or_was_named_is_still_missed(tmp_path, columns, answer):
    path = write_jsonl(tmp_path / "d.jsonl", [dict(zip(columns, ("a", "b"), strict=True))])
    with pytest.raises(ValueError, match=f"has no column '{answer}'"):
        from_file(path, reward=OWN_REWARD, answer=answer)
