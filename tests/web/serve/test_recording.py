"""Recording: what was said to be recorded is in the store, whatever happens next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klimb.experience import Sample, Store
from klimb.web.serve.recording import NotRecorded, Recorder


def sample(name: str, response: str = "yes") -> Sample:
    return Sample(
        sample_id=name,
        group_id=name,
        prompt=({"role": "user", "content": "?"},),
        prompt_ids=(1, 2),
        response=response,
        response_ids=(3,),
        finish_reason="stop",
        log_mu=(-0.5,),
        log_mu_provenance="sampler",
    )


def ids_in(folder: Path) -> list[str]:
    return sorted(each.sample_id for each in Store(folder).samples())


def test_a_recorded_sample_is_in_the_store_when_its_future_is_done(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "store")
    recorder.record([sample("a")]).result(timeout=10)
    assert ids_in(tmp_path / "store") == ["a"]
    recorder.close()


def test_what_ends_at_the_same_time_is_one_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=0.2)
    futures = [recorder.record([sample(f"s{number}")]) for number in range(10)]
    for future in futures:
        future.result(timeout=10)
    assert len(list(tmp_path.glob("samples-*.parquet"))) == 1
    assert len(ids_in(tmp_path)) == 10
    recorder.close()


def test_samples_are_found_by_id_before_and_after_they_are_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=0.2)
    written = recorder.record([sample("a", "hello")])
    early = recorder.find("a")
    assert early is not None and early.response == "hello"
    written.result(timeout=10)
    late = recorder.find("a")
    assert late is not None and late.response == "hello"
    assert recorder.find("b") is None
    recorder.close()


def test_a_store_that_cannot_be_written_is_said_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path)

    def full(path: Path, samples: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("klimb.web.serve.recording.write_samples", full)
        with pytest.raises(NotRecorded, match="No space left"):
            recorder.record([sample("a")]).result(timeout=10)
        assert "No space left" in recorder.error
    recorder.record([sample("b")]).result(timeout=10)
    assert recorder.error == ""
    assert ids_in(tmp_path) == ["b"]
    assert recorder.find("a") is None
    recorder.close()


def test_a_sample_that_cannot_be_stored_takes_no_other_with_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=0.2)
    good, bad = recorder.record([sample("good")]), recorder.record([sample("bad", "\ud800")])
    good.result(timeout=10)
    with pytest.raises(NotRecorded):
        bad.result(timeout=10)
    assert ids_in(tmp_path) == ["good"]
    recorder.close()


def test_whoever_goes_away_while_it_is_written_stops_nobody(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=0.1)
    assert not recorder.record([sample("a")]).cancel()
    recorder.record([sample("b")]).result(timeout=10)
    assert ids_in(tmp_path) == ["a", "b"]
    recorder.close()


def test_closing_writes_what_waits_and_then_takes_no_more(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=5)
    recorder.record([sample("a")])
    recorder.close()
    assert ids_in(tmp_path) == ["a"]
    with pytest.raises(RuntimeError, match="closed"):
        recorder.record([sample("b")])


def test_a_growing_store_merges_its_segments_by_itself(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, commit_seconds=0, merge_at=4, grace_seconds=0)
    for number in range(12):
        recorder.record([sample(f"s{number:02}")]).result(timeout=10)
    until = time.monotonic() + 10
    while len(list(tmp_path.glob("samples-*.parquet"))) >= 12 and time.monotonic() < until:
        time.sleep(0.02)
    recorder.close()
    assert len(list(tmp_path.glob("samples-*.parquet"))) < 12
    assert ids_in(tmp_path) == [f"s{number:02}" for number in range(12)]


def test_a_start_removes_what_a_dead_writer_left_behind(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f".samples-000001-ab.parquet.tmp-{int(dead.stdout)}"
    left.write_bytes(b"half")
    mine = tmp_path / f".samples-000002-ab.parquet.tmp-{os.getppid()}"
    mine.write_bytes(b"half")
    Recorder(tmp_path).close()
    assert not left.exists() and mine.exists()


WRITER = """
import sys, threading
from pathlib import Path
from klimb.web.serve.recording import Recorder
from tests.web.serve.test_recording import sample

recorder = Recorder(Path(sys.argv[1]), merge_at=8, grace_seconds=0)

def client(number):
    for turn in range(100000):
        name = f"c{number}-{turn:06}"
        recorder.record([sample(name)]).result()
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()

for number in range(8):
    threading.Thread(target=client, args=(number,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.slow
def test_after_kill_9_under_load_all_that_was_said_to_be_recorded_is_in_the_store(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(400)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().split("\n")[:-1]
    process.wait()
    there = set(ids_in(tmp_path / "store"))
    assert {name for name in told if name} <= there
    assert len(there) >= 400
    Recorder(tmp_path / "store").close()
    assert set(ids_in(tmp_path / "store")) == there


def test_what_was_just_written_is_found_without_a_look_at_the_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("klimb.web.serve.recording.MOST_RECENT", 2)
    recorder = Recorder(tmp_path, commit_seconds=0)
    for name in "abc":
        recorder.record([sample(name)]).result(timeout=10)
    looked: list[list[str]] = []
    stored = Store.stored_samples
    monkeypatch.setattr(Store, "stored_samples", lambda store, ids: (looked.append(list(ids)), stored(store, ids))[1])
    assert [recorder.find(name) for name in "abc"] == [sample(name) for name in "abc"]
    assert looked == [["a"]]
    recorder.close()
