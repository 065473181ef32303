from pathlib import Path

from klimb.ui.figures import PANELS, curves_figure, moving_average, plot_curves, points

ROWS = [
    {"step": step, "reward_mean": step / 10, "entropy": None, "clip_low_fraction": 0.1, "clip_high_fraction": 0.2}
    for step in range(1, 6)
]


def panels_of(rows: list[dict]) -> dict[str, list[tuple[str, list[float]]]]:
    figure = curves_figure(rows, title="a run")
    return {
        axes.get_title(loc="left"): [(line.get_label(), list(line.get_ydata())) for line in axes.get_lines()]
        for axes in figure.axes
    }


def test_both_files_are_images(tmp_path: Path):
    png, svg = plot_curves(ROWS, tmp_path, title="a run")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()[:1000]


def test_every_metric_has_its_curve_and_every_axis_its_unit():
    panels = panels_of(ROWS)
    assert panels["Reward on training batches"] == [("reward", [0.1, 0.2, 0.3, 0.4, 0.5])]
    assert [label for label, _ in panels["Clipped tokens"]] == ["low", "high"]
    assert all(axes.get_ylabel() and axes.get_xlabel() for axes in curves_figure(ROWS, title="").axes)


def test_a_metric_that_nobody_measured_says_so():
    figure = curves_figure(ROWS, title="")
    silent = next(axes for axes in figure.axes if axes.get_title(loc="left") == "Entropy of the policy")
    assert [text.get_text() for text in silent.texts] == ["not measured"]


def test_a_run_without_a_step_can_be_plotted(tmp_path: Path):
    assert plot_curves([], tmp_path, title="nothing")[0].exists()


def test_a_long_run_is_smoothed_over_its_raw_curve():
    rows = [{"step": step, "reward_mean": float(step % 2)} for step in range(100)]
    (_, raw), (_, smooth) = panels_of(rows)["Reward on training batches"]
    assert set(raw) == {0.0, 1.0}
    assert min(smooth[10:]) > 0.3 and max(smooth[10:]) < 0.7


def test_a_moving_average_is_over_the_values_so_far():
    assert moving_average([1.0, 3.0, 5.0], window=2) == [1.0, 2.0, 4.0]


def test_values_that_are_no_finite_numbers_are_left_out():
    rows = [{"step": 1, "x": None}, {"step": 2, "x": float("nan")}, {"step": 3, "x": True}, {"step": 4, "x": 2}]
    assert points(rows, "x") == ([4.0], [2.0])


def test_no_colour_stands_for_two_curves_of_a_panel():
    for panel in PANELS:
        assert len({(series.colour, series.style) for series in panel.series}) == len(panel.series)
