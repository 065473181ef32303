"""A lock whose number is to be found, in the form of TRL's `environment_factory`. Nothing here knows who trains.

A class with `reset`, public methods with types and docstrings, which are the tools, and `get_reward`.
"""

HIGHEST = 9


class Lock:
    """A lock that opens at one number; it jams after so many tries."""

    def __init__(self) -> None:
        self.number = 0
        self.num_tries = 0
        self.most_tries = 0
        self.is_open = False

    def reset(self, number: int, most_tries: int = 3, **kwargs: object) -> str | None:
        """Close the lock; the columns of the data set that it needs are its parameters."""
        self.number, self.most_tries = number, most_tries
        self.num_tries, self.is_open = 0, False
        return f" You have {most_tries} tries."

    def turn(self, to: int) -> str:
        """Turn the dial of the lock.

        Args:
            to: A number from 1 to 9.

        Returns:
            What the lock does.
        """
        if not 1 <= to <= HIGHEST:
            raise ValueError(f"the dial has no {to}")
        if self.num_tries == self.most_tries:
            return "jammed"
        self.num_tries += 1
        self.is_open = to == self.number
        return "open" if self.is_open else "higher" if to < self.number else "lower"

    def describe(self) -> str:
        """Look at the lock.

        Returns:
            What is written on it.
        """
        return f"A dial from 1 to {HIGHEST}; {self.num_tries} of {self.most_tries} tries."

    def get_reward(self) -> float:
        """Give more for a lock that was opened with fewer tries."""
        return 1.0 / self.num_tries if self.is_open else 0.0


def make_rows(num_rows: int) -> list[dict[str, object]]:
    """Return the rows of a data set: the conversations begin alike, up to the number of the row."""
    return [
        {
            "prompt": [{"role": "user", "content": f"Lock {row}: open it."}],
            "number": row * 4 % HIGHEST + 1,
            "most_tries": 3,
        }
        for row in range(num_rows)
    ]
