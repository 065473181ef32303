"""Environments for the tests of conversations. The processes that hold them import this file, and no model."""

import os
import random
import time


class Parrot:
    """Answers any text, and remembers; what it says is random. Three turns, and each has its reward."""

    def reset(self, **row):
        self.heard, self.told = [], []
        return f" [{random.randrange(1000)}]"

    def respond(self, text):
        self.heard.append(text)
        if len(self.heard) == 3:
            return None
        self.told.append(f"{len(text)} {random.randrange(1000)}")
        return self.told[-1]

    def get_turn_reward(self):
        return self.heard[-1].count("a") / (1 + len(self.heard[-1])) + random.random() / 8


class TrustedParrot(Parrot):
    """The same in the process of the run."""

    trusted = True


class Silent:
    """Says nothing, and ends with the first turn."""

    trusted = True

    def reset(self, **row):
        return None


class Fragile:
    """Ends as it is told: by the answer of the problem at first, by the policy's words later."""

    def reset(self, answer):
        self.num_heard = 0
        if answer == "raise":
            raise RuntimeError("no game today")
        return f" ({answer})"

    def respond(self, text):
        self.num_heard += 1
        if "exit" in text:
            os._exit(3)
        if "raise" in text:
            raise RuntimeError("enough")
        if "sleep" in text:
            time.sleep(0.3)
        return None if "bye" in text else f"heard {self.num_heard}"

    def count(self, up: int) -> str:
        """Count.

        Args:
            up: so much.
        """
        self.num_heard += up
        return str(self.num_heard)

    def get_reward(self):
        return float(self.num_heard)


class TrustedFragile(Fragile):
    """The same in the process of the run."""

    trusted = True


class Wordy:
    """Answers with many words."""

    trusted = True

    def reset(self):
        return None

    def respond(self, text):
        return "word " * 12
