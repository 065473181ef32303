import signal
import time

import pytest

from klimb.tasks import Response, Scorer, ScorerSettings, from_file
from klimb.tasks.answer_marks import LONGEST_RESPONSE
from klimb.tasks.math_answers import verify_math


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so $\\frac{2}{4}$.", "1/2"),
        ("It is 0.5", "\\frac{1}{2}"),
        ("\\boxed{1+x^2}", "x^2+1"),
        ("\\boxed{2\\sqrt3}", "2\\sqrt{3}"),
        ("$(1, 2)$", "(1,2)"),
        ("I have 3 apples", "3 apples"),
        ("12 dollars", "\\$12"),
        ("1234", "1,234"),
        ("0.5", "50%"),
        ("= -5", "-5"),
    ],
)
def test_equal_expressions_are_equal_however_written(text, answer):
    assert verify_math(text, answer).correct


@pytest.mark.parametrize(
    ("text", "answer"), [("3", "2\\sqrt{3}"), ("2", "2x+1"), ("5", "-5"), ("", "7"), ("no idea", "7"), ("1", "(1,2)")]
)
def test_a_part_of_the_answer_is_not_the_answer(text, answer):
    assert not verify_math(text, answer).correct


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (r"Let me try \boxed{3}. Wait, that is wrong. So the answer is \boxed{4}.", "4", True),
        (r"<think>\boxed{3}</think> \boxed{4}", "4", True),
        (r"\boxed{3}. Hmm, \boxed{4}.", "3", False),
        (r"\boxed{3} or \boxed{4}", "4", False),
        (r"\boxed{3} or \boxed{4}", "3,4", True),
        (r"\boxed{3}, $x=\boxed{4}$", "{4,3}", True),
        (r"<think>it is \boxed{7}, I am sure</think> 4", "4", True),
        ("I get $3$. Wait. $4$", "4", True),
        ("The answer is 3. No, the answer is 4.", "4", True),
        (r"\boxed{\frac{1}{\boxed{2}}", "1/2", False),
        (r"\boxed{28} pct", r"$28\%$", True),
    ],
)
def test_the_last_answer_decides_and_boxes_beside_each_other_are_one(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (r"\boxed{1,2}", "1,2", True),
        ("The answers are 1,2", "1,2", True),
        ("$2, 1$", "1,2", True),
        ("1.2", "1,2", False),
        (r"\boxed{2,4,8}", "2, 4, 8", True),
        (r"\boxed{1,10}", "1,10", True),
        (r"\boxed{10,000}", "10,000", True),
        ("10000", "10,000", True),
        ("1/2", "0,5", True),
    ],
)
def test_numbers_with_commas_are_a_list_unless_the_commas_group_thousands(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("The answer is \u22125.", "-5", True),
        ("\u22125", "\u22125", True),
        ("The answer is 2 2/3.", "8/3", True),
        ("The answer is 2 2/3.", "2", False),
        (r"\boxed{2 2/3}", "8/3", True),
        ("-2 2/3", "-8/3", True),
        ("8/3", "2 2/3", True),
        ("4 4/0", "4", False),
        ("11 7/6", "11", False),
        ("1e3", "1000", True),
        (r"\boxed{1.5e-3}", "0.0015", True),
        (".5", "1/2", True),
        ("50%", "0.5", True),
        ("1 000", "1000", True),
        (r"\boxed{1\,000}", "1000", True),
        (r"$x^2 2/3$", "x^2*2/3", True),
        ("The answer is \u2212 5", "-5", True),
        ("The answer is \u2212 5", "5", False),
        ("7 \u2212 5", "-5", False),
        ("\u20135", "-5", True),
        ("3 \u20135", "-5", False),
        ("It is +5.", "5", True),
        ("\uff15", "5", True),
        ("2\u2154", "8/3", True),
        ("2\u2154", "2", False),
        ("It is 2 \u2154.", "8/3", True),
        ("\u00bd", "0.5", True),
        (r"2\frac{2}{3}", "8/3", True),
        (r"It is 2\dfrac23.", "2/3", False),
        (r"3\frac{7}{6}", "7/6", False),
        ("2 \u00d7 10^3", "2000", True),
        (r"$3.5 \times 10^{-2}$", "0.035", True),
        ("2x10^3", "2", False),
    ],
)
def test_numbers_are_read_as_people_write_them(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("x = 3 or x = 4", "3,4", True),
        ("x = 3 or x = 4\n\nI hope this helps!", "3,4", True),
        ("1, 2, and 3", "1,2,3", True),
        ("1, 2, and 3", "3", True),
        ("4", "3 and 4", False),
        ("The interval is (0, 1].", "(0,1]", True),
        ("The interval is (0, 1).", "(0,1]", False),
        ("The answer is (1,2), which is a point.", "(1,2)", True),
        ("3 \u00b1 2", "1, 5", True),
        ("x \u2265 5", r"x \ge 5", True),
        ("x\u00b2 + 1", "x^2+1", True),
        ("The ratio is 3:4.", "3:4", True),
        ("4", "3:4", False),
        ("2", "2xy", False),
        ("2*sqrt(3)", r"2\sqrt{3}", True),
        ("2\u03c0", r"2\pi", True),
        ("2\u00d73 = 6", "6", True),
        ("A 3\u00d74 grid has 12", "12", True),
        ("11\n5/6", "5/6", True),
        ("The answer is 12 meters.", "12", True),
        ("We get $x^2-7x+12=0$, so x = 3 or x = 4.", "3,4", True),
        (r"$\{3,4\}$, checked twice", "3,4", True),
        ("101_2", "101_2", True),
        ("Answer: `42`", "42", True),
        ("answer:42", "42", True),
        ("forty-two (42).", "42", True),
        ("x<42", "42", False),
    ],
)
def test_an_answer_without_latex_is_read_whole(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("4", r"First \boxed{3}. So \boxed{4}", True),
        ("3", r"First \boxed{3}. So \boxed{4}", False),
        ("3,4", r"\boxed{3} and \boxed{4}", True),
        ("0.28", r"It is $\boxed{28}$ percent.", True),
        ("5", r"\boxed{5.}", True),
        ("7", "3*2=6, and 1 more\n#### 7", True),
        ("(1,2)", "The answer is (1,2)", True),
        ("2", "The answer is (1,2)", False),
    ],
)
def test_a_reference_may_be_a_solution_that_marks_its_answer(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (r"So $\frac{1}{3}.$ Then", "1/3", True),
        (r"\[ x = \frac{1}{3}, \]", "1/3", True),
        (r"\boxed{5.}", "5", True),
        (r"$2^{10}.$", "2", False),
        ("$1, 2, 3, ...$", "1,2,3", False),
        (r"\boxed{1 234}", "1234", True),
        (r"\boxed{10 m^2}", "10", True),
        (r"\boxed{5 apples}", "5", True),
        (r"\boxed{\frac{1}{\mathrm{e}}}", "1/e", True),
        (r"\boxed{\boxed{5}}", "5", True),
        ("```\n\\boxed{5}\n```", "5", True),
        (r"\boxed{\approx 42~\text{cm}}", "42", True),
        (r"The final answer is $\sum_{k=0}^n\bigl(k\bigr)$.", "0", False),
        (r"The final answer is $\sum_{k=0}^n\bigl(k\bigr)$, which is 42", "42", True),
        (r"\boxed{\sum_{k=0}^n\bigl(k\bigr)}", "0", False),
    ],
)
def test_a_formula_is_read_whole_or_not_at_all(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("4 4/9%", "40/900", True),
        ("4 4/9%", "40/9", False),
        ("1/2 percent", "0.005", True),
        (r"$\frac{1}{2}\%$", "0.005", True),
        (r"\boxed{1/2}\%", "0.005", True),
        ("33\u2153%", "1/3", True),
        ("33 1/3%", "33 1/3%", True),
        (r"\boxed{50\%}", "1/2", True),
    ],
)
def test_a_percent_sign_holds_for_the_whole_number(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (r"\boxed{\text{(A)}}", "A", True),
        (r"\boxed{\textbf{(B)}\ 12}", "B", True),
        (r"\boxed{B. Paris}", "B", True),
        (r"\boxed{\text{C}}", "B", False),
        ("**B**", "B", True),
        ("The correct answer is (C), since A is wrong.", "(C)", True),
        ("A. Because B is not valid", "A", True),
        ("The answer is A or B", "A", False),
    ],
)
def test_a_letter_is_chosen_with_and_without_what_it_stands_for(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


@pytest.mark.parametrize(
    "text",
    [
        "$" + "(" * 300 + "1" + ")" * 300 + "$",
        "\\sqrt{" * 300 + "2" + "}" * 300,
        "$" + "1+" * 2000 + "7$",
        "\\boxed{" + "1+" * 1500 + "7}",
        "\\boxed{" + "1 + " * 3000 + "7}",
        "\\boxed{" * 600,
        "<think>" * 500,
        "<answer>" * 500,
        "$x$ " * 1000,
        "\\boxed{1}" + " and" * 900 + " x \\boxed{2}",
        "\\boxed{1}" + "x= " * 900 + "! \\boxed{2}",
        "\\boxed{1}" + "\\text{" * 500 + "\\boxed{2}",
        "* " * 2000,
        "1 and " * 600,
        " " * 4096,
        "0/0",
        "\x00",
        "\ud800",
    ],
)
def test_no_response_raises_or_takes_long(text):
    start = time.perf_counter()
    assert not verify_math(text, "7").correct
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("(1,2)", "(1,2)", True),
        ("(1,2).", "(2,1)", False),
        ("-.5", "-1/2", True),
        ("+5", "5", True),
        ("2x+1", "2x+1", True),
        ("2x+1", "2", False),
        (r"\sqrt{2},3", r"\sqrt{2},3", True),
        ("2, 4", "4", False),
        ("2 4", "4", True),
        ("3 + 4 = 7", "7", True),
        ("12 cm", "12", True),
    ],
)
def test_a_response_that_is_an_expression_and_nothing_else_is_read_as_a_whole(text, answer, is_right):
    assert verify_math(text, answer).correct is is_right


def test_an_answer_that_is_no_mathematics_is_an_error_and_not_a_wrong_response():
    with pytest.raises(ValueError, match=r"'Paris' has no mathematical reading; .*'exact'"):
        verify_math("Paris", "Paris")


def test_only_the_end_of_a_long_response_is_read():
    assert not verify_math("7" + " " * LONGEST_RESPONSE, "7").correct
    assert verify_math("$" * 100_000 + " " * LONGEST_RESPONSE + "7", "7").correct


def test_an_alarm_of_the_caller_survives():
    signal.alarm(1000)
    verify_math("7", "7")
    assert signal.alarm(0) > 900


def test_a_hostile_expression_costs_one_response(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    task = from_file(tmp_path / "data.jsonl", held_out_fraction=0)
    texts = ["$2$", "$10^{10^{10^{10}}}$", "it is 2"]
    responses = [Response(text=text, num_tokens=1, finish_reason="stop") for text in texts]
    with Scorer(task, ScorerSettings(timeout_seconds=2)) as scorer:
        scores = scorer.score_many([task.train[0]] * 3, responses)
    assert [score.reward for score in scores] == [1.0, None, 1.0]
    assert scores[1].reason == "timed out after 2 s"
