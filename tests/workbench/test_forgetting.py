"""Forgetting a person: afterwards nothing under the folders holds what they wrote, or the file was named."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experience.test_store import BARE, BASE

from klimb.errors import ConfigError
from klimb.experience.feedback import Feedback
from klimb.experience.importing.users import user_hash, user_salt
from klimb.experience.quarantine import quarantine_rater, read_quarantine
from klimb.experience.segments import read_samples, write_samples
from klimb.experience.store import Store
from klimb.training.deployment import Deployment, ServedPolicy, write_deployment
from klimb.training.locks import RunFolderInUse, run_folder_lock
from klimb.workbench.cli import run_command
from klimb.workbench.exporting import write_csv, write_json_lines
from klimb.workbench.forgetting import forget, plan_forgetting

SECRET = 'My landlady "Zoë" & I moved to 7 Elm Street\nlast May.'
OTHER = "Please write me a poem about the sea and its ships."


def asked(sample_id: str, text: str, user: str, **fields):
    prompt = ({"role": "system", "content": "You are kind."}, {"role": "user", "content": text})
    metadata = {"user": user} if user else {}
    plain = replace(BASE, sample_id=sample_id, group_id=sample_id, prompt=prompt, metadata=metadata, created_at=1000.0)
    return replace(plain, **fields)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A store with two people's samples and feedback, and a run, exports and logs made of it."""
    store = Store(tmp_path / "store")
    ann, ben = (user_hash(user, user_salt(store.folder)) for user in ("ann@example.org", "ben@example.org"))
    samples = [
        asked("chatcmpl-ann1", SECRET, ann, episode="conversation-1"),
        asked("chatcmpl-ann2", "and now?", "", episode="conversation-1"),
        asked("chatcmpl-ben1", OTHER, ben),
    ]
    store.append(samples)
    store.append([asked("chatcmpl-ann3", SECRET, ann)])
    rows = [("f-one", "chatcmpl-ann1", ben), ("f-two", "chatcmpl-ben1", ann), ("f-three", "chatcmpl-ben1", ben)]
    comments = {"f-two": "This poem is not what my sister Carla would like."}
    store.append_feedback(
        [
            Feedback(feedback_id=name, sample_id=of, value=1.0, user=who, comment=comments.get(name, ""))
            for name, of, who in rows
        ]
    )
    quarantine_rater(store.folder, ann)
    _make_run(tmp_path / "runs" / "one", samples)
    export = tmp_path / "exports"
    export.mkdir()
    write_json_lines(export / "all.jsonl", samples)
    write_csv(export / "all.csv", samples)
    write_samples(export / "all.parquet", samples)
    (tmp_path / "server.log").write_text(f"started\n{json.dumps({'prompt': SECRET})}\nuser ann@example.org\nended\n")
    return tmp_path


def _make_run(run: Path, samples) -> None:
    (run / "checkpoints" / "step-000003").mkdir(parents=True)
    (run / "model").mkdir()
    drawn = asked("run-1-0", SECRET, "", metadata={"used": "yes"}, created_at=2000.0)
    (run / "rollouts").mkdir()
    write_samples(run / "rollouts" / "step-000001.parquet", [drawn, replace(BARE, sample_id="run-2-0")])
    (run / "config.json").write_text(json.dumps({"feedback": {"path": str(run.parent.parent / "store")}}))
    (run / "provenance.json").write_text("{}")
    page = "<p>My landlady &#34;Zoë&#34; &amp; I moved to 7 Elm Street"
    (run / "report.html").write_text(page, encoding="utf-8")
    (run / "evaluations.jsonl").write_text(json.dumps({"text": SECRET}) + "\n" + json.dumps({"text": OTHER}) + "\n")
    (run / "checkpoints" / "step-000003" / "numbers.json").write_text(json.dumps({"replay": SECRET}))
    (run / "model" / "notes.bin").write_bytes(b"\0\1" + b"chatcmpl-ann1" + b"\0")


def texts_under(folder: Path) -> dict[Path, str]:
    """All that is in the files, Parquet decoded, whatever escapes it is written with."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            found[path] = str(pq.read_table(path).to_pylist())
        elif path.is_file():
            found[path] = path.read_bytes().decode("utf-8", "replace")
    return found


PIECES = ("7 Elm Street", "sister Carla", "ann@example.org", "chatcmpl-ann")


def holding(folder: Path) -> set[Path]:
    return {path for path, text in texts_under(folder).items() if any(piece in text for piece in PIECES)}


def test_afterwards_nothing_holds_the_persons_text_or_the_file_was_named(house: Path):
    plan = plan_forgetting([house], users=["ann@example.org"], ids=[])
    left = forget(plan, [house])
    run = house / "runs" / "one"
    named = {path for path, _ in left}
    assert named == {run / "checkpoints" / "step-000003" / "numbers.json", run / "model" / "notes.bin"}
    assert holding(house) == named
    assert named == {path for path, _ in plan.left}, "and the dry run had named them"


def test_what_others_wrote_stays(house: Path):
    forget(plan_forgetting([house], users=["ann@example.org"], ids=[]), [house])
    store = Store(house / "store")
    assert [sample.sample_id for sample in store.samples()] == ["chatcmpl-ben1"]
    (row,) = store.feedback_of(["chatcmpl-ben1", "chatcmpl-ann1"])
    assert row.feedback_id == "f-three"
    assert [sample.sample_id for sample in read_samples(house / "runs/one/rollouts/step-000001.parquet")] == ["run-2-0"]
    assert json.loads((house / "runs/one/evaluations.jsonl").read_text()) == {"text": OTHER}
    assert (house / "server.log").read_text() == "started\nended\n"
    assert [json.loads(line)["sample_id"] for line in (house / "exports/all.jsonl").open()] == ["chatcmpl-ben1"]
    assert len((house / "exports/all.csv").read_text().splitlines()) >= 2
    assert not (house / "runs/one/report.html").exists()
    assert read_quarantine(house / "store") == {}


def test_a_dry_run_changes_nothing(house: Path, capsys):
    before = {path: path.read_bytes() for path in house.rglob("*") if path.is_file()}
    assert run_command(["experience", "forget", str(house), "--user", "ann@example.org", "--dry-run"]) == 0
    assert {path: path.read_bytes() for path in house.rglob("*") if path.is_file()} == before
    said = capsys.readouterr().out
    assert "step-000003" in said
    assert "report.html: the whole file" in said


def test_without_yes_and_nobody_to_ask_nothing_is_removed(house: Path, capsys):
    assert run_command(["experience", "forget", str(house), "--user", "ann@example.org"]) == 2
    assert (house / "runs/one/report.html").exists()
    assert run_command(["experience", "forget", str(house), "--user", "ann@example.org", "--yes"]) == 0
    assert not (house / "runs/one/report.html").exists()
    assert "done, but for these" in capsys.readouterr().out


def test_the_models_that_saw_it_are_named(house: Path):
    later = house / "runs" / "two"
    (later / "model").mkdir(parents=True)
    (later / "config.json").write_text(json.dumps({"model": {"path": str(house / "runs/one/model")}}))
    unrelated = house / "runs" / "three"
    (unrelated / "model").mkdir(parents=True)
    (unrelated / "config.json").write_text(json.dumps({"log": {"path": "elsewhere"}}))
    first, second = (ServedPolicy(name=f"policy-{n}", model=f"policies/{n}", since=500.0 + 1000 * n) for n in range(2))
    write_deployment(house / "serving", Deployment(current=second, earlier=(first,)))
    plan = plan_forgetting([house], users=["ann@example.org"], ids=[])
    assert {model.path.relative_to(house).as_posix() for model in plan.models} == {
        "runs/one/checkpoints/step-000003",
        "runs/one/model",
        "runs/two/model",
        "serving/policies/1",
    }


def test_an_id_takes_its_conversation_and_a_hash_is_a_user_too(house: Path):
    plan = plan_forgetting([house / "store"], users=[], ids=["conversation-1"])
    assert sum(change.number for change in plan.changes) == 3, "two samples and the feedback of one"
    ann = user_hash("ann@example.org", user_salt(house / "store"))
    by_hash = plan_forgetting([house / "store"], users=[ann], ids=[])
    by_name = plan_forgetting([house / "store"], users=["ann@example.org"], ids=[])
    assert by_hash.changes == by_name.changes
    nobody = plan_forgetting([house], users=["nobody@example.org"], ids=["chatcmpl-an"])
    assert not nobody.changes, "a part of an id is none"


def test_a_text_that_others_wrote_too_is_theirs_and_is_named(house: Path):
    store = Store(house / "store")
    store.append([asked("chatcmpl-ben2", SECRET, "somebody else")])
    left = forget(plan_forgetting([house / "store"], users=["ann@example.org"], ids=[]), [house / "store"])
    assert [why for _, why in left] == ["rows of others hold the same text"]
    assert store.sample("chatcmpl-ben2").prompt[1]["content"] == SECRET


def test_short_words_of_a_person_are_taken_for_nobodys(house: Path):
    store = Store(house / "store")
    store.append([asked("chatcmpl-x", "and now?", "")])
    forget(plan_forgetting([house], users=["ann@example.org"], ids=[]), [house])
    assert store.sample("chatcmpl-x").prompt[1]["content"] == "and now?"


def test_a_run_that_is_training_is_refused_and_nothing_is_changed(house: Path):
    plan = plan_forgetting([house], users=["ann@example.org"], ids=[])
    with run_folder_lock(house / "runs" / "one"), pytest.raises(RunFolderInUse):
        forget(plan, [house])
    assert (house / "runs/one/report.html").exists()
    assert len(list(Store(house / "store").samples())) == 4


def test_foreign_packed_and_linked_files_are_named(house: Path):
    pq.write_table(pa.table({"text": ["a", SECRET]}), house / "foreign.parquet")
    pq.write_table(pa.table({"text": ["a", OTHER]}), house / "fine.parquet")
    (house / "cut.parquet").write_bytes(b"PAR1")
    (house / "old.zip").write_bytes(b"PK")
    (house / "linked").symlink_to(house / "store")
    (house / "README.md").write_text(f"mine: {SECRET}")
    named = {path.name for path, _ in plan_forgetting([house], users=["ann@example.org"], ids=[]).left}
    assert {"foreign.parquet", "cut.parquet", "old.zip", "linked", "README.md"} <= named
    assert "fine.parquet" not in named


def test_who_is_to_be_forgotten_and_where_must_be_said(house: Path):
    for users in ([], [""], ["ann@example.org", " "]):
        with pytest.raises(ConfigError, match="--user NAME"):
            plan_forgetting([house], users=users, ids=[])
    with pytest.raises(ConfigError, match="is not a folder"):
        plan_forgetting([house / "nowhere"], users=["x"], ids=[])


def test_a_segment_of_which_nothing_stays_is_gone(house: Path):
    plan = plan_forgetting([house / "store"], users=["ann@example.org", "ben@example.org"], ids=[])
    forget(plan, [house / "store"])
    assert not list((house / "store").glob("*.parquet"))
