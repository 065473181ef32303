from pathlib import Path

import pytest
from tests.ui.pages.folders import AFTER, BEFORE, write_run

from klimb.training.run_folder import read_run
from klimb.ui.chart import Bars, Chart, Curve, Histogram, IntervalRow, Intervals
from klimb.ui.figures import chart_figure, charts_figure, intervals_figure, plot_curves
from klimb.ui.grouping import group_runs
from klimb.ui.run_charts import OVERVIEW, charts_of, overview_charts


def line(label: str = "a", **more) -> Curve:
    return Curve(label=label, x=[0, 1, 2], y=[0.0, 0.5, 1.0], **more)


def test_the_curves_of_a_run_are_images_beside_it(tmp_path: Path):
    png, svg = plot_curves(read_run(write_run(tmp_path / "run")), title="a run")
    assert (png, svg) == (tmp_path / "run" / "curves.png", tmp_path / "run" / "curves.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()[:1000]


def test_the_curves_of_a_run_are_charts_of_its_page(tmp_path: Path):
    record = read_run(write_run(tmp_path / "run"))
    of_page = [chart for charts in charts_of(group_runs([record])).values() for chart in charts]
    shown = overview_charts(record)
    assert tuple(chart.title for chart in shown) == OVERVIEW
    assert all(chart in of_page for chart in shown)


def test_a_file_and_a_page_draw_the_same_values(tmp_path: Path):
    charts = overview_charts(read_run(write_run(tmp_path / "run", evaluations=(BEFORE, AFTER))))
    figure = charts_figure(charts, title="a run", width=14, panel_height=3)
    for axes, chart in zip(figure.axes, charts, strict=True):
        assert axes.get_title(loc="left") == chart.title
        assert [list(drawn.get_ydata()) for drawn in axes.get_lines()] == [list(curve.y) for curve in chart.curves]
        assert axes.get_ylabel() == chart.unit and axes.get_xlabel() == chart.axis


def test_a_metric_that_nobody_measured_says_so():
    (silent,) = chart_figure(Chart(title="Entropy", unit="nats")).axes
    assert [text.get_text() for text in silent.texts] == ["not measured"]


def test_a_run_without_a_step_can_be_plotted(tmp_path: Path):
    assert plot_curves(read_run(write_run(tmp_path / "run", num_steps=0, evaluations=())), title="-")[0].exists()


def test_a_long_run_is_smoothed_over_its_raw_curve(tmp_path: Path):
    (axes,) = chart_figure(Chart(title="t", unit="u", curves=(line(raw_x=[0, 1, 2], raw_y=[0.1, 0.2, 0.9]),))).axes
    assert [list(drawn.get_ydata()) for drawn in axes.get_lines()] == [[0.1, 0.2, 0.9], [0.0, 0.5, 1.0]]


def test_values_that_are_no_finite_numbers_are_left_out():
    curve = Curve(label="a", x=[1, 2, 3], y=[float("nan"), float("inf"), 2.0])
    (axes,) = chart_figure(Chart(title="t", unit="u", curves=(curve,))).axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize("num_curves", [1, 2, 9])
def test_a_legend_lies_above_the_curves_and_below_the_title(num_curves: int):
    curves = tuple(line(f"a rather long name {number}", colour=number) for number in range(num_curves))
    figure = chart_figure(Chart(title="t", unit="u", curves=curves))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert (axes.get_legend() is None) == (num_curves == 1)
    if (legend := axes.get_legend()) is not None:
        box, plot = legend.get_window_extent(), axes.get_window_extent()
        assert plot.y1 <= box.y0 and box.y1 <= axes._left_title.get_window_extent().y0
        assert box.x1 <= figure.bbox.x1


def test_charts_of_one_range_share_its_axis_and_others_do_not():
    alike = [Chart(title=name, unit="u", curves=(line(),), floor=0.0, ceiling=4.0) for name in "ab"]
    first, second = charts_figure(alike, title="", width=8, panel_height=2).axes
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[1] >= 4
    free = [Chart(title="a", unit="u", curves=(line(),)), Chart(title="b", unit="u", curves=(line(),), ceiling=9.0)]
    first, second = charts_figure(free, title="", width=8, panel_height=2).axes
    assert first.get_ylim()[1] < 2 and second.get_ylim()[1] >= 9


@pytest.mark.filterwarnings("error")
def test_curves_that_are_flat_at_floor_and_ceiling_have_an_axis(caplog: pytest.LogCaptureFixture):
    flat = Curve(label="a", x=[0, 1], y=[0.0, 0.0])
    (axes,) = chart_figure(Chart(title="t", unit="u", curves=(flat,), floor=0.0, ceiling=0.0)).axes
    assert axes.get_ylim()[0] < 0 < axes.get_ylim()[1]
    assert caplog.text == ""


def test_bars_bins_and_clouds_are_drawn_too():
    bars = Chart(title="t", unit="u", bars=Bars(labels=["a", "b"], values=[1.0, 2.0]))
    assert [patch.get_width() for patch in chart_figure(bars).axes[0].patches] == [1.0, 2.0]
    bins = Chart(title="t", unit="u", histogram=Histogram(edges=[0, 1, 2], counts=[3, 4]))
    assert chart_figure(bins).axes[0].patches[0].get_data().values.tolist() == [3, 4]
    cloud = Chart(title="t", unit="u", curves=(line(mark="points"),))
    assert chart_figure(cloud).axes[0].collections[0].get_offsets().tolist() == [[0, 0], [1, 0.5], [2, 1]]


def test_intervals_stand_in_the_order_of_their_rows_from_the_top_and_hollow_where_open():
    rows = (
        IntervalRow(label="first", value=2.0, low=1.0, high=3.0, note="p = 0.01"),
        IntervalRow(label="second", value=0.5, is_hollow=True),
    )
    (axes,) = intervals_figure([Intervals(title="t", axis="points", rows=rows)], title="all").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["second", "first"]
    below, reach, above = axes.get_lines()
    assert (below.get_markerfacecolor(), below.get_xydata().tolist()) == ("white", [[0.5, 0]])
    assert reach.get_xydata().tolist() == [[1.0, 1], [3.0, 1]]
    assert above.get_xydata().tolist() == [[2.0, 1]]
