import resource
from pathlib import Path

from klimb.training.metrics import MetricsLog, read_metrics, without_wall_clock


def test_lines_come_back_exactly_and_what_is_not_finite_is_null(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1.0, "third": 1 / 3})
    log.write({"step": 2.0, "loss": float("nan"), "w_max": float("inf")})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1.0, "third": 1 / 3},
        {"step": 2.0, "loss": None, "w_max": None},
    ]
    log.close()


def test_reopening_cuts_back_to_the_checkpoint(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write({"step": 1.0})
    size = log.flush_to_disk()
    log.write({"step": 2.0})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"step": 3')  # a crash while writing
    assert [line["step"] for line in read_metrics(path)] == [1.0, 2.0]
    log = MetricsLog(path, keep_bytes=size)
    log.write({"step": 2.5})
    log.close()
    assert [line["step"] for line in read_metrics(path)] == [1.0, 2.5]


def test_a_file_shorter_than_its_checkpoint_is_told(tmp_path: Path, caplog):
    MetricsLog(tmp_path / "metrics.jsonl", keep_bytes=100).close()
    assert "has 0 bytes and the checkpoint expects 100" in caplog.text


def test_a_full_disk_loses_no_line(tmp_path: Path, caplog):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
        for step in range(5):
            log.write({"step": float(step)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write({"step": 5.0})
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert "cannot be written: [Errno 27] File too large" in caplog.text


def test_wall_clock_metrics_are_those_with_the_stated_endings():
    assert without_wall_clock({"a_seconds": 1.0, "tokens_per_second": 2.0, "a": 3.0}) == {"a": 3.0}
