import io

from rich.console import Console

from klimb.ui.live import ENDLESS, Glimpse, LiveView, PlainView, open_view

METRICS = {
    "reward_mean": 0.25,
    "accuracy": 0.5,
    "kl_pi_ref": 1.5e-3,
    "entropy": 2.0,
    "length_mean": 7.0,
    "grad_norm": 1.0,
    "tokens_per_second": 1234.0,
}
HOSTILE = Glimpse(prompt="[bold]2+2[/bold]\x1b[2J?", answer="4\x1b]0;title\x07\nand [red]more[/red]", reward=1.0)


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None, legacy_windows=False
    )


def panel_of(width: int, *, glimpse: Glimpse | None) -> list[str]:
    view = LiveView(terminal(width), title="a run", num_steps=3)
    view.step(1, METRICS, glimpse)
    panel = view._panel
    view.close()
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(panel)
    return console.file.getvalue().splitlines()


def test_a_pipe_gets_one_plain_line_per_step():
    console = Console(file=io.StringIO(), width=80)
    view = open_view(console, title="a run", num_steps=3)
    view.phase("sampling")
    view.step(1, METRICS, HOSTILE)
    view.step(2, METRICS, None)
    view.close()
    lines = console.file.getvalue().splitlines()
    assert isinstance(view, PlainView)
    assert len(lines) == 2
    assert lines[0].startswith("step 1/3  reward 0.250  accuracy 0.500")
    assert "KL(π‖ref) 1.50e-03" in lines[0]


def test_a_terminal_gets_the_panel():
    view = open_view(terminal(80), title="a run", num_steps=3)
    view.close()
    assert isinstance(view, LiveView)


def test_the_panel_fits_its_width_and_keeps_its_height():
    heights = set()
    for width in (80, 120):
        for glimpse in (None, HOSTILE, Glimpse(prompt="p" * 999, answer="答" * 999, reward=None)):
            lines = panel_of(width, glimpse=glimpse)
            heights.add(len(lines))
            assert all(Console(width=width).measure(line).maximum <= width for line in lines)
    assert len(heights) == 1


def test_the_panel_shows_text_of_a_model_as_text():
    shown = "\n".join(panel_of(100, glimpse=HOSTILE))
    assert "\x1b" not in shown and "\x07" not in shown
    assert "[bold]2+2[/bold][2J?" in shown
    assert "4]0;title⏎and [red]more[/red]" in shown


def test_the_panel_shows_a_number_that_is_missing_as_a_dot():
    assert any("held-out" in line and "·" in line for line in panel_of(80, glimpse=None))


def test_a_run_that_ends_by_another_limit_counts_its_steps_and_claims_no_time_left():
    console = Console(width=100, record=True, file=io.StringIO())
    view = PlainView(console, num_steps=ENDLESS)
    view.step(3, {"reward_mean": 0.5}, None)
    assert console.export_text().startswith("step 3  reward 0.500")
    live = LiveView(terminal(80), title="a run", num_steps=ENDLESS)
    live.step(3, {"reward_mean": 0.5}, None)
    live.close()
