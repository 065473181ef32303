import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.ui.pages.folders import evaluation, problem

from klimb.training.locks import run_folder_lock
from klimb.web.curves import CurveReader
from klimb.web.files import parts_of
from klimb.web.listing import QUIET_SECONDS, Watcher
from klimb.web.server import make_app


def listed(board: TestClient) -> dict[str, dict]:
    return {run["id"]: run for run in board.get("/api/runs").json()["runs"]}


def curve(root: Path, run: str, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, as the board reads them."""
    return CurveReader(root).read(run, parts_of(run), [metric]).curve(metric, "step")


def charts(board: TestClient, *runs: str, metric: str, **more: object) -> dict:
    answer = board.get(
        "/api/charts", params={"run": list(runs), "colour": list(range(len(runs))), "metric": metric, **more}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_list_says_what_each_run_is_and_how_it_stands(board, runs):
    runs.make("a/deep/er/one", runs.rows(1, 3), seed=5, task={"kind": "arithmetic"}, training={"num_steps": 40})
    (runs.root / "study").mkdir()
    (runs.root / "study" / "study.json").write_text("{}")
    (runs.root / "study" / "report.html").write_text("<p>")
    answer = board.get("/api/runs").json()
    (run,) = answer["runs"]
    assert run["id"] == "a/deep/er/one"
    assert (run["recipe"], run["task"], run["seed"]) == ("grpo", "arithmetic", 5)
    assert (run["step"], run["num_steps"], run["reward"]) == (3, 40, 0.3)
    assert answer["studies"] == [{"id": "study", "report": "study/report.html"}]


def test_the_newest_run_comes_first_and_a_deleted_one_is_gone(board, runs):
    for name in ("b", "a", "c"):
        runs.make(name)
    assert list(listed(board)) == ["c", "a", "b"]
    (runs.root / "a" / "provenance.json").unlink()
    assert list(listed(board)) == ["c", "b"]
    assert board.get("/api/charts", params={"run": "a", "colour": 0, "metric": "loss"}).status_code == 404


def test_a_folder_that_is_itself_a_run_is_shown(runs):
    path = runs.make("only", runs.rows(1, 2))
    (path / "report.html").write_text("<p>its report")
    board = TestClient(make_app(path, poll_seconds=0.0), base_url="http://localhost")
    assert [(run["step"], run["report"]) for run in listed(board).values()] == [(2, "report.html")]
    assert curve(path, ".", "reward_mean") == ([1, 2], [0.1, 0.2])
    assert board.get("/open/report.html").text == "<p>its report"


def aged(path: Path, seconds: float) -> None:
    for file in path.iterdir():
        os.utime(file, (time.time() - seconds, time.time() - seconds))


def test_a_run_is_running_finished_failed_or_stopped(board, runs):
    aged(runs.make("stopped", runs.rows(1, 2)), QUIET_SECONDS + 60)
    aged(runs.make("slow", runs.rows(1, 2, step_seconds=300.0)), QUIET_SECONDS + 60)
    aged(runs.make("of a clock set back", runs.rows(1, 2)), -QUIET_SECONDS - 60)
    failed = runs.make("failed", runs.rows(1, 2))
    (failed / "status.json").write_text('{"state": "failed"}')
    finished = runs.make("finished", runs.rows(1, 2))
    (finished / "summary.json").write_text("{}")
    aged(runs.make("held", runs.rows(1, 2)), 10 * QUIET_SECONDS)
    runs.make("dead", runs.rows(1, 2))
    (runs.root / "dead" / "lock").write_text(
        json.dumps({"pid": 2**22 + 7, "host": os.uname().nodename, "started": "1"})
    )
    runs.make("new")
    with run_folder_lock(runs.root / "held"):
        assert {name: run["status"] for name, run in listed(board).items()} == {
            "stopped": "stopped",
            "slow": "running",
            "of a clock set back": "stopped",
            "failed": "failed",
            "finished": "finished",
            "held": "running",
            "dead": "stopped",
            "new": "running",
        }


def test_of_a_run_that_did_not_finish_the_list_says_why_and_its_report_how_to_go_on(board, runs):
    ending = {
        "kind": "error",
        "during": "training",
        "reason": "ScoringError: broken",
        "step": 0,
        "is_saved": True,
        "resumes_from": 0,
        "time": "",
    }
    for kind in ("error", "signal"):
        (runs.make(kind) / "ending.json").write_text(json.dumps(ending | {"kind": kind}))
    whole = runs.make("whole", runs.rows(1, 2))
    (whole / "summary.json").write_text("{}")
    told = {name: (run["status"], run["ending"]) for name, run in listed(board).items()}
    assert told == {
        "error": ("failed", "ScoringError: broken"),
        "signal": ("stopped", "ScoringError: broken"),
        "whole": ("finished", ""),
    }
    page = board.get("/report?run=error").text
    assert "ScoringError: broken" in page and "--resume" in page
    with run_folder_lock(runs.root / "error"):  # a process goes on with it
        assert listed(board)["error"]["status"] == "running"


def test_the_list_is_sent_again_only_when_it_changed(board, runs):
    path = runs.make("one", runs.rows(1, 2))
    first = board.get("/api/runs")
    assert board.get("/api/runs", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    runs.append(path, runs.rows(3, 3))
    assert board.get("/api/runs", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_half_a_line_is_shown_once_it_is_whole(board, runs):
    path = runs.make("one", runs.rows(1, 1))
    reader = CurveReader(runs.root)

    def shown() -> list[float]:
        return reader.read("one", ("one",), ["reward_mean"]).curve("reward_mean", "step")[1]

    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rewa')
        file.flush()
        assert (shown(), listed(board)["one"]["step"]) == ([0.1], 1)
        file.write('rd_mean": 0.5}\n')
    assert shown() == [0.1, 0.5]


def test_what_is_not_finite_not_there_or_not_a_number_is_told_apart(runs):
    path = runs.make("one")
    lines = [
        '{"step": 1, "loss": null}', '{"step": 2, "loss": NaN}', '{"step": 3, "loss": -Infinity}', '{"step": 4}',
        '{"step": 5, "loss": "<script>"}', '{"step": 6, "loss": true}', '{"step": 7, "loss": {"a": 1}}',
        "[1, 2]", "{broken",
        f'{{"step": 8, "loss": 1{"0" * 400}}}', "[" * 100_000, '{"step": 9, "loss": 2}',
    ]  # fmt: skip
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    steps, losses = curve(runs.root, "one", "loss")
    assert steps == [1, 2, 3, 8, 9]
    assert [math.isnan(loss) for loss in losses] == [True, True, True, True, False]
    assert losses[-1] == 2


def test_evaluations_before_and_after_are_points_of_the_same_curve(board, runs):
    path = runs.make("one", runs.rows(1, 2))
    asked = [f"{number}+1" for number in range(5)]
    made = [
        evaluation("before", 0, [problem(name, [0, 1, 0, 0]) for name in asked]),
        evaluation("after", 2, [problem(name, [1, 1]) for name in asked]),
    ]
    lines = [json.dumps(asdict(one)) for one in made]
    (path / "evaluations.jsonl").write_text("\n".join([*lines, '{"mean": 0.9}', ""]))
    assert curve(runs.root, "one", "evaluation_mean") == ([0, 2], [0.25, 1.0])
    assert curve(runs.root, "one", "evaluation_pass_at_2") == ([0, 2], [0.35, 1.0])
    names = CurveReader(runs.root).read("one", ("one",), []).names
    assert "evaluation_low" in names and "evaluation_greedy" not in names


def test_a_chart_goes_on_with_its_run_and_starts_again_where_the_run_was_cut_back(board, runs):
    path = runs.make("study/one", runs.rows(1, 4))
    runs.make("study/two", runs.rows(1, 2, reward_mean=9.0))
    found = charts(board, "study/one", "study/two", metric="reward_mean")
    values = found["charts"]["reward_mean"]["values"]
    assert [(curve["label"], curve["y"]) for curve in values["curves"]] == [
        ("one", [0.1, 0.2, 0.3, 0.4]),
        ("two", [9, 9]),
    ]
    assert found["latest"] == {"study/one": [0.4], "study/two": [9.0]}
    html = found["charts"]["reward_mean"]["html"]
    assert html.startswith("<svg") and '<td class="number">0.4</td><td class="number">–</td>' in html
    assert "num_tokens_generated" in found["metrics"]
    # A resumed run does some steps again: the later row counts.
    runs.append(path, runs.rows(3, 6, reward_mean=0.5))
    again = charts(board, "study/one", metric="reward_mean")["charts"]["reward_mean"]["values"]["curves"][0]
    assert (again["x"], again["y"]) == ([1, 2, 3, 4, 5, 6], [0.1, 0.2, 0.5, 0.5, 0.5, 0.5])


def test_a_chart_may_be_over_tokens_and_smoothed_by_a_window_of_the_same_variance(board, runs):
    runs.make("one", [*runs.rows(1, 50, own=0.0), *runs.rows(51, 100, own=1.0)])
    (curve,) = charts(board, "one", metric="own", x="num_tokens_generated", smooth=0.5)["charts"]["own"]["values"][
        "curves"
    ]
    assert curve["x"][-1] == 10_000
    # An average of weight 0.5 has the variance of one over (1 + 0.5) / (1 − 0.5) = 3 values.
    assert curve["y"][48:52] == [0.0, 0.33333, 0.66667, 1.0]
    assert board.get("/api/charts", params={"run": "one", "colour": 0, "x": "no such axis"}).status_code == 422


def test_a_report_is_made_of_the_run_as_it_is_and_asked_anew_while_it_goes_on(board, runs):
    path = runs.make("one", runs.rows(1, 3))
    going = board.get("/report", params={"run": "one"})
    assert "not finished: 3 steps so far" in going.text
    assert going.headers["refresh"] == "30"
    assert "sandbox allow-scripts" in going.headers["content-security-policy"]
    (path / "summary.json").write_text(json.dumps({"num_steps": 3}))
    over = board.get("/report", params={"run": "one"})
    assert 'class="chip good">finished' in over.text
    assert "refresh" not in over.headers


def test_settings_are_the_configuration_with_dotted_keys(board, runs):
    runs.make("one", objective={"recipe": "dapo", "clip": {"kind": "dual", "low": 0.2}})
    assert board.get("/api/settings", params={"run": "one"}).json()["settings"] == {
        "seed": 0,
        "objective.recipe": "dapo",
        "objective.clip.kind": "dual",
        "objective.clip.low": 0.2,
    }


def test_the_name_of_the_folder_cannot_act_in_the_page(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    page = TestClient(make_app(folder), base_url="http://localhost").get("/").text
    assert "<img" not in page and "&lt;img" in page


def test_a_folder_with_too_many_folders_is_said_to_be_cut(runs, monkeypatch):
    monkeypatch.setattr("klimb.web.listing.MOST_FOLDERS", 10)
    for index in range(12):
        runs.make(f"run-{index:02d}")
    listing = Watcher(runs.root, seconds=0.0).listing()
    assert listing.is_cut and len(listing.runs) == 9


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/static/board.js",
        "/static/charts.js",
        "/api/runs",
        "/report?run=run",
        "/open/run/report.html",
        "/open/run/no.html",
    ],
)
def test_head_answers_as_get_does_without_the_body(board, runs, path: str):
    (runs.make("run") / "report.html").write_text("a report")
    asked, whole = board.head(path), board.get(path)
    assert (asked.status_code, dict(asked.headers)) == (whole.status_code, dict(whole.headers))
    assert (asked.content, bool(whole.content)) == (b"", True)


def test_without_script_the_board_still_leads_to_the_report_of_every_run_and_study(board, runs):
    runs.make("a/one & two", runs.rows(1, 2))
    for name in ("told", "untold"):
        (runs.root / name).mkdir()
        (runs.root / name / "study.json").write_text("{}")
    (runs.root / "told" / "report.html").write_text("<p>")
    page = board.get("/").text
    assert '<a href="/report?run=a/one%20%26%20two">a/one &amp; two</a>' in page
    assert board.get("/report?run=a/one%20%26%20two").status_code == 200
    assert '<a href="/open/told/report.html">told</a>' in page and "untold" not in page
    assert board.get("/open/told/report.html").status_code == 200
