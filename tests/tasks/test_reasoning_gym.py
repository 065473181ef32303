import pytest

from klimb.tasks import Response, Scorer, ScorerSettings, make_task, reasoning_gym

pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym needs a C compiler to install")

SMALL_SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def reply(text):
    return Response(text=text, num_tokens=1, finish_reason="stop")


def questions(problems):
    return [problem.messages[-1]["content"] for problem in problems]


def test_questions_differ_within_and_between_the_sides():
    task = reasoning_gym("chain_sum", parameters=SMALL_SUMS, num_train=60, num_held_out=40)
    everything = questions(task.train) + questions(task.held_out)
    assert len(set(everything)) == len(everything) == 100


def test_neighbouring_seeds_share_no_problems():
    first, second = (reasoning_gym("chain_sum", num_train=3, num_held_out=2, seed=seed) for seed in (1, 2))
    again = make_task("reasoning-gym:chain_sum", num_train=3, num_held_out=2, seed=1)
    assert (first.train, first.held_out) == (again.train, again.held_out)
    assert not set(questions(first.train)) & set(questions(second.train))


def test_the_reward_is_the_datasets_own_score_in_a_worker():
    task = reasoning_gym("chain_sum", parameters=SMALL_SUMS, num_train=1, num_held_out=1, extract="last-number")
    problem = task.train[0]
    with Scorer(task, ScorerSettings(timeout_seconds=30)) as scorer:
        scores = scorer.score_many([problem] * 2, [reply(f"I say {problem.answer}."), reply("none")])
    assert [(score.reward, score.correct, dict(score.parts)) for score in scores] == [
        (1.0, True, {"score": 1.0}),
        (0.0, False, {"score": 0.0}),
    ]


def test_what_is_extracted_decides_the_score():
    rewards = {}
    for extract in ("text", "last-line", "last-number", "answer-tag"):
        task = reasoning_gym("chain_sum", num_train=1, num_held_out=0, extract=extract)
        rewards[extract] = task.score(task.train[0], reply(f"1\n{task.train[0].answer}")).correct
    assert rewards == {"text": False, "last-line": True, "last-number": True, "answer-tag": False}


def test_an_answer_that_the_dataset_cannot_read_is_wrong():
    task = reasoning_gym("prime_factorization", num_train=1, num_held_out=0)
    score = task.score(task.train[0], reply("I do not know"))
    assert (score.reward, score.correct) == (0.0, False)
    assert score.reason.startswith("unreadable answer: invalid literal for int()")


def test_a_dataset_that_runs_out_of_questions_says_how_many_there_are():
    with pytest.raises(ValueError, match=r"chain_sum gave only \d+ questions for num_train=1000 in 4000 draws"):
        reasoning_gym("chain_sum", parameters=SMALL_SUMS, num_train=1000, num_held_out=10)


@pytest.mark.parametrize(
    ("dataset", "parameters", "message"),
    [
        ("chain_sums", {}, "no 'chain_sums'; did you mean 'chain_sum'?"),
        ("chain_sum", {"parameters": {"min_term": 2}}, "got 'min_term'; did you mean 'min_terms'?"),
        ("chain_sum", {"parameters": {"size": 5}}, "set seed, num_train and num_held_out instead"),
        ("chain_sum", {"parameters": {"min_terms": 0}}, "min_terms must be positive"),
        ("chain_sum", {"extract": "first-line"}, "extract must be one of text, last-line, last-number, answer-tag"),
        ("chain_sum", {"num_train": -1}, "num_train must be >= 0, got -1"),
        ("chain_sum", {"template": "none"}, "must contain {question}"),
    ],
)
def test_a_bad_parameter_is_named_with_the_nearest_right_one(dataset, parameters, message):
    with pytest.raises(ValueError) as error:
        reasoning_gym(dataset, **parameters)
    assert message in str(error.value)
