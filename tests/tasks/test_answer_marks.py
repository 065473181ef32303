import pytest

from klimb.tasks.answer_marks import LONGEST_RESPONSE, end_of, last_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{3}. So \boxed{4}, found in 7 steps", r"\boxed{4}"),
        (r"\boxed{3} and $x_2 = \boxed{4}$", r"\boxed{3} and $x_2 = \boxed{4}"),
        (r"\boxed{3} \text{ for (a) and } \boxed{4}", r"\boxed{3} \text{ for (a) and } \boxed{4}"),
        (r"\boxed{1} pen and \boxed{2} bins", r"\boxed{1} pen and \boxed{2}"),
        (r"\boxed{3} is wrong and \boxed{4} right", r"\boxed{4}"),
        (r"\boxed{3} \text{ is wrong, it is } \boxed{4}", r"\boxed{4}"),
        (r"\boxed{5}, and in the end \boxed{}", r"\boxed{5}"),
        (r"\boxed{5}; write it as \boxed{...}", r"\boxed{5}"),
        (r"\boxed 5.", r"\boxed{5.}"),
        (r"\boxed\frac{1}{2}", r"\boxed{\frac{1}{2}}"),
        (r"\boxed{1}, no: \fbox{7}", r"\fbox{7}"),
        (r"\boxed{50} percent", r"\boxed{50} percent"),
        (r"\boxed{5}. Sorry, I cannot answer that.", r"\boxed{5}"),
    ],
)
def test_the_last_box_that_holds_something_is_the_answer(text, answer):
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{3}\n#### 7", "7"),
        ("#### 1,000\nNote: 3 apples", "1,000"),
        ("#### 7\n\\boxed{3}", r"\boxed{3}"),
        ("#### Step 2\nso it is 9", "#### Step 2\nso it is 9"),
        ("<answer>5</answer> in 3 steps", "5"),
        (r"\boxed{1} <answer>it is \boxed{2}</answer>", r"\boxed{2}"),
        (r"<answer>5</answer> no, \boxed{6}", r"\boxed{6}"),
        (r"\boxed{200}. The final answer is $10,455$.", "final answer is $10,455$."),
        (r"\boxed{4}. The final answer is in the box, after 3 tries", r"\boxed{4}"),
    ],
)
def test_another_mark_decides_where_it_stands_behind_the_last_box(text, answer):
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{1}</think> \boxed{2} <think>\boxed{3}</think>", r"\boxed{2}"),
        (r"<think>\boxed{1}</think> \boxed{2} <think>\boxed{3}", r"\boxed{2}"),
        (r"\boxed{1}</think> \boxed{2}", r"\boxed{2}"),
        (r"<think>a</think> <think>\boxed{3}</think> \boxed{2}", r"\boxed{2}"),
        (r"<think> hmm \boxed{3}", r"\boxed{3}"),
    ],
)
def test_thoughts_count_only_where_nothing_else_is_said(text, answer):
    assert last_answer(text) == answer


def test_of_a_box_that_begins_before_the_end_nothing_is_read():
    box = "\\boxed{" + "1 + " * LONGEST_RESPONSE + "7}"
    assert end_of(box) == ""
    assert end_of(box + " so it is 8") == " so it is 8"
    assert end_of("\\boxed{3}" + " " * LONGEST_RESPONSE + "7").strip() == "7"
