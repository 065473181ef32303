"""What stops an import before anything of the file is added."""

from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def stars(*values: object) -> list[dict[str, Any]]:
    return [{"id": f"f{n}", "completion_id": f"c{n}", "value": value} for n, value in enumerate(values)]


def labels(*values: object) -> list[dict[str, Any]]:
    return [{"id": f"k{n}", "prompt": "a", "completion": str(n), "label": value} for n, value in enumerate(values)]


OBSERVATION = {"id": "c0", "traceId": "t", "type": "GENERATION", "input": "a", "output": "b"}


@pytest.mark.parametrize("rows", [stars(1, 4, 5), labels(1, 4, 5)], ids=["feedback", "kto"])
def test_a_rating_off_the_unstated_scale_stops_the_import_of_all(
    store: Store, tmp_path: Path, rows: list[dict[str, Any]]
):
    path = written(tmp_path / "a.jsonl", rows)
    message = (
        r"^a\.jsonl:2: the rating 4 is not in 0 to 1 \(the file's go from 1 to 5\).*--scale 1 5.*--map.*--scale 0 1"
    )
    with pytest.raises(ValueError, match=message):
        import_rows(store, path)
    assert not store.folder.exists()


def test_with_the_scale_the_same_file_comes_in_whole(store: Store, tmp_path: Path):
    rules = ImportRules(scale=(1, 5))
    report = import_rows(store, written(tmp_path / "a.jsonl", labels(1, 4, 5)), rules=rules)
    assert report.num_rejected == 0
    assert [sample.reward for sample in store.samples()] == [0.0, 0.75, 1.0]


def test_a_scale_that_is_stated_rejects_the_rows_off_it_alone(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", labels(1, 4, 0))
    report = import_rows(store, path, rules=ImportRules(scale=(0, 1)))
    assert report.rejected == {"a rating outside its scale": 1}
    assert [sample.reward for sample in store.samples()] == [1.0, 0.0]


def test_a_map_says_what_numbers_stand_for(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", labels(1, 5))
    import_rows(store, path, rules=ImportRules(value_map={"1": 0.0, "5": 1.0}))
    assert [sample.reward for sample in store.samples()] == [0.0, 1.0]


def test_a_rating_below_zero_is_off_the_scale_too(store: Store, tmp_path: Path):
    with pytest.raises(ValueError, match=r"the rating -1 is not in 0 to 1 \(the file's go from -1 to 1\)"):
        import_rows(store, written(tmp_path / "a.jsonl", stars(1, -1)))


def test_what_is_no_rating_does_not_stop_an_import(store: Store, tmp_path: Path):
    rows = [*stars(True, "up", None, 0.5, "great", [7], float("nan")), {"value": 0.25}]
    category = {"id": "f9", "completion_id": "c9", "dataType": "CATEGORICAL", "value": 3, "stringValue": "good"}
    report = import_rows(store, written(tmp_path / "a.jsonl", [*rows, category]))
    assert (report.tally.num_ratings_added, report.num_rejected) == (4, 5)


def test_a_rating_of_a_row_with_another_fault_shows_the_scale(store: Store, tmp_path: Path):
    nameless = {"value": 4}
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the rating 4"):
        import_rows(store, written(tmp_path / "a.jsonl", [*stars(1), nameless]), kind="feedback")


def test_stars_in_csv_and_under_a_mapped_column_are_seen(store: Store, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("completion_id,stars\na,1\nb,4\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv:3: the rating 4"):
        import_rows(store, path, kind="feedback", rules=ImportRules(columns={"reward": "stars"}))
    assert not store.folder.exists()


def test_langfuse_scores_off_the_scale_stop_the_observations_too(store: Store, tmp_path: Path):
    observations = written(tmp_path / "observations.jsonl", [OBSERVATION])
    scores = [{"id": f"s{n}", "observationId": "c0", "name": "stars", "value": value} for n, value in enumerate((1, 4))]
    path = written(tmp_path / "scores.jsonl", scores)
    with pytest.raises(ValueError, match=r"scores\.jsonl:2: the rating 4"):
        import_rows(store, observations, scores=path)
    assert not store.folder.exists()


def test_only_the_ratings_that_are_asked_for_are_looked_at(store: Store, tmp_path: Path):
    rows = [{**stars(1)[0], "name": "ok"}, {**stars(9)[0], "name": "words"}]
    path = written(tmp_path / "a.jsonl", rows)
    report = import_rows(store, path, rules=ImportRules(score_name="ok"))
    assert report.tally.num_ratings_added == 1
    with pytest.raises(ValueError, match="the rating 9"):
        import_rows(store, path, rules=ImportRules(score_name="words"))
    with pytest.raises(ValueError, match="ok, words"):
        import_rows(store, path, rules=ImportRules(scale=(1, 9)))


TABLE = [{"question": "a", "answer": "b", "stars": 4}, {"question": "c", "answer": "d", "stars": 5}]


def test_columns_that_no_row_has_are_one_error_and_leave_nothing(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", TABLE)
    unnamed = written(tmp_path / "b.jsonl", [{"q": "a", "a": "b", "stars": 4}])
    message = r"columns prompt, response; there are q, a, stars\..*--columns prompt=NAME response=NAME"
    with pytest.raises(ValueError, match=message):
        import_rows(store, unnamed, kind="table")
    with pytest.raises(ValueError, match="columns question, anwser; there are question, answer, stars"):
        import_rows(store, path, kind="table", rules=ImportRules(columns={"prompt": "question", "response": "anwser"}))
    assert not store.folder.exists()


def test_a_first_row_without_the_columns_is_rejected_alone(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [TABLE[0], {"prompt": "a", "response": "b"}])
    report = import_rows(store, path, kind="table")
    assert (report.tally.num_added, report.rejected) == (1, {"no column 'prompt'": 1})


def test_a_run_that_adds_nothing_says_where_its_rejects_are(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [{"prompt": "a", "response": ""}])
    with pytest.raises(ValueError, match=r"a\.jsonl:1: it is empty\. Nothing was added.*rejected/a\.jsonl-1\.jsonl"):
        import_rows(store, path)
    assert [entry.name for entry in store.folder.rglob("*") if entry.is_file()] == ["a.jsonl-1.jsonl"]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [((1, 4, 5), True), ((0, 2), True), ((0, 1), False), ((-1, 2), False), ((1, 2.5), False), ((None, None), False)],
)
def test_rewards_of_tables_are_taken_as_they_are_and_said_to_look_like_points(
    store: Store, tmp_path: Path, rewards: tuple[float | None, ...], expected: bool
):
    rows = [{"prompt": "a", "response": str(n), "reward": reward} for n, reward in enumerate(rewards)]
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert tuple(sample.reward for sample in store.samples()) == rewards
    assert report.tally.rewards.look_like_points == expected


@pytest.mark.parametrize(
    ("kind", "columns", "reads"),
    [
        ("table", {"promt": "question"}, "prompt"),
        ("kto", {"choices": "answer"}, "completion"),
        ("openai", {"label": "stars"}, "request"),
        ("feedback", {"prompt": "question"}, "completion_id"),
    ],
)
def test_a_mapping_that_would_change_nothing_is_an_error_with_what_the_kind_reads(
    store: Store, tmp_path: Path, kind: str, columns: dict[str, str], reads: str
):
    path = written(tmp_path / "a.jsonl", [{"x": 1}, *TABLE])
    (ours,) = columns
    with pytest.raises(ValueError, match=rf"--columns maps {ours}, and {kind} reads no .* it reads .*\b{reads}\b"):
        import_rows(store, path, kind=kind, rules=ImportRules(columns=columns))
    assert not store.folder.exists()


def test_a_mapping_of_any_column_that_the_kind_reads_acts(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [{"question": "a", "answer": "b", "good": True}])
    columns = {"prompt": "question", "completion": "answer", "label": "good"}
    report = import_rows(store, path, rules=ImportRules(columns=columns))
    assert (report.kind, report.tally.num_added, report.tally.unread) == ("kto", 1, {})
    (sample,) = store.samples()
    assert (sample.response, sample.reward) == ("b", 1.0)


def test_a_mapping_that_only_a_later_row_reads_is_one(store: Store, tmp_path: Path):
    rows = [{"prompt": "a", "response": "b", "group": "g", "set": None}, {"prompt": "c", "response": "d", "set": "h"}]
    path = written(tmp_path / "a.jsonl", rows)
    report = import_rows(store, path, rules=ImportRules(columns={"group_id": "set"}))
    assert report.tally.num_added == 2


LABELLED = [{"prompt": "a", "completion": str(n), "label": True, "note": "x", "old": n or None} for n in range(3)]


def test_ignored_columns_are_not_there_and_not_listed(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", LABELLED)
    assert import_rows(store, path).tally.unread == {"note": 3, "old": 2}
    new = Store(tmp_path / "new")
    report = import_rows(new, path, rules=ImportRules(ignore=("note", "label")))
    assert (report.kind, report.tally.unread) == ("prompt-completion", {"old": 2})
    assert [sample.reward for sample in new.samples()] == [None] * 3
    assert all('"note"' in sample.raw for sample in new.samples()), "the row is kept as it came"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"ignore": ("nots",)}, "--ignore nots: no row has that column; there are .* Did you mean note?"),
        ({"ignore": ("completion",), "kind": "kto"}, r"--ignore completion: a\.jsonl:1 cannot be imported without"),
        ({"ignore": ("prompt",), "kind": "kto"}, r"--ignore prompt: a\.jsonl:1 cannot be imported without"),
        ({"ignore": ("note",), "columns": {"id": "note"}}, "--ignore note: that column is needed, or --columns maps"),
    ],
)
def test_an_ignored_column_that_is_needed_or_not_there_is_an_error(
    store: Store, tmp_path: Path, rules: dict[str, Any], message: str
):
    path = written(tmp_path / "a.jsonl", LABELLED)
    kind = rules.pop("kind", "")
    with pytest.raises(ValueError, match=message):
        import_rows(store, path, kind=kind, rules=ImportRules(**rules))
    assert not store.folder.exists()


def test_a_broken_first_row_does_not_make_an_ignored_column_needed(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [{"prompt": "", "completion": "b", "label": True, "note": 1}, *LABELLED])
    report = import_rows(store, path, rules=ImportRules(ignore=("note",)))
    assert (report.tally.num_rows_in, report.tally.num_rows_refused) == (3, 1)


def test_dates_that_can_be_read_in_two_ways_do_not_matter_for_what_is_ignored(store: Store, tmp_path: Path):
    rows = [{**row, "created_at": "03/04/2025", "id": str(n)} for n, row in enumerate(LABELLED)]
    rules = ImportRules(ignore=("note",), dates="month-first")
    assert import_rows(store, written(tmp_path / "a.jsonl", rows), rules=rules).tally.num_rows_in == 3
    with pytest.raises(ValueError, match="--dates"):
        import_rows(Store(tmp_path / "new"), tmp_path / "a.jsonl", rules=ImportRules(ignore=("note",)))


def test_a_label_that_the_first_row_lacks_is_seen(store: Store, tmp_path: Path):
    rows = [{"prompt": "a", "completion": "x"}, {"prompt": "a", "completion": "y", "label": False}]
    assert import_rows(store, written(tmp_path / "a.jsonl", rows)).kind == "kto"
    assert {sample.response: sample.reward for sample in store.samples()} == {"x": None, "y": 0.0}


def test_a_label_does_not_take_the_place_of_rewards(store: Store, tmp_path: Path):
    rows = [{"prompt": "a", "response": "x", "score": 0.5}, {"prompt": "a", "response": "y", "label": False}]
    assert import_rows(store, written(tmp_path / "a.jsonl", rows)).kind == "table"
    assert {sample.response: sample.reward for sample in store.samples()} == {"x": 0.5, "y": None}


@pytest.mark.parametrize(("name", "content"), [("a.csv", ""), ("a.csv", "question,answer\n"), ("a.jsonl", "\n")])
def test_a_file_without_rows_says_so(store: Store, tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="has no rows: it is empty, or a header alone"):
        import_rows(store, tmp_path / name)


def test_a_table_under_the_name_of_json_lines_says_one_fault_and_what_to_do(store: Store, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("question,answer\n" + "2 + 2?,4\n" * 9)
    with pytest.raises(ValueError, match=r"not JSON: .*let its name end in \.csv") as error:
        import_rows(store, tmp_path / "a.jsonl")
    assert str(error.value).count("not JSON") == 1


def test_a_mapping_the_wrong_way_round_is_turned(store: Store, tmp_path: Path):
    path = written(tmp_path / "a.jsonl", [{"question": "2 + 2?", "bot_reply": "4", "my stars": 5}])
    with pytest.raises(ValueError, match=r"Our name comes first: --columns reward='my stars'$"):
        import_rows(store, path, rules=ImportRules(columns={"my stars": "reward"}))


def test_an_import_that_asks_for_the_order_of_dates_leaves_no_rejects(store: Store, tmp_path: Path):
    rows = [{"question": "2?", "answer": ""}, {"question": "2 + 2?", "answer": "4", "created": "01/02/2026"}]
    with pytest.raises(ValueError, match=r"Say it: .*, and --ignore created leaves all dates out"):
        import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert list(store.folder.glob("rejected/*")) == []
    report = import_rows(store, tmp_path / "a.jsonl", rules=ImportRules(ignore=("created",)))
    assert report.rejected == {"no response": 1} and report.tally.num_added == 1
