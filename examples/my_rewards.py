"""Rewards of one's own: klimb train sums.toml --set task.reward=python:my_rewards.short_and_right."""


def short_and_right(prompt: str, response: str, answer: str, metadata: dict) -> dict[str, float]:
    """1 for a response that ends with the right answer, less a little for every character."""
    correct = response.rstrip(". \n").split()[-1:] == [answer]
    return {"correct": float(correct), "length": -0.001 * len(response)}


def names_the_capital(prompt: str, response: str, answer: str, metadata: dict) -> dict[str, float]:
    """1 for a response that names the capital, less a little for every character."""
    return {"correct": float(answer.lower() in response.lower()), "length": -0.002 * len(response)}
