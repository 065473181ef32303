"""The page for people: its routes, its queue, its counts."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.web.serve.fakes import saying
from tests.web.serve.people_app import FIRST, PeopleApp, answer

from klimb.experience.answer_index import AnswerIndex
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.web.serve.exchange import CANCELLED
from klimb.web.serve.feedback_intake import FeedbackIntake
from klimb.web.serve.page import STATIC


@pytest.fixture
def people(tmp_path: Path) -> PeopleApp:
    return PeopleApp(tmp_path / "store")


@pytest.fixture
def client(people) -> TestClient:
    return TestClient(people.build(), base_url="http://127.0.0.1:6900", client=("127.0.0.1", 50000))


def rated(feedback_id: str, sample_id: str, value: float | None = 1.0, **values) -> Feedback:
    return Feedback(feedback_id=feedback_id, sample_id=sample_id, value=value, **values)


def ids(client: TestClient, **asked) -> Sequence[str]:
    return [each["id"] for each in client.get("/people/queue", params=asked).json()["answers"]]


def test_a_store_without_answers_has_an_empty_queue_and_counts_of_none(client):
    assert client.get("/people/queue").json() == {"answers": [], "is_last": True}
    counts = client.get("/people/counts").json()
    assert (counts["answers"], counts["rated"], counts["raters"], counts["mean_rating"]) == (0, 0, 0, None)
    assert counts["agreement"]["alpha"] is None and "no answer has two ratings" in counts["agreement"]["reason"]


def test_the_queue_begins_with_the_newest_answer_and_says_what_was_asked(people, client):
    people.store.append([answer("old", created_at=1.0), answer("new", created_at=2.0, question="how?", response="so")])
    shown = client.get("/people/queue").json()["answers"]
    assert [each["id"] for each in shown] == ["new", "old"]
    assert shown[0] == {
        "id": "new",
        "policy": FIRST.name,
        "version": 0,
        "created_at": 2.0,
        "prompt": [{"role": "user", "content": "how?"}],
        "response": "so",
        "is_cut": False,
        "is_stopped": False,
    }


def test_the_queue_tells_answers_that_were_cut_or_stopped_from_whole_ones(people, client):
    people.store.append([answer("cut", finish_reason="length"), answer("stopped", metadata={CANCELLED: "yes"})])
    shown = {each["id"]: (each["is_cut"], each["is_stopped"]) for each in client.get("/people/queue").json()["answers"]}
    assert shown == {"cut": (True, False), "stopped": (False, True)}


def test_pages_of_the_queue_follow_each_other_while_answers_come_and_are_rated(people, client):
    people.store.append([answer(f"s{number}", created_at=float(number)) for number in range(5)])
    assert ids(client, limit=2) == ["s4", "s3"]
    people.store.append([answer("s5", created_at=5.0)])
    people.store.append_feedback([rated("f", "s3")])
    assert ids(client, limit=2, before="s3") == ["s2", "s1"]
    assert ids(client, limit=2, before="s1") == ["s0"]
    assert ids(client, before="not there") == []


def test_ratings_preferences_and_corrections_take_answers_out_and_comments_alone_do_not(people, client):
    people.store.append([answer(name) for name in ("rated", "better", "worse", "corrected", "commented", "imported")])
    people.store.append([answer("rewarded", reward=0.0)])
    people.store.append_feedback(
        [
            rated("1", "rated", 0.0),
            rated("2", "better", None, over="worse"),
            rated("3", "corrected", None, correction="so"),
            rated("4", "commented", None, comment="hm"),
        ]
    )
    assert sorted(ids(client)) == ["commented", "imported"]
    counts = client.get("/people/counts").json()
    assert [counts[name] for name in ("answers", "rated", "unrated")] == [7, 5, 2]
    assert [counts[name] for name in ("preferences", "corrections", "comments")] == [1, 1, 1]


def test_a_second_opinion_is_asked_of_those_who_gave_none(people, client):
    people.store.append([answer("nobody"), answer("anna"), answer("both")])
    rows = [("anna", "Änna"), ("both", "Änna"), ("both", "Bob")]
    people.store.append_feedback([rated(name + who, name, user=people.hashed(who)) for name, who in rows])
    asked = {"params": {"second": True}, "headers": {"X-Klimb-Rater": "Bob"}}
    assert [each["id"] for each in client.get("/people/queue", **asked).json()["answers"]] == ["anna"]
    asked["headers"] = {"X-Klimb-Rater": "%C3%84nna"}
    assert client.get("/people/queue", **asked).json()["answers"] == []


def test_the_latest_rating_of_each_person_counts_and_people_count_alike(people, client):
    people.store.append([answer("s")])
    rows = [("a", 1.0, "anna", 1.0), ("b", 0.0, "anna", 2.0), ("c", 1.0, "bob", 1.0)]
    people.store.append_feedback(
        [rated(name, "s", value, user=user, created_at=when) for name, value, user, when in rows]
    )
    counts = client.get("/people/counts").json()
    assert counts["mean_rating"] == 0.5
    assert counts["mean_rating"] == people.store.rewards(["s"])["s"]
    assert counts["raters"] == 2


def test_counts_are_by_day_of_the_answer_and_by_policy(people, client):
    people.store.append(
        [
            answer("a", created_at=0.0, model="one"),
            answer("b", created_at=86_399.0, model="one"),
            answer("c", created_at=86_400.0, model="two", policy_version=7),
        ]
    )
    people.store.append_feedback([rated("f", "c", 1.0), rated("g", "a", 0.0)])
    counts = client.get("/people/counts").json()
    assert counts["days"] == [
        {"day": "1970-01-02", "answers": 1, "rated": 1, "mean_rating": 1.0},
        {"day": "1970-01-01", "answers": 2, "rated": 1, "mean_rating": 0.0},
    ]
    assert counts["policies"] == [
        {"name": "two", "version": 7, "answers": 1, "rated": 1, "mean_rating": 1.0},
        {"name": "one", "version": 0, "answers": 2, "rated": 1, "mean_rating": 0.0},
    ]


def test_raters_who_say_the_same_agree_and_raters_who_contradict_each_other_do_not(people, client):
    people.store.append([answer(f"s{number}") for number in range(8)])
    people.store.append_feedback(
        [rated(f"{who}{number}", f"s{number}", float(number % 2), user=who) for number in range(8) for who in "ab"]
    )
    assert client.get("/people/counts").json()["agreement"]["alpha"] == pytest.approx(1.0)
    later = [rated(f"x{number}", f"s{number}", float(1 - number % 2), user="b", created_at=9.0) for number in range(8)]
    people.store.append_feedback(later)
    assert client.get("/people/counts").json()["agreement"]["alpha"] < 0


def test_the_policy_that_answers_is_told_with_the_share_of_the_one_tried_out(people, client):
    assert client.get("/people/policy").json() == {
        "policy": {"name": "policy-0001", "version": 0, "since": FIRST.since, "reason": ""},
        "candidate": None,
    }
    people.deployment = Deployment(
        current=FIRST, candidate=ServedPolicy(name="p2", model="x", policy_version=9), candidate_fraction=0.1
    )
    candidate = client.get("/people/policy").json()["candidate"]
    assert (candidate["name"], candidate["version"], candidate["fraction"]) == ("p2", 9, 0.1)


def test_the_page_loads_nothing_but_its_own_files_and_has_no_script_in_it(client):
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in page.headers["content-security-policy"]
    loaded = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text)) - {"data:,"}
    assert loaded == {"/static/style.css", "/static/chat.css", "/static/chat.js"}
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=", page.text)


@pytest.mark.parametrize("name", sorted(STATIC))
def test_files_of_the_page_are_served_as_what_they_are(client, name: str):
    got = client.get(f"/static/{name}")
    assert got.status_code == 200
    assert got.headers["content-type"].startswith(STATIC[name][1])
    assert "innerHTML" not in got.text and "insertAdjacentHTML" not in got.text


def test_scripts_import_files_that_are_served(client):
    for name in STATIC:
        for imported in re.findall(r'from "\./([^"]+)"', client.get(f"/static/{name}").text):
            assert imported in STATIC


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/..%2Fchat.css", "/static/templates"])
def test_other_files_are_not_served(client, path: str):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("limit", [0, 51, "x"])
def test_a_page_of_the_queue_is_of_bounded_length(client, limit):
    assert client.get("/people/queue", params={"limit": limit}).status_code == 422


def test_a_damaged_store_is_told_and_not_an_empty_queue(people, client):
    people.store.append([answer("s")])
    (people.folder / "samples-000009-00.parquet").write_bytes(b"PAR1 nothing")
    got = client.get("/people/queue")
    assert got.status_code == 503 and "samples-000009-00.parquet" in got.json()["detail"]


def test_what_the_page_sends_is_what_the_server_takes_and_the_ids_it_builds_are_those_of_the_store(
    serve, session_policy, tmp_path
):
    client = TestClient(serve(saying(session_policy, "yes", "no")).app)
    asked = {
        "model": "klimb",
        "messages": [{"role": "user", "content": "why?"}],
        "metadata": {"conversation": "c1"},
        "n": 2,
        "user": "Änne",
        "stream": True,
    }
    stream = client.post("/v1/chat/completions", json=asked).text
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    texts = {index: "" for index in (0, 1)}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    store = Store(tmp_path / "store")
    built = {f"{chunks[0]['id']}-{index}": text for index, text in texts.items()}
    assert {sample.sample_id: sample.response for sample in store.samples()} == built
    better, worse = built
    intake = FeedbackIntake(store)
    intake.take([{"completion_id": better, "over": worse, "rater": "Änne"}])
    intake.close()
    judged = AnswerIndex(store.folder).look()
    assert all(judged.is_judged(answer) for answer in judged.answers.values())
    assert {answer.model for answer in judged.answers.values()} == {chunks[0]["model"]}
