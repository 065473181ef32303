"""Files into a real store."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, logged, openai_row, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.importing import importer as importer
from klimb.experience.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def rejects_in(path: Path | None) -> list[dict[str, str]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


TABLE = [{"id": f"r{n}", "prompt": f"{n % 3} + 1?", "response": str(n), "reward": n % 2} for n in range(9)]


def test_a_file_imported_twice_adds_nothing(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", TABLE)
    first, again = import_rows(store, path), import_rows(store, path)
    assert (first.kind, first.tally.num_added, first.tally.num_duplicates, first.num_rejected) == ("table", 9, 0, 0)
    assert (again.tally.num_added, again.tally.num_duplicates, again.tally.num_conflicts) == (0, 9, 0)
    assert store.count() == 9
    assert len(store.group_ids()) == 3


@pytest.mark.parametrize("name", ["renamed.jsonl", "a.json"])
def test_the_same_rows_from_a_file_of_another_name_add_nothing(store: Store, tmp_path: Path, name: str):
    rows = [{"prompt": "a", "response": str(n), "reward": 0} for n in range(3)]
    import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert import_rows(store, written(tmp_path / name, rows)).tally.num_duplicates == 3


def test_bad_rows_are_put_aside_with_place_reason_and_row_and_the_others_come_in(store: Store, tmp_path: Path):
    rows = [TABLE[0], {**TABLE[1], "reward": "high"}, TABLE[2], {**TABLE[3], "response": "x" * 5000, "reward": "low"}]
    report = import_rows(store, written(tmp_path / "my data.jsonl", rows))
    assert (report.tally.num_rows, report.tally.num_added) == (4, 2)
    assert report.rejected == {"the reward is text": 2}
    assert report.reject_file == store.folder / "rejected" / "my-data.jsonl-1.jsonl"
    first, long = rejects_in(report.reject_file)
    assert (first["place"], first["reason"]) == ("my data.jsonl:2", "the reward is text")
    assert json.loads(first["row"]) == rows[1]
    assert len(long["row"]) < 2100


def test_a_second_import_does_not_write_over_the_first_ones_rejects(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [TABLE[0], {"x": 1}])
    first = import_rows(store, path).reject_file
    written(path, [TABLE[0], {"y": 1}])
    second = import_rows(store, path).reject_file
    assert [name and name.name for name in (first, second)] == ["a.jsonl-1.jsonl", "a.jsonl-2.jsonl"]
    assert [json.loads(rejects_in(name)[0]["row"]) for name in (first, second)] == [{"x": 1}, {"y": 1}]


def test_the_same_rejects_are_written_once(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [TABLE[0], {"x": 1}])
    first, again = import_rows(store, path), import_rows(store, path)
    written(path, [TABLE[0], {"y": 1}])
    import_rows(store, path)
    last = import_rows(store, path)
    assert first.reject_file == again.reject_file == store.folder / "rejected" / "a.jsonl-1.jsonl"
    assert last.reject_file == store.folder / "rejected" / "a.jsonl-2.jsonl"
    assert again.rejected == {"no column 'prompt'": 1}
    assert len(list((store.folder / "rejected").iterdir())) == 2


def test_strict_stops_at_the_first_bad_row(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [TABLE[0], {**TABLE[1], "reward": "high"}, TABLE[2]])
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the reward is text"):
        import_rows(store, path, is_strict=True)
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no row"),
        ('{"prompt"', "has no row"),
        ('{"prompt": "", "response": "a"}\n{"prompt": "a", "response": ""}\n' * 2, "2 × no prompt; 2 × no response"),
    ],
)
def test_a_file_that_gives_nothing_is_an_error_with_the_reasons(
    store: Store, tmp_path: Path, content: str, message: str
):
    path = tmp_path / "a.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        import_rows(store, path)


def test_a_line_that_is_still_being_written_is_left_and_comes_with_the_next_import(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", TABLE[:2])
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-10], encoding="utf-8")
    report = import_rows(store, path)
    assert (report.tally.num_added, report.tally.num_cut_off, report.num_rejected) == (1, 1, 0)
    path.write_text(whole, encoding="utf-8")
    assert import_rows(store, path).tally.num_added == 1


def test_an_id_with_other_content_is_put_aside_and_the_first_stays(store: Store, tmp_path: Path):
    rows = [TABLE[0], {**TABLE[0], "response": "5"}]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert (report.tally.num_added, report.tally.num_conflicts) == (1, 1)
    (reject,) = rejects_in(report.reject_file)
    assert (reject["place"], json.loads(reject["row"])) == ("a.jsonl:2", rows[1])
    assert store.sample("r0").reward == 0


def test_another_mapping_of_a_file_is_a_conflict_that_says_where_it_can_go(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [{**TABLE[0], "reward": 5}])
    import_rows(store, path)
    report = import_rows(store, path, rules=ImportRules(scale=(1, 5)))
    assert (report.tally.num_added, report.tally.num_conflicts) == (0, 1)
    assert "another mapping goes into a new store: --into NEW" in rejects_in(report.reject_file)[0]["detail"]
    assert store.sample("r0").reward == 5
    new = Store(tmp_path / "new")
    import_rows(new, path, rules=ImportRules(scale=(1, 5)))
    assert new.sample("r0").reward == 1.0


def test_a_group_has_one_prompt(store: Store, tmp_path: Path):
    rows = [{**row, "group": "g"} for row in TABLE[:4]]  # the prompts of rows 0 and 3 are equal
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert report.rejected == {"a group with different prompts": 2}
    assert [reject["place"] for reject in rejects_in(report.reject_file)] == ["a.jsonl:2", "a.jsonl:3"]
    assert "a.jsonl:1" in rejects_in(report.reject_file)[0]["detail"]
    assert len(store.group_ids()) == 1


def test_groups_of_the_same_name_in_two_files_stay_apart_if_their_prompts_differ(store: Store, tmp_path: Path):
    import_rows(store, written(tmp_path / "a.jsonl", [{**TABLE[0], "group": 1}]))
    import_rows(store, written(tmp_path / "b.jsonl", [{**TABLE[1], "group": 1}]))
    assert len(store.group_ids()) == 2


def test_late_feedback_joins_by_id_once_and_that_of_a_response_not_there_waits(store: Store, tmp_path: Path):
    import_rows(store, written(tmp_path / "log.jsonl", [openai_row()]))
    assert store.sample("chatcmpl-1").reward is None
    ratings = [{"id": "chatcmpl-1", "value": "up"}, {"id": "chatcmpl-2", "value": "down"}]
    path = written(tmp_path / "ratings.jsonl", ratings)
    first, again = import_rows(store, path), import_rows(store, path)
    assert (first.kind, first.tally.num_ratings_added, first.num_waiting) == ("feedback", 2, 1)
    assert again.tally.num_ratings_added == 0
    assert store.sample("chatcmpl-1").reward == 1.0
    late = openai_row()
    late["response"]["id"] = "chatcmpl-2"
    import_rows(store, written(tmp_path / "late.jsonl", [late]))
    assert store.sample("chatcmpl-2").reward == 0.0


def test_feedback_before_any_sample_waits(store: Store, tmp_path: Path):
    report = import_rows(store, written(tmp_path / "a.jsonl", [{"id": "x", "value": 1}]))
    assert report.num_waiting == 1


@pytest.mark.parametrize(
    ("first_at", "second_at", "expected"), [(None, None, 0.0), (1.7e9, 1.8e9, 0.0), (1.8e9, 1.7e9, 1.0)]
)
@pytest.mark.parametrize("name", ["f1", "f2"])
def test_a_person_who_changes_their_mind_is_heard_under_the_same_and_under_a_new_feedback_id(
    store: Store, tmp_path: Path, first_at: float | None, second_at: float | None, expected: float, name: str
):
    import_rows(store, written(tmp_path / "log.jsonl", [openai_row()]))
    rated = {"completion_id": "chatcmpl-1", "user": "ann"}
    first = {**rated, "feedback_id": "f1", "value": 1, "created_at": first_at}
    import_rows(store, written(tmp_path / "a.jsonl", [first]))
    second = {**rated, "feedback_id": name, "value": 0, "created_at": second_at}
    path = written(tmp_path / "b.jsonl", [second])
    report, again = import_rows(store, path), import_rows(store, path)
    assert (report.tally.num_rows_in, report.tally.num_later_ratings) == (1, int(name == "f1"))
    assert (again.tally.num_rows_in, again.tally.num_rows_there) == (0, 1)
    assert store.sample("chatcmpl-1").reward == expected
    values = store.query("select value from feedback order by value").column("value").to_pylist()
    assert values == [0.0, 1.0], "both are kept"


def test_rows_rejected_before_come_in_under_another_mapping(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [TABLE[1], {**TABLE[2], "reward": "great"}])
    import_rows(store, path)
    report = import_rows(store, path, rules=ImportRules(value_map={"great": 0.5, "1": 0.0}))
    assert (report.tally.num_added, report.tally.num_conflicts) == (1, 1)
    assert [sample.reward for sample in store.samples()] == [1.0, 0.5]


def observation(name: str, trace: str, second: int) -> dict[str, Any]:
    start = f"2026-01-02T03:04:{second:02d}Z"
    shared = {"type": "GENERATION", "input": QUESTION, "output": name, "startTime": start}
    return {"id": name, "traceId": trace, **shared}


def test_langfuse_scores_join_by_observation_or_the_last_generation_of_the_trace(store: Store, tmp_path: Path):
    rows = [observation("early", "t", 1), observation("last", "t", 9), observation("middle", "t", 5)]
    scores = [
        {"id": "s1", "name": "ok", "traceId": "t", "value": 1, "dataType": "NUMERIC"},
        {"id": "s2", "name": "ok", "traceId": "t", "observationId": "early", "value": 0, "dataType": "BOOLEAN"},
        {"id": "s3", "name": "ok", "traceId": "unknown", "value": 0.5},
    ]
    span = {"id": "s", "traceId": "t", "type": "SPAN", "input": "", "output": ""}
    paths = written(tmp_path / "observations.jsonl", [*rows, span]), written(tmp_path / "scores.jsonl", scores)
    report = import_rows(store, paths[0], kind="langfuse", scores=paths[1])
    assert {s.sample_id: s.reward for s in store.samples()} == {"early": 0.0, "last": 1.0, "middle": None}
    assert report.rejected == {"a score of a trace without a generation": 1}
    assert report.tally.num_skipped == 1
    again = import_rows(store, paths[0], kind="langfuse", scores=paths[1])
    assert (again.tally.num_added, again.tally.num_ratings_added) == (0, 0)


def test_ratings_of_several_things_are_not_averaged(store: Store, tmp_path: Path):
    path = written(
        tmp_path / "a.jsonl", [{"id": "x", "name": "helpful", "value": 1}, {"id": "x", "name": "toxic", "value": 1}]
    )
    with pytest.raises(ValueError, match="helpful, toxic"):
        import_rows(store, path)
    report = import_rows(store, path, rules=ImportRules(score_name="helpful"))
    assert (report.tally.num_ratings, report.tally.num_skipped) == (1, 1)


def test_a_user_has_one_hash_in_all_files_and_appears_in_none_of_the_stores(store: Store, tmp_path: Path):
    rows = [{**row, "user": "ann@example.org"} for row in TABLE[:3]]
    import_rows(store, written(tmp_path / "a.jsonl", [*rows[:1], {**rows[2], "reward": "x"}]))
    import_rows(store, written(tmp_path / "b.jsonl", rows[1:2]))
    assert len({sample.metadata["user"] for sample in store.samples()}) == 1
    for path in store.folder.rglob("*"):
        assert path.is_dir() or b"ann@example.org" not in path.read_bytes()
    assert all("ann@example.org" not in repr(sample) for sample in store.samples())


def test_a_user_of_a_rejected_row_is_hashed_and_one_too_deep_to_find_is_not_kept(store: Store, tmp_path: Path):
    nested: object = {"user": "ann@example.org"}
    for _ in range(200):
        nested = [nested]
    rows = [{"customer": "ann@example.org"}, {"customer": "ann@example.org", "prompt": "a", "answer": "b", "x": nested}]
    columns = {"user": "customer", "response": "answer"}
    with pytest.raises(ValueError, match="1 × no column 'answer'; 1 × JSON nested too deep"):
        path = written(tmp_path / "a.jsonl", rows)
        import_rows(store, path, kind="table", rules=ImportRules(columns=columns))
    assert "ann@example.org" not in (store.folder / "rejected" / "a.jsonl-1.jsonl").read_text(encoding="ascii")


def test_a_salt_is_made_for_the_first_user_and_not_before(store: Store, tmp_path: Path):
    hidden = {**TABLE[1], "note": "\x01"}  # an escape has the row looked through, and no user is in it
    report = import_rows(store, written(tmp_path / "a.jsonl", [TABLE[0], hidden]))
    assert (report.tally.num_user_ids, (store.folder / "user-salt").exists()) == (0, False)
    rows = [{**row, "user": "ann@example.org"} for row in TABLE[2:4]]
    report = import_rows(store, written(tmp_path / "b.jsonl", rows))
    assert (report.tally.num_user_ids, (store.folder / "user-salt").exists()) == (2, True)


def test_segments_do_not_change_what_is_imported(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importer, "SEGMENT_ROWS", 2)
    report = import_rows(store, written(tmp_path / "a.jsonl", [*TABLE, TABLE[0]]))
    assert (report.tally.num_added, report.tally.num_duplicates) == (9, 1)
    assert len(list(store.folder.glob("samples-*.parquet"))) == 5


def test_the_report_says_what_the_log_probs_are(store: Store, tmp_path: Path):
    rows = [
        openai_row(choice=logged(("4", -1.0), ("!", -0.5))),
        {**openai_row(), "response": {"choices": [{"text": "5"}]}},
    ]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert report.tally.provenances == {"absent": 2}
    assert report.tally.notes == {"log-probabilities without token ids": 1}


def test_scores_need_observations_and_columns_need_to_be_ours(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", TABLE)
    with pytest.raises(ValueError, match="--scores goes with langfuse"):
        import_rows(store, path, scores=path)
    with pytest.raises(ValueError, match="--columns maps promt"):
        import_rows(store, path, rules=ImportRules(columns={"promt": "a"}))
    with pytest.raises(ValueError, match="--as must be one of"):
        import_rows(store, path, kind="csv")
