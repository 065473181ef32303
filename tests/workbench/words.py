"""A task of four words, in a module that imports little: a scoring process, which imports it, starts at once."""

from klimb.tasks import Problem, ProblemSet, Score, chat


def score(problem, response):
    """Give the share of digits: a reward that a random model earns now and then."""
    digits = sum(character.isdigit() for character in response.text)
    return Score(reward=digits / max(1, len(response.text)), reason="digits")


def words(reward=score) -> ProblemSet:
    """Return three problems to train on and one held out."""
    problems = tuple(
        Problem(problem_id=word, messages=chat(f"Write {word}."), answer=word) for word in ("one", "two", "six", "ten")
    )
    return ProblemSet(name="words", train=problems[:3], held_out=problems[3:], score=reward)
