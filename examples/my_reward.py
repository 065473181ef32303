"""A reward function of one's own. klimb calls it in a process of its own, by these four names."""


def names_the_capital(prompt: str, response: str, answer: str, metadata: dict[str, str]) -> dict[str, float]:
    """The parts of the reward; `correct` is also what the accuracy is computed from."""
    named = answer.lower() in response.lower()
    return {"correct": float(named), "length": -0.002 * len(response)}
