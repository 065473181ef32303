import math

import pytest

from klimb.ui.chart import Bars, Chart, Curve, Histogram
from klimb.ui.chart_numbers import MOST_ROWS, Numbers, cell_text, numbers_of
from klimb.ui.pages.frame import Drawing, picture_html


def told(*curves: Curve, **more) -> Numbers:
    found = numbers_of(Chart(title="t", unit="u", curves=curves, **more))
    assert found is not None
    return found


def test_a_short_curve_is_told_whole_with_its_band():
    numbers = told(Curve(label="KL", x=[0, 5, 10], y=[0.0, 0.034, -2.0], low=[0, 0, -3], high=[1, 1, -1]))
    assert numbers.heads == ("step", "KL")
    assert numbers.rows == (("0", "0 [0, 1]"), ("5", "0.034 [0, 1]"), ("10", "−2 [−3, −1]"))
    assert numbers.note == ""


def test_of_a_long_curve_twelve_steps_are_told_evenly_the_first_and_the_last_among_them():
    numbers = told(Curve(label="a", x=range(1, 112), y=[2.0 * x for x in range(1, 112)]))
    assert [row[0] for row in numbers.rows] == ["1", *(str(1 + 10 * at) for at in range(1, MOST_ROWS))]
    assert (numbers.rows[-1], numbers.note) == (("111", "222"), "12 of 111 points")


def test_a_curve_that_ends_early_has_dashes_and_a_point_close_by_counts():
    long, short = Curve(label="a", x=[0, 50, 100], y=[1, 2, 3]), Curve(label="b", x=[0.5, 49], y=[7, 8])
    rows = {row[0]: row[1:] for row in told(long, short).rows}
    assert (rows["0"], rows["50"], rows["100"]) == (("1", "7"), ("2", "8"), ("3", "–"))


def test_smoothed_curves_say_so():
    assert told(Curve(label="a", x=[1], y=[2.0], raw_x=[1], raw_y=[3.0])).note == "moving averages"


def test_points_are_told_with_their_names_and_sizes():
    numbers = told(
        Curve(label="worse", x=[2, 1], y=[3, 4], sizes=[5, 6], mark="points"), Curve(label="l", x=[0], y=[0])
    )
    assert numbers.heads == ("", "step", "u", "number")
    assert numbers.rows == (("worse", "1", "4", "6"), ("worse", "2", "3", "5"), ("l", "0", "0", ""))


@pytest.mark.parametrize("num_bins", [1, 12, 13, 40])
def test_no_count_of_a_histogram_is_left_out(num_bins: int):
    bins = Histogram(edges=range(num_bins + 1), counts=[1] * num_bins)
    found = numbers_of(Chart(title="t", unit="samples", axis="tokens", histogram=bins))
    assert found is not None and len(found.rows) <= MOST_ROWS
    assert found.heads == ("tokens from", "to", "samples")
    assert sum(int(row[2]) for row in found.rows) == num_bins
    assert (found.rows[0][0], found.rows[-1][1]) == ("0", str(num_bins))


def test_bars_carry_their_numbers_and_nothing_has_none():
    assert numbers_of(Chart(title="t", unit="u", bars=Bars(labels=["a"], values=[1]))) is None
    assert numbers_of(Chart(title="t", unit="u", curves=(Curve(label="a", x=[1], y=[math.nan]),))) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (1234.5, "1,234"), (-7.0, "−7"), (3e-7, "3e−07"), (math.inf, "–")]
)
def test_a_cell_has_four_digits_or_all_of_a_whole_number(value: float, text: str):
    assert cell_text(value) == text


def test_every_picture_comes_with_its_table_whose_names_stay_text():
    html = picture_html(Drawing("c", Chart(title="t", unit="u", curves=(Curve(label="<b>", x=[1], y=[0.25]),))))
    assert html.startswith("<svg") and "<b>" not in html
    assert "<summary>numbers</summary>" in html
    assert '<th scope="col" class="number">&lt;b&gt;</th>' in html and '<td class="number">0.25</td>' in html
