"""Tasks of one's own: klimb train sums.toml --set task=python:my_tasks.reversals."""

import random

from klimb.tasks import Problem, ProblemSet, Score, chat

WORDS = ("tide", "lamp", "stone", "river", "crown", "bread", "glass", "north")


def exactly(problem, response):
    """Right when the last word of the response is the answer."""
    is_right = response.text.split()[-1:] == [problem.answer]
    return Score(reward=float(is_right), correct=is_right, reason=f"expected {problem.answer}")


def reversals(seed, num_held_out=2):
    """Words to write backwards."""
    words = random.Random(seed).sample(WORDS, len(WORDS))
    problems = tuple(
        Problem(problem_id=word, messages=chat(f"Write {word} backwards."), answer=word[::-1]) for word in words
    )
    train, held_out = problems[num_held_out:], problems[:num_held_out]
    return ProblemSet(name="reversals", train=train, held_out=held_out, score=exactly)
