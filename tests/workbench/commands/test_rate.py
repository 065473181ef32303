"""`klimb experience rate`: a store's answers rated by a machine, beside people's ratings."""

import pytest
from tests.judged import answer, thumbed
from tests.tasks.judge.endpoint import fake_endpoint

from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.workbench.reward_model import read_feedback

NUM_PROMPTS = 12


@pytest.fixture
def store(workplace) -> Store:
    made = Store(workplace.path / "store")
    made.append(thumbed(NUM_PROMPTS))
    return made


def by_letters(body: dict) -> str:
    """10 points where the answer has more z than a; nothing readable where there is a q."""
    answer = body["messages"][1]["content"].split("to be judged:")[1].split("End with")[0]
    return "?" if "q" in answer else f"Score: {10 if answer.count('z') > answer.count('a') else 0}"


def rate(workplace, url: str, *more: str):
    return workplace.klimb(
        *("experience", "rate", "store", "--with", "judge", "--url", url, "--model", "m", "--rubric", "Like z."),
        *("--cache", "none", "--retries", "0", *more),
    )


def test_a_judge_rates_beside_people_says_how_far_it_agrees_and_asks_nothing_twice(workplace, store):
    store.append([answer(90, reward=None, response="zqz")])
    before = {sample.sample_id: sample.reward for sample in store.samples()}
    with fake_endpoint(by_letters) as endpoint:
        first = rate(workplace, endpoint.url)
        num_asked = len(endpoint.bodies)
        again = rate(workplace, endpoint.url)
    assert first.status == 0, first.err
    assert "24 answers have a rating by m as a judge" in first.out
    assert "no rating for 1: the judge's reply does not end with a line" in first.out
    assert "agreement of raters" in first.out and "α 1" in first.out
    assert (num_asked, len(endpoint.bodies)) == (25, 26), "what had no verdict is asked about again"
    assert "24 had one before" in again.out and "α 1" in again.out
    rows = read_feedback(Store(store.folder))
    assert len(rows) == 24 and {row.name[:6] for row in rows} == {"judge:"} and {row.value for row in rows} == {0, 1}
    assert {sample.sample_id: sample.reward for sample in Store(store.folder).samples()} == before


def test_into_another_store_the_ratings_are_the_rewards_and_the_first_store_stays(workplace, store):
    store.append_feedback([Feedback(feedback_id="f", sample_id="s0", value=0.0, user="anna")])
    with fake_endpoint(by_letters) as endpoint:
        outcome = rate(workplace, endpoint.url, "--into", "rated")
    assert outcome.status == 0, outcome.err
    found = {sample.sample_id: sample for sample in Store(workplace.path / "rated").samples()}
    assert found["s0"].reward == 1.0, "the judge's, though anna said 0"
    assert found["s0"].reward_reason.startswith("by judge:")
    assert len(found) == 24 and len(read_feedback(Store(store.folder))) == 1


def test_a_judge_that_never_answers_ends_the_command_and_writes_nothing(workplace, store):
    with fake_endpoint(lambda body: 500) as endpoint:
        outcome = rate(workplace, endpoint.url)
    assert outcome.status == 2 and "none of 24 answers could be rated" in outcome.err
    assert "HTTP 500" in outcome.err and read_feedback(Store(store.folder)) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--with", "judge"), "--with judge needs --url"),
        (("--with", "people"), "expected model:FOLDER or judge"),
        (("--with", "model:x", "--url", "http://a/v1", "--model", "m", "--rubric", "r"), "is no judge, and takes none"),
        (("--with", "model:nowhere"), "expected the folder of a sequence classifier"),
    ],
)
def test_a_rater_that_is_none_is_refused(workplace, store, arguments, message: str):
    outcome = workplace.klimb("experience", "rate", "store", *arguments)
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err


def test_a_reward_model_rates_in_the_units_of_the_thumbs_it_learnt(workplace, store):
    made = workplace.klimb("reward-model", "store", "--model", str(workplace.model), "--into", "rm")
    assert made.status == 0, made.err
    outcome = workplace.klimb("experience", "rate", "store", "--with", "model:rm")
    assert outcome.status == 0, outcome.err
    rows = {row.sample_id: row for row in read_feedback(Store(store.folder))}
    assert {row.name[:6] for row in rows.values()} == {"model:"} and len(rows) == 24
    assert all(0 < row.value < 1 for row in rows.values())
    thumbs = {sample.sample_id: sample.reward for sample in Store(store.folder).samples()}
    liked = [rows[name].value for name, thumb in thumbs.items() if thumb == 1]
    disliked = [rows[name].value for name, thumb in thumbs.items() if thumb == 0]
    assert sum(liked) / len(liked) > 0.5 > sum(disliked) / len(disliked)
