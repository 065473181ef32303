import csv
import gzip
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


def write_json(path, rows=ROWS):
    path.write_text(json.dumps({"data": rows}, indent=1))
    return path


def write_packed(path, rows=ROWS):
    path.write_bytes(gzip.compress(write_csv(path.with_suffix(""), rows).read_bytes()))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.jsonl", write_jsonl),
        ("d.csv", write_csv),
        ("d.parquet", write_parquet),
        ("d.json", write_json),
        ("d.csv.gz", write_packed),
    ],
)
def test_each_format_gives_the_same_problems(tmp_path, name, write):
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
        (
            b'{"question": "a", "answer": "b"}\n{"question": \n',
            r"d.jsonl:2 .*: not JSON: Expecting value at column 1; got '{\"question\":'",
        ),
        (b'["a", "b"]\n', r"d.jsonl:1 .*: not an object: expected \{...\}, got list"),
        (b'{"question": "a", "answer": "\xff"}\n', "d.jsonl:1 .*: not UTF-8: .*windows-1252"),
        (b'{"question": "a", "answer": "\\uD83D"}\n', "d.jsonl:1 .*: half a character"),
        (b"[" * 200_000, "d.jsonl:1 .*: JSON nested too deep"),
        (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", "d.jsonl:1 .*: JSON that cannot be read"),
        (b'{"Question": "a", "answer": "b"}', "no column 'question' .* Question, answer; did you mean 'Question'?"),
        (b'{"question": "a", "reply": "b"}', r"no column 'answer' \(row d.jsonl:1\); its columns are question, reply"),
        (b'{"question": " ", "answer": "b"}', "d.jsonl:1: column 'question' is empty"),
        (b'{"question": "a", "answer": null}', "d.jsonl:1: column 'answer' is empty"),
        (b'{"question": "a", "answer": NaN}', "d.jsonl:1: column 'answer' is empty"),
        (b'{"question": "a", "answer": ["b"]}', "d.jsonl:1: column 'answer' must be text or a number, got list"),
        (b'{"question": "a", "answer": "b"}\n{"question": "c", ', "d.jsonl:2: not whole JSON, and no line feed"),
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
        (b"question,answer\na,b\nc\n", "d.csv:3: wrong number of cells: 1 cells for 2 columns"),
        (b"question,answer\na,b,c\n", "d.csv:2: wrong number of cells: 3 cells for 2 columns"),
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


def test_a_cell_longer_than_python_reads_by_itself_is_read(tmp_path):
    csv.field_size_limit(131_072)  # what it is in a new process
    rows = [{**ROWS[0], "context": "text " * 40_000}]
    (problem,) = from_file(write_csv(tmp_path / "d.csv", rows), held_out_fraction=0).train
    assert problem.metadata["context"] == rows[0]["context"]


def test_an_empty_cell_of_csv_stays_an_empty_text(tmp_path):
    (problem,) = from_file(write_csv(tmp_path / "d.csv", [{**ROWS[0], "hint": ""}]), held_out_fraction=0).train
    assert problem.metadata["hint"] == problem.columns["hint"] == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.jsonl", "no.jsonl does not exist"),
        ("folder.jsonl", "folder.jsonl is a folder without data files"),
        ("d.txt", "d.txt: a data file ends in .jsonl.*if it holds a table or lines of JSON"),
        ("d.json", "d.json:element 1 .*: not JSON"),
        ("d.parquet", "d.parquet: not a whole Parquet file"),
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "d.jsonl",
            b'{"question": "a", "answer": "1"}\n{"question": "b", "answer": "1", "answer": "2"}\n',
            "d.jsonl:2 .*a name twice .*'answer'",
        ),
        ("d.jsonl", b'{"question": "a", "answer": "1", "meta": {"x": 1, "x": 2}}\n', "d.jsonl:1 .*a name twice .*'x'"),
        ("d.csv", b"question,answer,answer\na,1,2\n", "the column 'answer' is there twice"),
    ],
)
def test_a_name_twice_in_one_row_is_an_error_as_at_import(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / name, held_out_fraction=0)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS = [
    {"question": [user("Hello"), assistant("Hi."), user(f"And {n} + 1?")], "answer": str(n + 1)} for n in range(20)
]


def as_json_cells(rows):
    return [{**row, "question": json.dumps(row["question"])} for row in rows]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.jsonl", write_jsonl),
        ("d.parquet", write_parquet),
        ("d.csv", lambda path: write_csv(path, as_json_cells(CONVERSATIONS))),
    ],
)
def test_a_conversation_is_asked_as_it_is_in_each_format(tmp_path, name, write):
    path = tmp_path / name
    task = from_file(write(path) if name == "d.csv" else write(path, CONVERSATIONS), held_out_fraction=0.25)
    assert (len(task.train), len(task.held_out)) == (15, 5)
    asked = {problem.answer: problem.messages for problem in (*task.train, *task.held_out)}
    assert asked["8"] == (user("Hello"), assistant("Hi."), user("And 7 + 1?"))


@pytest.mark.parametrize("written", [json.dumps, str])
def test_messages_that_were_written_into_a_text_are_asked_as_messages(tmp_path, written):
    """As databases export JSON, and pandas lists."""
    rows = [{"question": written([user("a")]), "reward_model": json.dumps({"ground_truth": "1"})}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    task = from_file(path, answer="reward_model.ground_truth", held_out_fraction=0)
    assert task.train[0].messages == (user("a"),)
    assert task.train[0].answer == "1"


def test_an_answer_that_is_an_object_names_its_parts(tmp_path):
    path = write_jsonl(
        tmp_path / "d.jsonl", [{"question": "a", "reward_model": {"style": "rule", "ground_truth": "1"}}]
    )
    with pytest.raises(ValueError, match=r"name a part of it: reward_model\.style, reward_model\.ground_truth"):
        from_file(path, answer="reward_model", held_out_fraction=0)


def test_a_list_in_a_text_that_is_no_conversation_is_text(tmp_path):
    text = json.dumps([{"name": "a"}])
    task = from_file(write_jsonl(tmp_path / "d.jsonl", [{"question": text, "answer": "1"}]), held_out_fraction=0)
    assert task.train[0].messages == (user(text),)


def test_a_list_in_a_cell_of_csv_that_is_no_conversation_is_text(tmp_path):
    rows = [{"question": "[3, 1, 2] sorted?", "answer": "1"}, {"question": "[3, 1, 2]", "answer": "1"}]
    task = from_file(write_csv(tmp_path / "d.csv", rows), held_out_fraction=0)
    assert questions(task.train) == {"[3, 1, 2] sorted?", "[3, 1, 2]"}


def test_rows_of_verl_are_asked_and_scored_by_a_part_of_a_column(tmp_path):
    rows = [
        {
            "data_source": "x",
            "prompt": [user(f"Name prime {n}.")],
            "reward_model": {"style": "rule", "ground_truth": str(n)},
            "extra_info": {"index": n, "split": "train"},
        }
        for n in (2, 3, 5, 7)
    ]
    path = write_parquet(tmp_path / "verl.parquet", rows)
    columns = {"question": "prompt", "answer": "reward_model.ground_truth"}
    task = from_file(path, reward="integer", held_out_fraction=0, **columns)
    problem = next(each for each in task.train if each.answer == "5")
    assert problem.messages == (user("Name prime 5."),)
    assert json.loads(problem.metadata["extra_info"]) == {"index": 5, "split": "train"}
    with pytest.raises(ValueError, match=r"no column 'reward_model\.truth'.*mean 'reward_model\.ground_truth'"):
        from_file(path, question="prompt", answer="reward_model.truth")


def test_a_column_of_that_very_name_comes_before_a_part_of_another(tmp_path):
    rows = [{"question": "a", "b.c": "right", "b": {"c": "wrong"}}]
    task = from_file(write_jsonl(tmp_path / "d.jsonl", rows), answer="b.c", reward="exact", held_out_fraction=0)
    assert task.train[0].answer == "right"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([user("a"), assistant("b")], "d.jsonl:1: column 'question': .* ends with one of 'assistant'"),
        ([SYSTEM, user(" ")], "d.jsonl:1: column 'question': the last message is empty"),
        ([{"role": "judge", "content": "a"}, user("b")], "another role: got 'judge'"),
        ([user([{"type": "image", "url": "x"}])], "something else than text: a part of type 'image'"),
        ([{"role": "user", "content": None}], "d.jsonl:1: .* is not text: got NoneType"),
        (["a", "b"], r"must be text, a number, or chat messages \(\{role, content\}\), got list"),
        ([], "must be text, a number, or chat messages"),
    ],
)
def test_messages_that_cannot_be_asked_are_named_with_their_line(tmp_path, turns, message):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": turns, "answer": "1"}])
    with pytest.raises(ValueError, match=message):
        from_file(path, held_out_fraction=0)


def test_parts_of_text_are_one_text(tmp_path):
    rows = [{"question": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "answer": "1"}]
    task = from_file(write_jsonl(tmp_path / "d.jsonl", rows), held_out_fraction=0)
    assert task.train[0].messages == (user("ab"),)


def test_a_template_has_no_place_around_messages(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", CONVERSATIONS)
    with pytest.raises(ValueError, match=r"d.jsonl:1: .*asked as they are: the template 'Q: \{question\}'"):
        from_file(path, template="Q: {question}")


def test_a_system_message_is_put_before_those_that_have_none(tmp_path):
    rows = [{"question": [SYSTEM, user("a")], "answer": "1"}, {"question": [user("b")], "answer": "2"}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.warns(UserWarning, match=r"1 of 2 conversations have a system message of their own.*d.jsonl:1"):
        task = from_file(path, system_prompt="Think.", held_out_fraction=0)
    asked = {problem.answer: problem.messages for problem in task.train}
    assert asked == {"1": (SYSTEM, user("a")), "2": ({"role": "system", "content": "Think."}, user("b"))}
    all_own = write_jsonl(tmp_path / "own.jsonl", rows[:1])
    with pytest.raises(ValueError, match="system_prompt would do nothing"):
        from_file(all_own, system_prompt="Think.", held_out_fraction=0)


def test_two_questions_are_the_same_if_all_their_messages_are(tmp_path):
    rows = [
        {"question": [user("Hello"), assistant("Hi."), user("And?")], "answer": "1"},
        {"question": [user("Bye"), assistant("So long."), user("And?")], "answer": "2"},
        {"question": [user("Hello "), assistant("Hi."), user("And?")], "answer": "1"},
    ]
    train = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.warns(UserWarning, match="1 rows repeat"):
        assert len(from_file(train, held_out_fraction=0).train) == 2
    other = write_jsonl(tmp_path / "h.jsonl", [{"question": rows[1]["question"], "answer": "2"}])
    with pytest.warns(UserWarning, match="repeat"), pytest.raises(ValueError, match=r"d.jsonl:2 and h.jsonl:1"):
        from_file(train, held_out_path=other)


WORKED = [{"question": f"{n} + 1", "answer": f"One more than {n}. #### {n + 1}"} for n in range(10)]


def test_examples_are_earlier_turns_and_the_same_before_every_question_of_both_sides(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", WORKED)
    settings = {"answer_after": "####", "system_prompt": "Be brief.", "template": "Q: {question}"}
    task = from_file(path, few_shot=2, held_out_fraction=0.3, **settings)
    # Three of ten are held out as without examples, and two of the seven others are examples.
    assert (len(task.train), len(task.held_out)) == (5, 3)
    assert questions(task.held_out) == questions(from_file(path, held_out_fraction=0.3, **settings).held_out)
    (lead,) = {json.dumps(problem.messages[:-1]) for problem in (*task.train, *task.held_out)}
    system, first, said, second, _ = json.loads(lead)
    assert system == SYSTEM
    number = int(first["content"].removeprefix("Q: ").partition(" ")[0])
    assert said == assistant(f"One more than {number}. #### {number + 1}")
    shown = {first["content"], second["content"]}
    assert len(shown) == 2 and not shown & questions((*task.train, *task.held_out))
    assert from_file(path, few_shot=2, held_out_fraction=0.3, **settings) == task
    assert from_file(path, few_shot=2, held_out_fraction=0.3, seed=1, **settings) != task


def test_examples_of_another_file_are_never_a_problem_of_the_run(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", WORKED[:4])
    shots = write_jsonl(tmp_path / "shots.jsonl", WORKED[3:6])
    task = from_file(path, few_shot=2, few_shot_path=shots, answer_after="####", held_out_fraction=0.25)
    assert len(task.train) + len(task.held_out) == 4
    for problem in (*task.train, *task.held_out):
        assert {turn["content"] for turn in problem.messages[:-1] if turn["role"] == "user"} == {"4 + 1", "5 + 1"}
    with pytest.raises(ValueError, match="few_shot = 3 examples are wanted, and there are 2 that are no problem"):
        from_file(path, few_shot=3, few_shot_path=shots, held_out_fraction=0.25)


def test_a_conversation_as_an_example_leaves_its_system_message_out(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": [user("a")], "answer": "1"}])
    shots = write_jsonl(tmp_path / "shots.jsonl", [{"question": [SYSTEM, user("b")], "answer": "2"}])
    task = from_file(path, few_shot=1, few_shot_path=shots, held_out_fraction=0)
    assert task.train[0].messages == (user("b"), assistant("2"), user("a"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"few_shot": 4}, "few_shot = 4 takes every training problem"),
        ({"few_shot": 5}, "few_shot = 5 examples are wanted, and there are 4"),
        ({"few_shot_path": "shots.jsonl"}, "few_shot is 0"),
        ({"few_shot": 1, "answer": "", "reward": "python:tests.no.function"}, "needs an answer column"),
        ({"few_shot": -1}, r"few_shot must be in \[0, 100\], got -1"),
    ],
)
def test_examples_that_cannot_be_drawn_are_refused(tmp_path, settings, message):
    path = write_jsonl(tmp_path / "d.jsonl", WORKED[:5])
    with pytest.raises(ValueError, match=message):
        from_file(path, held_out_fraction=0.2, **settings)
