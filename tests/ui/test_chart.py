import math
import re

import pytest

from klimb.ui.chart import Chart, Curve, described
from klimb.ui.svg import chart_data, chart_svg, legend

LEFT = 6.6 * len("0.0") + 9
"""Where the plot begins when the widest label of the vertical axis is `0.0`."""


def chart(
    *curves: Curve, floor: float | None = 0.0, ceiling: float | None = 1.0, is_logarithmic: bool = False
) -> Chart:
    return Chart(title="Title", unit="unit", curves=curves, floor=floor, ceiling=ceiling, is_logarithmic=is_logarithmic)


def points(svg: str, css: str) -> list[tuple[float, float]]:
    found = re.search(rf'<pol\w+ class="{css}" points="([^"]+)"', svg)
    assert found is not None
    pairs = (pair.split(",") for pair in found.group(1).split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_line_runs_from_corner_to_corner_of_the_axes():
    svg = chart_svg(chart(Curve(label="a", x=[0, 5, 10], y=[0.0, 0.5, 1.0])), name="c")
    assert points(svg, "line") == [(round(LEFT, 1), 166.0), (round((LEFT + 350) / 2, 1), 87.0), (350.0, 8.0)]


def test_a_band_goes_along_its_upper_end_and_back_along_its_lower_one():
    svg = chart_svg(chart(Curve(label="a", x=[0, 10], y=[0.5, 0.5], low=[0.0, 0.0], high=[1.0, 0.5])), name="c")
    left = round(LEFT, 1)
    assert points(svg, "band") == [(left, 8.0), (350.0, 87.0), (350.0, 166.0), (left, 166.0)]


def test_a_logarithmic_axis_puts_ten_halfway_between_one_and_a_hundred():
    curve = Curve(label="a", x=[0, 1, 2, 3], y=[1.0, 10.0, 100.0, -3.0])
    svg = chart_svg(chart(curve, is_logarithmic=True), name="c")
    assert [y for _, y in points(svg, "line")] == [166.0, 87.0, 8.0]


@pytest.mark.parametrize("value", [0.0, 1e-5, -3.0, 1e9])
def test_a_constant_curve_is_drawn_inside_of_the_picture(value: float):
    rounding = Curve(label="a", x=[1, 2], y=[value, math.nextafter(value, math.inf)])
    svg = chart_svg(chart(rounding, floor=None, ceiling=None), name="c")
    assert all(8 <= y <= 166 for _, y in points(svg, "line"))


def test_a_single_point_is_a_dot():
    svg = chart_svg(chart(Curve(label="a", x=[3], y=[0.5])), name="c")
    assert ("<polyline" in svg, svg.count('<circle class="dot"')) == (False, 1)


def test_a_chart_without_a_point_says_so():
    empty = chart(Curve(label="a", x=[0], y=[-1.0]), is_logarithmic=True)
    assert "nothing to draw" in chart_svg(empty, name="c")
    assert chart_data(empty) == {"curves": []}


def test_the_description_tells_a_blind_reader_the_ends():
    shown = described(chart(Curve(label="KL", x=[0, 1, 2], y=[0.0, 0.034, 0.031])))
    assert shown == "KL: from 0 to 0.034, last 0.031, over 3 points"


def test_the_pointer_reads_the_values_and_not_the_pixels():
    data = chart_data(chart(Curve(label="a", x=[0, 10], y=[1 / 3, 123456.7], low=[0.25, 1], high=[0.5, 2])))
    assert (data["low"], data["high"], data["left"], data["right"]) == (
        0,
        10,
        pytest.approx(6.6 * 7 + 9, abs=0.1),
        350.0,
    )
    assert data["curves"] == [
        {"label": "a", "colour": "c0", "x": [0, 10], "y": [0.33333, 123457], "low": [0.25, 1], "high": [0.5, 2]}
    ]


def test_names_of_lines_are_told_apart_by_colour_and_pattern():
    lines = [Curve(label=f"<{n}>", x=[0], y=[0.5], colour=n, dash=n) for n in range(2)]
    assert legend(chart(lines[0])) == []
    assert legend(chart(*lines)) == [("c0", "<0>"), ("c1 d1", "<1>")]


def test_a_line_beside_a_cloud_has_no_dots_that_would_cover_numbers():
    cloud = Curve(label="n", x=[0], y=[0.0], sizes=[3], mark="points")
    guide = Curve(label="same", x=[0, 1], y=[0.0, 1.0])
    assert 'class="dot"' not in chart_svg(chart(guide, cloud), name="c")
    assert chart_svg(chart(guide), name="c").count('class="dot"') == 2
