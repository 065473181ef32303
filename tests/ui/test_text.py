import doctest
import math

import pytest

from klimb.ui import text
from klimb.ui.text import duration, printable, sparkline


def test_the_examples_hold():
    assert doctest.testmod(text).failed == 0


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b[31mred",
        "\x9b31m",
        "\r\rover",
        "\x07bell",
        "\u202eright to left",
        "zero\u200bwidth",
        "\x00",
        "\ud800",
    ],
)
def test_nothing_that_steers_a_terminal_is_left(hostile: str):
    shown = printable(hostile)
    assert shown.isprintable()
    assert all(character < "\ud800" for character in shown)


def test_a_long_text_is_cut_with_a_sign():
    assert printable("x" * 500, limit=10) == "x" * 9 + "…"


def test_a_sparkline_has_a_block_per_value_until_there_is_no_room():
    assert len(sparkline(list(range(7)), width=20)) == 7
    assert len(sparkline(list(range(700)), width=20)) == 20


def test_a_sparkline_of_a_rising_curve_rises_over_all_its_values():
    line = sparkline([float(value) for value in range(100)], width=8)
    assert line == "▁▂▃▄▅▆▇█"


def test_a_sparkline_leaves_out_what_is_not_finite():
    assert sparkline([math.nan, 1.0, math.inf, 2.0], width=9) == "▁█"
    assert sparkline([math.nan], width=9) == ""


def test_durations_read_like_a_clock():
    assert (duration(0.4), duration(61), duration(3_661), duration(-5)) == ("0:00", "1:01", "1:01:01", "0:00")
