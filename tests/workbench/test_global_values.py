"""Which globals of a program are told of a function that reads them, and which are not."""

from functools import partial

import pytest

from klimb.training.checkpoints import CheckpointError
from klimb.training.identity import OWN_GLOBALS, check_same_run
from klimb.workbench.global_values import global_values_of

SCALE = 2.0
WORDS = ("a", ("b", 1))
LONG = "x" * 1000
DEEP = 7
UNREAD = 3
MANY = ["no", "plain", "value"]
MIXED = (1, [2])
num_calls = 0


def deepest():
    return DEEP


def helper(text):
    return deepest() + len(WORDS) if text else 0


def direct(text):
    return SCALE * len(text)


def through_a_helper(text):
    return [helper(text) for _ in range(2)]


def inside(text):
    return [(lambda: SCALE)() for word in text if word in WORDS]


def counting(text):
    global num_calls
    num_calls += 1
    return num_calls * SCALE


def of_no_plain_values(text):
    return (MANY, MIXED, __name__, pytest, len(text))


def shadowing(SCALE):
    return SCALE


class Reward:
    def __call__(self, text):
        return SCALE

    def method(self, text):
        return WORDS


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (direct, {"SCALE"}),
        (through_a_helper, {"WORDS"}),  # what the helper calls is not looked into
        (inside, {"SCALE", "WORDS"}),
        (counting, {"SCALE"}),  # the count is its state
        (of_no_plain_values, set()),
        (shadowing, set()),
        (partial(direct, text="a"), {"SCALE"}),
        (Reward(), {"SCALE"}),
        (Reward().method, {"WORDS"}),
        (len, set()),
        (3, set()),
    ],
)
def test_plain_globals_are_told_that_a_function_or_its_helper_reads_and_does_not_store_to(part, names):
    assert global_values_of(part).keys() == names


def test_values_are_told_as_text_and_a_long_one_by_its_hash():
    assert global_values_of(direct) == {"SCALE": "2.0"}
    assert global_values_of(inside)["WORDS"] == "('a', ('b', 1))"
    told = global_values_of(lambda: LONG)["LONG"]
    assert told.startswith("1002 characters, SHA-256 ") and len(told) < 60


def test_a_helper_that_stores_to_a_global_makes_it_state_too():
    assert global_values_of(lambda: counting("") + num_calls) == {"SCALE": "2.0"}


def test_another_value_is_refused_and_a_run_of_before_that_knew_of_none_goes_on():
    key = f"{OWN_GLOBALS}.python:__object__.reward.scale"
    check_same_run({"seed": 1, key: "1.0"}, {"seed": 1, key: "1.0"})
    check_same_run({"seed": 1}, {"seed": 1, key: "1.0"})
    check_same_run({"seed": 1, key: "1.0"}, {"seed": 1})
    with pytest.raises(CheckpointError, match=r"reward\.scale: '1\.0' in the checkpoint, '2\.0' now"):
        check_same_run({key: "1.0"}, {key: "2.0"})
    with pytest.raises(CheckpointError, match="seed"):  # of all else a missing key is a difference
        check_same_run({}, {"seed": 1, key: "2.0"})
