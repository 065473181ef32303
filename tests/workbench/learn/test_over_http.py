"""The whole way over HTTP: people rate what a server answers, and it answers with what was learnt; or does not."""

import json
import random
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.workbench.learn.people import LIKED, SETTINGS

from benchmarks.serving import start
from klimb.experience.store import Store
from klimb.training.deployment import read_deployment

LEARN = ("learn", "learn.toml", "--store", "store", "--deployment", "served", "--once")

NUM_QUESTIONS = 240


@dataclass(frozen=True)
class Server:
    """A server in another process, and what a client does with it."""

    address: str

    def send(self, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.address}{path}", content, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ask(self, number: int) -> Any:
        """Ask a question of its own, as one of 20 people."""
        body = {
            "model": "klimb",
            "messages": [{"role": "user", "content": f"question {number}"}],
            "max_tokens": SETTINGS.max_new_tokens,
            "seed": number,
            "user": f"u{number % 20}",
        }
        return self.send("/v1/chat/completions", body)

    def ask_all(self) -> list[Any]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.ask, range(NUM_QUESTIONS)))

    def rate(self, answers: list[Any], values: list[int]) -> None:
        """Send what those who asked think of their answers."""
        rows = [
            {"completion_id": answer["id"], "score": value, "rater": f"u{place % 20}"}
            for place, (answer, value) in enumerate(zip(answers, values, strict=True))
        ]
        self.send("/v1/feedback", rows)

    def wait_for(self, policy: str) -> Any:
        """Return the health once this policy answers."""
        end = time.monotonic() + 60
        while (health := self.send("/health"))["policy"] != policy:
            assert time.monotonic() < end, health
            time.sleep(0.1)
        return health


def likes(answer: Any) -> int:
    return int(any(character in answer["choices"][0]["message"]["content"] for character in LIKED))


@pytest.fixture
def serve(place) -> Generator[Callable[[], Server]]:
    processes = []

    def begin() -> Server:
        process, address = start(str(place.model), Path("store"), ("--deployment", "served", "--dtype", "float32"))
        processes.append(process)
        return Server(address)

    yield begin
    for process in processes:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_server_answers_with_what_people_taught_it_until_a_rollback(place, serve) -> None:
    server = serve()
    answers = server.ask_all()
    before = [likes(answer) for answer in answers]
    assert {answer["model"] for answer in answers} == {"policy-0001"}
    server.rate(answers[:100], before[:100])
    assert "100 more answers are to be rated" in place.klimb(*LEARN).out
    server.rate(answers[100:], before[100:])
    learnt = place.klimb(*LEARN)
    assert learnt.status == 0, learnt.err

    health = server.wait_for("policy-0002")
    assert health["policy_version"] == 10 and health["errors"] == []
    shown = json.dumps(server.send("/people/policy"))
    assert "policy-0002" in shown and "Better than the serving policy" in shown, "by the page for people"
    again = server.ask_all()
    assert {answer["model"] for answer in again} == {"policy-0002"}
    assert sum(map(likes, again)) > sum(before), "of the same questions with the same seeds"

    assert place.klimb("rollback", "served").status == 0
    server.wait_for("policy-0001")
    assert server.ask(0)["choices"] == answers[0]["choices"]
    stored = {sample.sample_id: sample for sample in Store(Path("store")).samples()}
    assert {answer["id"] for answer in (*answers, *again)} <= stored.keys()
    assert [stored[answer["id"]].reward for answer in answers] == before
    assert {stored[answer["id"]].policy_version for answer in again} == {10}


@pytest.mark.slow
def test_what_shuffled_ratings_teach_never_answers(place, serve) -> None:
    server = serve()
    answers = server.ask_all()
    values = [likes(answer) for answer in answers]
    random.Random(0).shuffle(values)
    server.rate(answers, values)
    learnt = place.klimb(*LEARN)
    assert learnt.status == 0, learnt.err
    assert "round 1: 240 rated answers: 180 train, 60 judge" in learnt.out
    assert Path("served/rounds/0001/run/summary.json").is_file(), "it was trained, and not stopped before"
    assert read_deployment(Path("served")).current.name == "policy-0001"
    assert server.send("/health")["policy"] == "policy-0001"
    assert server.ask(0)["choices"] == answers[0]["choices"]
