"""`klimb reward-model`, from a store to a folder that rewards a run."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.judged import preferences, thumbed

from klimb.experience.store import Store
from klimb.tasks.reward_model import check_folder


class Texts(HTMLParser):
    """What a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def made(workplace, *arguments: str):
    samples, feedback = preferences(40)
    store = Store(workplace.path / "store")
    store.append(samples)
    store.append_feedback(feedback)
    return workplace.klimb("reward-model", "store", "--model", str(workplace.model), "--into", "rm", *arguments)


def test_a_store_becomes_a_reward_model_with_its_report(workplace):
    outcome = made(workplace)
    assert outcome.status == 0, outcome.err
    assert "It tells answers apart better than their length does." in outcome.out
    assert "pairs in order" in outcome.out and "penalty" in outcome.out
    folder = workplace.path / "rm"
    check_folder(folder, key="reward")
    facts = json.loads((folder / "reward_model.json").read_text())
    assert facts["verdict"] == "good" and facts["num_pairs"]["held_out"] >= 5
    assert facts["ratings"]["has_ratings"] is False
    page = Texts((folder / "report.html").read_text())
    assert "It tells answers apart better than their length does." in page.texts


@pytest.mark.slow
def test_a_run_is_rewarded_by_it(workplace):
    assert made(workplace).status == 0
    run = workplace.klimb(
        "train",
        "run.toml",
        "--set",
        "training.num_steps=1",
        "rewards.liked.reward=model:rm",
        "task.reward=task",
        "run.name=a",
    )
    assert run.status == 0, run.err


def test_what_is_there_already_is_not_replaced_and_settings_that_cannot_be_meant_are_refused(workplace):
    (workplace.path / "rm").mkdir()
    assert "rm already exists" in made(workplace).err
    (workplace.path / "rm").rmdir()
    with pytest.raises(SystemExit):
        made(workplace, "--held-out-fraction", "0.9")
    assert not (workplace.path / "rm").exists()


def test_a_store_of_unrated_answers_says_what_is_missing(workplace):
    store = Store(workplace.path / "store")
    store.append([sample.__class__(**{**vars(sample), "reward": None}) for sample in thumbed(2)])
    outcome = workplace.klimb("reward-model", "store", "--model", str(workplace.model), "--into", "rm")
    assert (outcome.status, "no sample is rated" in outcome.err) == (2, True), outcome.err
    assert list(Path(workplace.path).glob(".rm*")) == []
