"""What a resume does about a damaged folder: nothing is glued together, nothing is wiped, all of it is told."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.experience import Sample, SegmentError, read_samples, write_samples
from klimb.policies import load_policy
from klimb.tasks import Problem, Response, Score
from klimb.training import CheckpointError, read_metrics, without_wall_clock
from klimb.training.evaluation import append_evaluation, summarise_scores
from klimb.training.identity import write_identity
from klimb.training.metrics import MetricsLog
from klimb.training.repair import (
    check_may_begin_again,
    mend_folder,
    mend_metrics,
    remove_behind,
    tell_lost_evaluations,
)
from klimb.training.run_folder import read_evaluations, read_history, read_run

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def write_steps(path: Path, *steps: int) -> int:
    with path.open("a") as file:
        file.writelines(json.dumps({"step": float(step), "reward_mean": step / 8}) + "\n" for step in steps)
    return path.stat().st_size


def steps_in(path: Path) -> list[float | None]:
    return [line["step"] for line in read_metrics(path)]


def sample(name: str) -> Sample:
    return Sample(
        sample_id=name,
        group_id="g",
        prompt=({"role": "user", "content": "Say a"},),
        prompt_ids=(1,),
        response="a",
        response_ids=(2, 3),
        finish_reason="stop",
        reward=1.0,
    )


def evaluation(when: str, step: int = 0):
    problem = Problem(problem_id="p", messages=({"role": "user", "content": "Say a"},), answer="a")
    answers = [Response(text="a", num_tokens=1, finish_reason="stop")]
    record = summarise_scores([problem], answers, [Score(reward=1.0, correct=True)], when=when)  # pyright: ignore
    return replace(record, step=step)


@pytest.mark.parametrize("tail", [b'{"step": 3, "rew', b"\x00" * 500, b"\x80\xff{", b"[1, 2]", b"7"])
def test_a_last_line_cut_short_is_named_and_cut_off_before_anything_is_added(tmp_path: Path, tail: bytes, caplog):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, 1, 2)
    with path.open("ab") as file:
        file.write(tail)
    mend_folder(tmp_path)
    assert "metrics.jsonl: its last line was cut short" in caplog.text and f"these {len(tail)} bytes" in caplog.text
    write_steps(path, 3)
    assert steps_in(path) == [1, 2, 3]


def test_a_last_line_that_is_whole_but_for_its_end_is_kept(tmp_path: Path, caplog):
    path = tmp_path / "config_history.jsonl"
    path.write_text('{"step": 1, "key": "a", "old": 1, "new": 2}')
    mend_folder(tmp_path)
    assert [line["key"] for line in read_history(tmp_path)] == ["a"] and not caplog.text
    assert path.read_bytes().endswith(b"}\n")


def test_a_log_never_glues_a_line_to_one_that_was_cut(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    whole = write_steps(path, 1, 2, 3)
    path.write_bytes(path.read_bytes()[:-9])
    kept = mend_metrics(path, step=3, keep_bytes=whole)
    log = MetricsLog(path, keep_bytes=kept)
    log.write({"step": 4.0})
    log.close()
    assert steps_in(path) == [1, 2, 4]


def test_metrics_that_are_as_the_checkpoint_says_are_left_alone(tmp_path: Path, caplog):
    path = tmp_path / "metrics.jsonl"
    size = write_steps(path, 1, 2, 3)
    write_steps(path, 4)
    with path.open("ab") as file:
        file.write(b"garbage behind the checkpoint\n")
    before = path.read_bytes()
    assert mend_metrics(path, step=3, keep_bytes=size) == size
    assert path.read_bytes() == before and not caplog.text and len(list(tmp_path.iterdir())) == 1


def test_metrics_garbled_in_the_middle_lose_that_line_alone_and_are_kept_beside(tmp_path: Path, caplog):
    path = tmp_path / "metrics.jsonl"
    size = write_steps(path, 1, 2, 3, 4)
    write_steps(path, 5)
    lines = path.read_bytes().split(b"\n")
    lines[1] = b"\x00" * len(lines[1])
    damaged = b"\n".join(lines)
    path.write_bytes(damaged)
    kept = mend_metrics(path, step=4, keep_bytes=size)
    assert kept == path.stat().st_size and steps_in(path) == [1, 3, 4]
    assert (tmp_path / "metrics.jsonl.damaged-1").read_bytes() == damaged
    assert (
        "1 of the 4 steps that the checkpoint has seen are lost from it (2), line 2 of 5 cannot be read" in caplog.text
    )
    assert "kept as metrics.jsonl.damaged-1. They cannot be made again" in caplog.text
    assert len(caplog.records) == 1


def test_metrics_shorter_than_the_checkpoint_expects_are_counted(tmp_path: Path, caplog):
    path = tmp_path / "metrics.jsonl"
    assert mend_metrics(path, step=2, keep_bytes=100) == 0
    assert "2 of the 2 steps that the checkpoint has seen are lost from it (1–2)" in caplog.text
    write_steps(path, 1, 2, 5)
    assert mend_metrics(path, step=7, keep_bytes=10_000) == path.stat().st_size
    assert "4 of the 7 steps" in caplog.text and "(3–4, 6–7)" in caplog.text
    assert steps_in(path) == [1, 2, 5]


def test_a_report_names_the_line_that_cannot_be_read_and_goes_on_with_the_rest(tmp_path: Path, caplog):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, 1)
    path.write_text(path.read_text() + "{garbled\n[]\n")
    write_steps(path, 4)
    append_evaluation(tmp_path / "evaluations.jsonl", evaluation("before"))
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"when": "during"}\n')
    (tmp_path / "summary.json").write_bytes(b"\x80\x01")
    (tmp_path / "guard.json").write_text("")
    (tmp_path / "config.json").write_text("[]")
    record = read_run(tmp_path)
    assert [row["step"] for row in record.rows] == [1, 4] and [made.when for made in record.evaluations] == ["before"]
    told = " ".join(record.damage)
    assert "metrics.jsonl: lines 2, 3 of 4 cannot be read" in told and "evaluations.jsonl: line 2 of 2" in told
    assert "summary.json: it is not valid JSON" in told and "guard.json: it is empty" in told
    assert "config.json: it must hold an object, got a list" in told
    assert all(note in caplog.text for note in record.damage)


def test_evaluations_that_cannot_be_read_are_left_out_and_kept_beside(tmp_path: Path, caplog):
    path = tmp_path / "evaluations.jsonl"
    append_evaluation(path, evaluation("before"))
    whole = path.read_text()
    path.write_text('{"when": "before"}\n' + "garbled\n" + whole)
    mend_folder(tmp_path)
    assert path.read_text() == whole
    assert "lines 1, 2 of 3 cannot be read" in caplog.text and "these evaluations are lost" in caplog.text
    assert (tmp_path / "evaluations.jsonl.damaged-1").read_text().startswith('{"when": "before"}')


@pytest.mark.parametrize("name", ["summary.json", "prompts.json", "guard.json", "loggers.json"])
@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\x80\x02\x03", b"[1]"])
def test_a_damaged_side_file_is_put_aside_in_one_line(tmp_path: Path, name: str, content: bytes, caplog):
    (tmp_path / name).write_bytes(content)
    mend_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.damaged-1"]
    assert len(caplog.records) == 1 and f"it is put aside as {name}.damaged-1" in caplog.text


def test_a_summary_without_the_time_that_the_run_took_is_damage_too(tmp_path: Path, caplog):
    (tmp_path / "summary.json").write_text('{"seconds": 3}')
    mend_folder(tmp_path)
    assert "summary.json: it does not say how long the run took" in caplog.text


def test_what_dead_processes_left_half_written_is_removed(tmp_path: Path):
    (tmp_path / "rollouts").mkdir()
    for name in (".config.json.tmp", ".identity.json.tmp-4711", "rollouts/.step-000002.parquet.tmp-4711"):
        (tmp_path / name).write_text("half")
    write_samples(tmp_path / "rollouts" / "step-000001.parquet", [sample("a")])
    (tmp_path / ".mine").write_text("stays")
    mend_folder(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {".mine", "rollouts/step-000001.parquet"}


def test_damaged_rollouts_are_put_aside_and_those_behind_the_checkpoint_are_made_again(tmp_path: Path, caplog):
    rollouts = tmp_path / "rollouts"
    rollouts.mkdir()
    for step in range(1, 5):
        write_samples(rollouts / f"step-{step:06d}.parquet", [sample(f"{step}")])
    cut = rollouts / "step-000002.parquet"
    cut.write_bytes(cut.read_bytes()[:-40])
    (rollouts / "step-000004.parquet").write_bytes(b"garbage")
    remove_behind(tmp_path, 3)
    names = sorted(path.name for path in rollouts.iterdir())
    assert names == ["step-000001.parquet", "step-000002.parquet.damaged-1", "step-000003.parquet"]
    assert "1 files of rollouts are damaged" in caplog.text and "step-000002.parquet.damaged-1" in caplog.text


def test_old_rollouts_that_were_cut_or_emptied_are_found_too(tmp_path: Path, caplog):
    (tmp_path / "rollouts").mkdir()
    paths = [tmp_path / "rollouts" / f"step-{step:06d}.parquet" for step in (1, 2, 3, 4)]
    for path in paths:
        write_samples(path, [sample(path.stem)])
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    paths[2].write_bytes(bytes(100))
    remove_behind(tmp_path, 1_000)
    assert [path.exists() for path in paths] == [False, False, False, True]
    assert "3 files of rollouts are damaged" in caplog.text


def test_a_flipped_byte_in_a_segment_is_found_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "a.parquet"
    written = [replace(sample(f"{number}"), response=f"answer {number * 7919}") for number in range(50)]
    write_samples(path, written)
    content = path.read_bytes()
    num_found = 0
    for position in range(5, len(content), 41):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            assert read_samples(path) == written, position
        except SegmentError:
            num_found += 1
    assert num_found > 10


@pytest.mark.parametrize(
    ("steps", "has_saved", "with_folder", "is_finished"),
    [(3, True, False, False), (3, True, True, False), (3, False, False, True)],
)
def test_steps_without_the_checkpoint_that_there_was_are_not_begun_anew(
    tmp_path: Path, steps: int, has_saved: bool, with_folder: bool, is_finished: bool
):
    write_steps(tmp_path / "metrics.jsonl", *range(1, steps + 1))
    write_identity(tmp_path, {"seed": 0}, has_saved=has_saved)
    if with_folder:
        (tmp_path / "checkpoints").mkdir()
    if is_finished:
        (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"holds {steps} steps and no checkpoint .* --restart"):
        check_may_begin_again(tmp_path, every_steps=20)


@pytest.mark.parametrize(("steps", "with_folder"), [(20, False), (3, True)])
def test_an_older_run_did_not_say_that_it_had_saved_and_may_have(tmp_path: Path, steps: int, with_folder: bool):
    write_steps(tmp_path / "metrics.jsonl", *range(1, steps + 1))
    (tmp_path / "identity.json").write_text(json.dumps({"format": 1, "identity": {"seed": 0}}))
    if with_folder:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=rf"holds {steps} steps and no checkpoint .* --restart"):
        check_may_begin_again(tmp_path, every_steps=20)


def test_steps_of_which_no_checkpoint_was_ever_made_are_done_again(tmp_path: Path, caplog):
    # A kill while the first one was written, or a disk that refused them all.
    write_steps(tmp_path / "metrics.jsonl", *range(1, 26))
    write_identity(tmp_path, {"seed": 0}, has_saved=False)
    (tmp_path / "checkpoints").mkdir()
    check_may_begin_again(tmp_path, every_steps=20)
    assert "stopped after step 25, before its first checkpoint" in caplog.text


def test_evaluations_that_the_metrics_know_of_and_the_file_has_lost_are_named(tmp_path: Path, caplog):
    rows = [{"step": step} | ({"evaluation_mean": 0.5} if step % 2 == 0 else {}) for step in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = [{"when": "before", "step": 0}, {"when": "during", "step": 4}]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    tell_lost_evaluations(tmp_path, step=5)
    assert "lacks the evaluations after step 2: they are lost" in caplog.text


def test_rollouts_alone_are_not_wiped_either(tmp_path: Path):
    (tmp_path / "rollouts").mkdir()
    write_samples(tmp_path / "rollouts" / "step-000030.parquet", [sample("a")])
    with pytest.raises(CheckpointError, match="holds 30 steps and no checkpoint"):
        check_may_begin_again(tmp_path, every_steps=20)


def test_a_run_stopped_before_its_first_checkpoint_begins_again_and_says_so(tmp_path: Path, caplog):
    check_may_begin_again(tmp_path, every_steps=20)
    assert not caplog.text
    write_steps(tmp_path / "metrics.jsonl", 1, 2)
    check_may_begin_again(tmp_path, every_steps=20)
    assert "stopped after step 2, before its first checkpoint: these steps are done again" in caplog.text


@pytest.fixture
def torn(tiny_run, tiny_model_path: Path, tmp_path: Path):
    """Runs the variant `replayed` for so many steps, or goes on with it, in one folder."""

    def go(num_steps: int, *, resume: bool = False) -> Path:
        settings = tiny_run.VARIANTS["replayed"]
        settings = replace(settings, training=replace(settings.training, num_steps=num_steps))
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        tiny_run.run(policy, tmp_path / "torn", settings, resume=resume)
        return tmp_path / "torn"

    return go


def test_a_run_damaged_in_every_file_that_can_be_mended_goes_on_bit_for_bit(torn, undisturbed, caplog):
    folder = torn(2)
    identity = (folder / "identity.json").read_text()
    (folder / "identity.json").write_text(identity[:50])
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("garbage\n" + lines[1] + '{"step": 3')
    (folder / "rollouts" / "step-000003.parquet").write_bytes(b"behind the checkpoint")
    torn(4, resume=True)
    assert json.loads((folder / "identity.json").read_text())["identity"] == json.loads(identity)["identity"]
    made = [without_wall_clock(line) for line in read_metrics(folder / "metrics.jsonl")]
    whole = [without_wall_clock(line) for line in read_metrics(undisturbed("replayed") / "metrics.jsonl")]
    assert made == whole[1:4]
    for step in (3, 4):
        name = f"rollouts/step-{step:06d}.parquet"
        drawn = [replace(each, created_at=0.0) for each in read_samples(folder / name)]
        assert drawn == [replace(each, created_at=0.0) for each in read_samples(undisturbed("replayed") / name)]
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("identity.json" in line for line in told) == 1
    assert sum("1 of the 2 steps that the checkpoint has seen are lost" in line for line in told) == 1


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_rollouts_that_the_checkpoint_learns_from_again_are_asked_for_by_name(torn, harm: str):
    folder = torn(2)
    path = folder / "rollouts" / "step-000002.parquet"
    whole = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_bytes(whole[:-30])
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file() and each.name != "lock"}
    why = "is not there" if harm == "gone" else "is damaged"
    with pytest.raises(CheckpointError, match=rf"step-000002\.parquet held, and that file {why}; .* --restart"):
        torn(4, resume=True)
    assert {each: each.read_bytes() for each in before} == before
    path.write_bytes(whole)
    torn(4, resume=True)
    assert steps_in(folder / "metrics.jsonl") == [1, 2, 3, 4]


def test_a_run_whose_checkpoints_are_gone_is_not_wiped(torn):
    folder = torn(2)
    for path in sorted((folder / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "checkpoints").rmdir()
    with pytest.raises(CheckpointError, match="holds 2 steps and no checkpoint"):
        torn(4, resume=True)
    assert steps_in(folder / "metrics.jsonl") == [1, 2] and len(list((folder / "rollouts").iterdir())) == 2


def test_an_evaluation_measured_again_stands_before_the_later_ones(tmp_path: Path):
    from klimb.training.evaluation import forget_evaluations_behind

    path = tmp_path / "evaluations.jsonl"
    for record in (evaluation("during", 2), evaluation("during", 4), evaluation("before")):
        append_evaluation(path, record)
    forget_evaluations_behind(path, 3)
    assert [(made.when, made.step) for made in read_evaluations(path)] == [("before", 0), ("during", 2)]
