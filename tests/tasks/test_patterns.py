"""A pattern of the user's own is a regular expression that no answer keeps busy for long."""

import re
import time

import pytest

from klimb.tasks.patterns import check_is_quick, check_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"^(\w+\s?)*$",
        r"(a|aa)+$",
        r"(.*a){25}",
        r"<think>(.|\n)*</think>(\s|.)*<answer>(.*)*</answer>",
        r"(?:[^<]+|<)*>end",
        r".*.*.*=x",
        r"^(?:a?){30}a{30}$",
        r"(?=(\d+)+!)c",
        r"(?P<words>(?:\s*\w+\s*)*);",
    ],
)
def test_a_pattern_that_tries_every_division_of_a_text_is_refused_before_it_can(pattern: str):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"the pattern .* takes longer than 0\.5 s"):
        check_is_quick("the pattern", pattern)
    assert time.monotonic() - started < 30  # half a second of processor time, on a machine that has other work


@pytest.mark.parametrize(
    "pattern",
    [
        r"<think>.*?</think>\s*<answer>.*?</answer>",
        r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$",
        r"(?s)^<reasoning>.*</reasoning>.*<answer>.*</answer>",
        r"\\boxed\{.*\}",
        r"^\s*-?\d+(\.\d+)?\s*$",
        r"####\s*-?[\d,]+",
        r"[A-Z][a-z]+( [A-Z][a-z]+)*",
        r"[0-9]{1,3}(,[0-9]{3})*",
        r"((?:foo|bar)+)\b",
        r"^(?:yes|no)$",
    ],
)
def test_patterns_as_people_write_them_are_let_through_and_are_quick(pattern: str):
    check_is_quick("the pattern", pattern)
    text = "<think>\n" + "step 12, so 3. " * 200 + "\n</think>\n<answer>\n7\n</answer>"
    started = time.process_time()
    re.compile(pattern, re.DOTALL).search(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("pattern", ["(", "[a", "a{3,1}", "*", "(?P<x>a)(?P<x>b)"])
@pytest.mark.parametrize("check", [check_pattern, check_is_quick])
def test_what_is_no_regular_expression_is_told_as_such(check, pattern: str):
    with pytest.raises(ValueError, match="is not a regular expression"):
        check("the pattern", pattern)
