"""Problems that an environment makes itself: a seed each, the same whenever it is asked."""

import hashlib

import pytest

from klimb.tasks import Problem, make_task
from klimb.tasks.environment_problems import (
    ENVIRONMENT_SEED,
    EnvironmentProblemSettings,
    seed_for,
    seed_of,
)
from klimb.tasks.protocol import chat, without_score


def seeds_of(task):
    return [[int(each.metadata[ENVIRONMENT_SEED]) for each in side] for side in (task.train, task.held_out)]


def test_each_problem_is_a_seed_of_its_own_and_none_is_on_both_sides():
    task = make_task("environment", num_problems=50, held_out_fraction=0.1)
    train, held_out = seeds_of(task)
    assert (len(train), len(held_out)) == (45, 5)
    assert len({*train, *held_out}) == 50
    assert all(0 <= seed < 2**32 for seed in (*train, *held_out))
    assert [each.problem_id for each in task.train] == [f"seed-{seed}" for seed in train]


def test_the_seeds_follow_from_the_tasks_seed():
    assert seeds_of(make_task("environment")) == seeds_of(make_task("environment"))
    first, other = (seeds_of(make_task("environment", num_problems=100, seed=seed)) for seed in (0, 1))
    assert not {*first[0], *first[1]} & {*other[0], *other[1]}


def test_what_is_asked_is_the_question_and_the_system_message():
    task = make_task("environment", num_problems=2, held_out_fraction=0.5, question="Play {question}.")
    assert task.train[0].messages == ({"role": "user", "content": "Play {question}."},)
    led = EnvironmentProblemSettings(num_problems=2, held_out_fraction=0.5, system_prompt="Be brief.").make_task()
    assert led.train[0].messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ""},
    )


def test_it_has_neither_a_score_nor_an_environment_of_its_own():
    task = make_task("environment", num_problems=2, held_out_fraction=0.5)
    assert task.score is without_score
    assert task.environment is None


def test_the_seed_of_a_problem_comes_before_that_of_a_name():
    (problem, *_) = make_task("environment", num_problems=2, held_out_fraction=0.5).train
    assert seed_for(problem, "a group") == seed_for(problem, "another") == int(problem.problem_id.removeprefix("seed-"))
    other = Problem(problem_id="p", messages=chat("?"), answer="")
    assert seed_for(other, "a group") == seed_of("a group") != seed_for(other, "another")
    assert seed_of("a group") == int(hashlib.sha256(b"a group").hexdigest()[:8], 16)


@pytest.mark.parametrize("wrong", ["", "-1", "1.5", "4294967296", "\u0664"])
def test_a_seed_that_is_none_is_refused(wrong: str):
    problem = Problem(problem_id="p", messages=chat("?"), answer="", metadata={ENVIRONMENT_SEED: wrong})
    with pytest.raises(ValueError, match=r"problem p: environment_seed = .* expected a whole number from 0"):
        seed_for(problem, "a group")


def test_one_problem_is_too_few():
    with pytest.raises(ValueError, match="num_problems must be >= 2"):
        EnvironmentProblemSettings(num_problems=1)
