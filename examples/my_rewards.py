"""Rewards of one's own: klimb train sums.toml --set task.reward=python:my_rewards.short_and_right."""


def short_and_right(prompt: str, response: str, answer: str, metadata: dict) -> dict[str, float]:
    """1 for an answer that ends with the right one, less a little for every character."""
    correct = response.rstrip(". \n").split()[-1:] == [answer]
    return {"correct": float(correct), "length": -0.001 * len(response)}
