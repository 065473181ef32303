"""Feedback over HTTP: what is said of an answer is joined to it, kept whole, and never said twice."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.experience.test_store import BARE, BASE

from klimb.experience.importing.users import SALT_FILE, user_hash, user_salt
from klimb.experience.quarantine import quarantine_rater
from klimb.experience.segments import write_samples
from klimb.experience.store import Store
from klimb.web.serve.feedback import feedback_routes
from klimb.web.serve.feedback_intake import FeedbackIntake
from klimb.web.serve.openai_errors import RequestRefused

ASKED = ({"role": "user", "content": "What is 2 + 2?"},)


ONE = replace(BASE, sample_id="chatcmpl-1", group_id="chatcmpl-1", prompt=ASKED, reward=None, reward_reason="")


SAMPLES = [
    ONE,
    *(replace(ONE, sample_id=f"chatcmpl-2-{number}", group_id="chatcmpl-2") for number in range(2)),
    replace(BARE, sample_id="other", group_id="g"),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    write_samples(tmp_path / "store" / "samples-000001-0.parquet", SAMPLES)
    return Store(tmp_path / "store")


@pytest.fixture
def intake(store: Store):
    """An intake beside somebody who knows the samples, as a server's recorder does."""
    intake = FeedbackIntake(store, find={sample.sample_id: sample for sample in SAMPLES}.get)
    yield intake
    intake.close()


@pytest.fixture
def client(intake: FeedbackIntake):
    app = FastAPI()
    app.include_router(feedback_routes(intake))
    return TestClient(app)


def post(client: TestClient, **fields):
    return client.post("/v1/feedback", json={"completion_id": "chatcmpl-1", **fields})


def reward(store: Store, sample_id: str = "chatcmpl-1") -> float | None:
    return Store(store.folder).sample(sample_id).reward


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"score": 0.25}, 0.25),
        ({"score": -1}, -1.0),
        ({"score": True}, 1.0),
        ({"label": "up"}, 1.0),
        ({"label": "down"}, 0.0),
        ({"label": "good"}, 1.0),
        ({"label": "bad"}, 0.0),
        ({"label": "yes"}, 1.0),
        ({"label": "no"}, 0.0),
        ({"label": "👎"}, 0.0),
    ],
)
def test_a_score_is_taken_as_given_and_a_thumb_as_1_or_0_like_imported_ones(client, store, said, value):
    answer = post(client, **said)
    assert (answer.status_code, answer.json()["status"], answer.json()["score"]) == (200, "added", value)
    assert reward(store) == value


def test_an_answer_that_nobody_rated_stays_without_a_reward(client, store):
    assert post(client, comment="hm").status_code == 200
    assert post(client, label="unrated", comment="hm, again").status_code == 200
    assert reward(store) is None
    assert reward(store, "chatcmpl-2-0") is None


def test_the_same_feedback_sent_again_is_known_and_kept_once(client, store):
    first, second = post(client, label="up", rater="ann"), post(client, label="up", rater="ann")
    assert (first.json()["status"], second.json()["status"]) == ("added", "known")
    assert first.json()["feedback_id"] == second.json()["feedback_id"]
    assert len(store.feedback_of(["chatcmpl-1"])) == 1


def test_changed_feedback_keeps_its_history_and_the_latest_counts_also_when_it_goes_back(client, store):
    for label in ("up", "down", "up", "up"):
        assert post(client, label=label, rater="ann").status_code == 200
    rows = client.get("/v1/feedback/chatcmpl-1").json()["data"]
    assert [(row["score"], row["counts"]) for row in rows] == [(1.0, False), (0.0, False), (1.0, True)]
    assert reward(store) == 1.0


def test_two_raters_count_each_and_no_name_of_theirs_is_kept(client, store):
    post(client, score=1, rater="ann@example.org")
    post(client, score=0.5, user="ben@example.org")
    assert reward(store) == 0.75
    rows = client.get("/v1/feedback/chatcmpl-1")
    salt = user_salt(store.folder)
    assert {row["rater"] for row in rows.json()["data"]} == {
        user_hash("ann@example.org", salt),
        user_hash("ben@example.org", salt),
    }
    assert (store.folder / SALT_FILE).stat().st_mode & 0o777 == 0o600
    assert all("example.org" not in row.raw + row.user for row in store.feedback_of(["chatcmpl-1"]))
    assert "example.org" not in rows.text


def test_feedback_of_a_rater_in_quarantine_is_kept_and_does_not_count(client, store):
    rater = post(client, score=0, rater="mallory").json()["rater"]
    quarantine_rater(store.folder, rater)
    assert post(client, score=0, rater="mallory").json()["status"] == "known"
    assert [row["counts"] for row in client.get("/v1/feedback/chatcmpl-1").json()["data"]] == [False]
    assert reward(store) is None


@pytest.mark.parametrize("method", ["post", "get"])
def test_an_unknown_completion_is_a_404_in_openais_form(client, method):
    asked = {"post": lambda: post(client, completion_id="nobody", score=1), "get": lambda: client.get("/v1/feedback/x")}
    answer = asked[method]()
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == "completion_not_found"


def test_of_several_choices_the_one_meant_must_be_said(client, store):
    assert post(client, completion_id="chatcmpl-2", score=1).json()["error"]["code"] == "choice_needed"
    assert post(client, completion_id="chatcmpl-2", choice_index=2, score=1).status_code == 404
    assert post(client, completion_id="chatcmpl-2", choice_index=1, score=1).json()["completion_id"] == "chatcmpl-2-1"
    assert post(client, choice_index=0, score=1).json()["completion_id"] == "chatcmpl-1"
    assert reward(store, "chatcmpl-2-0") is None


def test_a_preference_is_between_two_answers_to_one_prompt(client, store):
    preferred = {"completion_id": "chatcmpl-2", "choice_index": 0, "over": "chatcmpl-2", "over_choice_index": 1}
    answer = post(client, **preferred)
    assert (answer.status_code, answer.json()["over"], answer.json()["score"]) == (200, "chatcmpl-2-1", None)
    (row,) = store.feedback_of(["chatcmpl-2-0"])
    assert (row.over, row.value) == ("chatcmpl-2-1", None)
    # The same messages asked in another request are the same prompt.
    assert post(client, preferred_over="chatcmpl-2", over_choice_index=1).status_code == 200
    for over in ("other", "chatcmpl-1"):
        assert post(client, over=over).json()["error"]["code"] == "not_comparable"
    assert post(client, over="nobody").status_code == 404


def test_a_correction_and_a_comment_are_kept_as_they_were_written(client, store):
    post(client, correction="It is 4.\n", comment="näh 😀")
    (row,) = store.feedback_of(["chatcmpl-1"])
    assert (row.correction, row.comment, row.value) == ("It is 4.\n", "näh 😀", None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"score": "1"},
        {"score": 1e9},
        {"score": 1, "label": "up"},
        {"label": "maybe"},
        {"label": ""},
        {"label": 7},
        {"score": [1]},
        {"score": None},
        {"score": 1, "scroe": 2},
        {"score": 1, "comment": 5},
        {"score": 1, "comment": "x" * 10_001},
        {"score": 1, "choice_index": -1},
        {"score": 1, "choice_index": True},
        {"score": 1, "rater": 5},
        {"score": 1, "created_at": "yesterday"},
        {"score": 1, "created_at": 1e12},
        {"score": 1, "completion_id": ""},
        {"score": 1, "name": "judge:mine"},
        {"score": 1, "completion_id": None},
    ],
)
def test_what_cannot_be_read_is_a_400_and_nothing_is_kept(client, store, fields):
    answer = post(client, **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert not store.files().feedback


@pytest.mark.parametrize("name", ["score", "created_at", "rater", "choice_index"])
def test_a_number_of_hundreds_of_digits_is_a_400(client, name):
    answer = client.post("/v1/feedback", json={"completion_id": "chatcmpl-1", "score": 1, name: 10**400})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == name


def test_a_user_that_is_a_number_of_hundreds_of_digits_is_a_rater_like_any_other(client):
    answer = client.post("/v1/feedback", json={"completion_id": "chatcmpl-1", "score": 1, "user": 10**400})
    assert answer.status_code == 200 and len(answer.json()["rater"]) == 16


@pytest.mark.parametrize(
    "body", ["", "[]", "5", "null", "[5]", "{", '{"score": NaN, "completion_id": "chatcmpl-1"}', '{"a": 1, "a": 2}']
)
def test_a_body_that_is_no_feedback_is_a_400(client, body):
    assert client.post("/v1/feedback", content=body).status_code == 400


def test_of_a_list_all_rows_are_taken_or_none(client, store):
    rows = [{"completion_id": "chatcmpl-1", "score": 1}, {"completion_id": "chatcmpl-2-0", "label": "down"}]
    wrong = client.post("/v1/feedback", json=[*rows, {"completion_id": "nobody", "score": 1}])
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (404, "[2].completion_id")
    assert not store.files().feedback
    answer = client.post("/v1/feedback", json=rows)
    assert [row["status"] for row in answer.json()["data"]] == ["added", "added"]
    assert len(store.files().feedback) == 1, "one file, so all of them or none"
    assert (reward(store), reward(store, "chatcmpl-2-0")) == (1.0, 0.0)


def test_an_id_of_the_programs_own_is_that_of_one_thing(client):
    assert post(client, score=1, feedback_id="f").json()["feedback_id"] == "f"
    assert post(client, score=1, feedback_id="f").json()["status"] == "known"
    assert post(client, score=0, feedback_id="f").status_code == 409


def test_feedback_with_a_time_of_its_own_may_come_late_and_twice(client, store):
    post(client, score=1, rater="ann", created_at=200.0)
    post(client, score=0, rater="ann", created_at=100.0)
    assert post(client, score=0, rater="ann", created_at=100.0).json()["status"] == "known"
    assert reward(store) == 1.0, "what was said later counts, whenever it arrived"


def evaluation(**attributes) -> dict:
    return {"event_name": "gen_ai.evaluation.result", "timeUnixNano": "100000000000", "attributes": attributes}


def boxed(event: dict) -> dict:
    kinds = {str: "stringValue", float: "doubleValue", int: "intValue"}
    pairs = [{"key": key, "value": {kinds[type(value)]: value}} for key, value in event["attributes"].items()]
    return {"eventName": event["event_name"], "timeUnixNano": event["timeUnixNano"], "attributes": pairs}


def export(*records: dict) -> dict:
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": list(records)}]}]}


GIVEN = {
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.evaluation.name": "relevance",
    "gen_ai.evaluation.score.value": 0.5,
    "gen_ai.evaluation.score.label": "relevant",
    "gen_ai.evaluation.explanation": "mostly",
}


def test_an_event_of_opentelemetry_is_feedback(client, store):
    answer = client.post("/v1/feedback", json=evaluation(**GIVEN))
    assert answer.status_code == 200, answer.text
    (row,) = store.feedback_of(["chatcmpl-1"])
    assert (row.value, row.name, row.comment, row.created_at) == (0.5, "relevance", "mostly", 100.0)


def test_an_export_of_logs_is_taken_but_for_what_is_no_evaluation(client, store):
    passed = {"gen_ai.response.id": "chatcmpl-2-0", "gen_ai.evaluation.score.label": "pass"}
    unknown = {"gen_ai.response.id": "nobody", "gen_ai.evaluation.score.value": 1.0}
    records = [boxed(evaluation(**attributes)) for attributes in (GIVEN, passed, unknown)]
    other = {"eventName": "something", "attributes": []}
    answer = client.post("/v1/logs", json=export(*records, other))
    assert answer.json()["partialSuccess"]["rejectedLogRecords"] == "2"
    assert (reward(store), reward(store, "chatcmpl-2-0")) == (0.5, 1.0)
    again = client.post("/v1/logs", json=export(*records[:2]))
    assert again.json() == {}
    assert len(store.feedback_of(["chatcmpl-1", "chatcmpl-2-0"])) == 2, "an exporter may send again"


def test_the_score_that_programs_behind_litellm_send_to_langfuse_is_feedback(client, store):
    score = {"id": "s1", "traceId": "chatcmpl-1", "name": "thumbs", "value": 1, "dataType": "BOOLEAN", "comment": "ok"}
    assert client.post("/v1/feedback", json=score).json()["feedback_id"] == "s1"
    assert reward(store) == 1.0


def test_feedback_that_cannot_be_written_is_a_503_that_names_no_file(client, store, monkeypatch):
    def full(path: Path, rows: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("klimb.experience.store.write_feedback", full)
        answer = post(client, score=1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_recorded")
    assert str(store.folder) not in answer.text
    assert post(client, score=1).json()["status"] == "added"


def test_an_intake_of_its_own_finds_the_answers_in_the_store(store):
    intake = FeedbackIntake(store)
    assert intake.take([{"completion_id": "chatcmpl-2", "choice_index": 1, "score": 1}])[0].status == "added"
    with pytest.raises(RequestRefused, match="no completion"):
        intake.take([{"completion_id": "chatcmpl-3", "score": 1}])
    intake.close()


def test_what_was_confirmed_is_on_the_disk_and_many_at_once_share_a_file(store, intake):
    with ThreadPoolExecutor(8) as pool:
        rows = [{"completion_id": "chatcmpl-1", "score": number / 100, "rater": f"r{number}"} for number in range(20)]
        taken = list(pool.map(lambda row: intake.take([row]), rows))
    assert all(each.status == "added" for (each,) in taken)
    assert len(Store(store.folder).feedback_of(["chatcmpl-1"])) == 20
    assert len(store.files().feedback) < 20
    intake.close()
    with pytest.raises(RuntimeError, match="ending"):
        intake.take(rows[:1])


def test_when_the_store_cannot_be_written_nobody_is_told_that_it_was(intake, monkeypatch):
    monkeypatch.setattr("klimb.experience.store.write_feedback", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        intake.take([{"completion_id": "chatcmpl-1", "score": 1}])
    monkeypatch.undo()
    assert intake.take([{"completion_id": "chatcmpl-1", "score": 1}])[0].status == "added"


def test_a_fault_in_one_request_costs_the_others_beside_it_nothing(intake):
    row = {"completion_id": "chatcmpl-1", "score": 1, "feedback_id": "f"}
    futures = [intake.submit([row]), intake.submit([{**row, "score": 0}]), intake.submit([{**row, "feedback_id": "g"}])]
    assert futures[0].result()[0].status == "added"
    with pytest.raises(RequestRefused, match="something else"):
        futures[1].result()
    assert futures[2].result()[0].status == "added"
    assert json.loads(futures[0].result()[0].feedback.raw)["score"] == 1


def test_many_small_files_of_feedback_become_few_and_no_word_is_lost(store, intake, monkeypatch):
    monkeypatch.setattr("klimb.web.serve.feedback_intake.MERGE_AT", 4)
    for number in range(17):
        intake.take([{"completion_id": "chatcmpl-1", "score": number / 20, "rater": "ann"}])
    assert len(store.files().feedback) <= 10
    rows = store.feedback_of(["chatcmpl-1"])
    assert [row.value for row in rows] == [number / 20 for number in range(17)]
    assert reward(store) == 16 / 20
    assert intake.take([{"completion_id": "chatcmpl-1", "score": 16 / 20, "rater": "ann"}])[0].status == "known"
    assert store.count() == 4
