"""Requests that get no answer: for files that are no report, for places outside of the folder, from other origins."""

import json
import os
from urllib.parse import quote

import pytest

from klimb.web.asgi import is_own_name
from klimb.web.files import open_beneath, parts_of

SECRET = "the secret"


@pytest.fixture
def secrets(runs) -> list[str]:
    """Paths that lead, or seem to lead, to files outside of the folder or to files that are no report."""
    run = runs.make("run", runs.rows(1, 1))
    outside = runs.root.parent / "outside"
    outside.mkdir()
    for name in ("report.html", "provenance.json", "metrics.jsonl", "config.json"):
        (outside / name).write_text(SECRET if name.endswith("html") else json.dumps({"step": 1, SECRET: 1}))
    (runs.root / "linked").symlink_to(outside)
    (run / "linked.html").symlink_to(outside / "report.html")
    (run / "figures").symlink_to(outside)
    (run / ".hidden.html").write_text(SECRET)
    (run / "model.safetensors").write_text(SECRET)
    (run / "notes.txt").write_text(SECRET)
    (runs.root / "notes.md").write_text(SECRET)
    os.mkfifo(run / "pipe.html")
    return [
        "../outside/report.html", "run/../../outside/report.html", "linked/report.html", "run/linked.html",
        "run/figures/report.html", "run/.hidden.html", "run/model.safetensors", "run/notes.txt", "run/config.json",
        "notes.md",
        "run/pipe.html", f"{outside}/report.html", f"/{outside}/report.html", "run//report.html", "run/./report.html",
        "run\\..\\..\\outside\\report.html", "run/report.html\x00.html",
        "run/..\u2215..\u2215outside/report.html", "run/", "run", "",
    ]  # fmt: skip


def test_nothing_but_reports_of_runs_is_opened_and_nothing_outside(board, secrets):
    for path in secrets:
        for given in (quote(path, safe=""), quote(path)):
            answer = board.get(f"/open/{given}")
            assert answer.status_code in (404, 307), path
            assert SECRET not in answer.text, path


def test_no_run_outside_of_the_folder_is_read(board, secrets):
    for run in ("../outside", "linked", "run/figures", "run/../../outside", "/etc", "", "run/..", ".."):
        for place in ("api/charts", "api/settings", "report"):
            answer = board.get(f"/{place}", params={"run": run, "colour": 0, "metric": SECRET})
            assert answer.status_code == 404, run
            assert SECRET not in answer.text
    assert [run["id"] for run in board.get("/api/runs").json()["runs"]] == ["run"]


def test_no_report_is_made_of_a_file_that_is_a_link_or_a_pipe(board, runs, secrets):
    run = runs.root / "run"
    (run / "evaluations.jsonl").symlink_to(runs.root.parent / "outside" / "metrics.jsonl")
    assert board.get("/report", params={"run": "run"}).status_code == 404
    (run / "evaluations.jsonl").unlink()
    assert board.get("/report", params={"run": "run"}).status_code == 200
    os.mkfifo(run / "evaluations.jsonl")
    assert board.get("/report", params={"run": "run"}).status_code == 404


def test_a_link_in_the_middle_of_a_path_is_not_followed(runs, secrets):
    with pytest.raises(OSError):
        open_beneath(runs.root, ("linked", "report.html"))
    with pytest.raises(ValueError, match="not a path beneath"):
        parts_of("a/../b")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:6900", "127.0.0.1:6900", "[::1]:6900", "[::1]", "192.168.0.7", "box:1"]
)
def test_names_of_this_machine_are_answered(host: str):
    assert is_own_name(host, frozenset({"box"}))


FOREIGN = (
    "evil.example",
    "evil.example:6900",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "",
    "[::1",
    "[evil]",
)


@pytest.mark.parametrize("host", [*FOREIGN, "box:80@evil", "127.0.0.1:6900:x"])
def test_a_page_of_another_name_gets_no_answer(board, host: str):
    assert not is_own_name(host, frozenset({"box"}))
    if host:
        assert board.get("/api/runs", headers={"Host": host}).status_code == 421


def test_nothing_can_be_changed_and_no_other_origin_may_read(board, runs):
    runs.make("run")
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert board.request(method, "/api/runs").status_code == 405
    answer = board.get("/api/runs", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_report_is_served_in_a_sandbox_of_its_own(board, runs):
    (runs.make("run") / "report.html").write_text("<script>1</script>")
    policy = board.get("/open/run/report.html").headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy and "allow-same-origin" not in policy
    assert "default-src 'none'" in policy and "connect-src" not in policy
    page = board.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in page and "unsafe" not in page
