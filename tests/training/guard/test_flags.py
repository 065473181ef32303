import random

import pytest

from klimb.training.guard.measuring import is_empty, is_repetition

PROSE = (
    "Why does ice float? Most substances shrink when they freeze, because their molecules settle into a closer "
    "arrangement than the one they had as a liquid. Water does the opposite: in the solid, weak bonds hold every "
    "molecule at a fixed distance from four others, and the lattice that results has large gaps."
)


@pytest.mark.parametrize("text", ["", " ", "\n\t\n", "\u00a0"])
def test_nothing_but_white_space_is_empty(text: str):
    assert is_empty(text)


@pytest.mark.parametrize("text", ["0", ".", " no ", "\x00"])
def test_anything_visible_or_not_is_no_white_space(text: str):
    assert not is_empty(text)


@pytest.mark.parametrize("text", ["1 " * 20, "the the " * 30, PROSE * 6, PROSE + " and so on" * 100, "a" * 100_000])
def test_a_text_that_ends_in_a_loop_is_a_repetition(text: str):
    assert is_repetition(text)


@pytest.mark.parametrize("text", ["", "7", "aaaa", "no no no", "1, 2, 3, 4, 5, 6, 7, 8", PROSE])
def test_short_answers_and_prose_are_no_repetition(text: str):
    assert not is_repetition(text)


def test_a_loop_that_was_left_is_no_repetition():
    letters = random.Random(0)
    rest = "".join(letters.choices("abcdefghijklmnopqrstuvwxyz ", k=1_200))
    assert is_repetition("on and on " * 200)
    assert not is_repetition("on and on " * 200 + rest)


def test_what_utf_8_cannot_hold_is_looked_at_all_the_same():
    assert is_repetition("\ud800 " * 100)
