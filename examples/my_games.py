"""An environment of one's own: environment.factory = "python:my_games.Guess"."""

import random


class Guess:
    """A number to find. TRL's `environment_factory` takes this class as it is."""

    def reset(self, **row) -> str:
        """Think of a number; what is returned stands behind the user's message."""
        first = random.randint(1, 50)
        self.number, self.num_guesses, self.is_found = random.randint(first, first + 14), 0, False
        return f"I am thinking of a whole number from {first} to {first + 14}. Find it with few calls of guess."

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: The guess.

        Returns:
            higher, lower or right: what the number is, seen from the guess.
        """
        self.num_guesses += 1
        self.is_found = number == self.number
        return "right" if self.is_found else "higher" if number < self.number else "lower"

    @property
    def done(self) -> bool:
        """True when there is nothing left to say."""
        return self.is_found

    def get_reward(self) -> float:
        """Return 1 for a number that was found at once, less for each guess more."""
        return 1 / self.num_guesses if self.is_found else 0.0
