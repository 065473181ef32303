"""Environments for tests, in TRL's contract. The processes that hold them import this file."""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time


class Guess:
    """A number between 1 and 10 is to be guessed."""

    def reset(self, answer, low: int = 1, **kwargs):
        self.target = int(answer)
        self.columns = kwargs
        self.tries = 0
        self.reward = 0.0
        print("noise")
        return f" I think of a number from {low} to 10."

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: the guess.

        Returns:
            What to try next.
        """
        self.tries += 1
        if number == self.target:
            self.reward = 1.0
            return "right"
        return "higher" if number < self.target else "lower"

    def give_up(self) -> None:
        """Give up."""
        raise RuntimeError("never give up")

    def get_reward(self) -> float:
        return self.reward


class Dice:
    """What it says is drawn."""

    def __init__(self):
        self.mood = random.random()

    def reset(self):
        self.rolls = []
        names = {f"side {n}" for n in range(20)}
        return f"{self.mood} {random.random()} {sorted(names)[0]} {list(names)}"

    def roll(self) -> list:
        """Roll."""
        import numpy

        self.rolls.append((random.randint(1, 10**9), int(numpy.random.randint(10**9))))
        return self.rolls[-1]


class Seeded:
    def reset(self, seed):
        self.seed = seed
        return str(seed)


class Trap:
    """Its tools are disasters."""

    def reset(self, answer):
        self.lock = threading.Lock()
        self.count = 0
        if answer == "raise":
            raise RuntimeError("no game today")
        if answer == "exit":
            os._exit(3)
        if answer == "sleep":
            time.sleep(60)
        return os.getpid() if answer == "number" else str(os.getpid())

    def sleep(self) -> str:
        """Sleep."""
        time.sleep(60)
        return "slept"

    def insist(self) -> str:
        """Go on after an interrupt."""
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)
        return "slept"

    def loop(self) -> str:
        """Loop."""
        while True:
            pass

    def block(self) -> str:
        """Hang as code does that no signal reaches."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)
        return "slept"

    def exit(self) -> str:
        """Exit."""
        os._exit(3)

    def crash(self) -> str:
        """Crash."""
        return str(ctypes.string_at(0))

    def quit(self) -> str:
        """Quit."""
        sys.exit("enough")

    def eat(self) -> str:
        """Eat memory."""
        return "a" * 10**12

    def talk(self) -> str:
        """Talk for long."""
        return "a" * 2_000_000

    def surrogate(self) -> str:
        """Return half a character."""
        return "a\ud800b"

    def mumble(self) -> str:
        """Raise what cannot be said."""

        class Mumbled(Exception):
            def __str__(self):
                raise RuntimeError

        raise Mumbled

    def scream(self) -> str:
        """Raise a long error."""
        raise ValueError("a" * 2_000_000)

    def blocks(self) -> list:
        """Return blocks of text."""
        return [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]

    def spawn(self) -> str:
        """Start a process that outlives the call."""
        child = subprocess.Popen(["sleep", "600"])
        return str(child.pid)

    def lead(self) -> str:
        """Start a process that leads a session."""
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        return str(child.pid)

    def detach(self) -> str:
        """Start a process that is nobody's child."""
        line = subprocess.run(
            ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True
        )
        return line.stdout.strip()

    def tick(self) -> str:
        """Count."""
        self.count += 1
        return str(self.count)


class Waiting:
    """Its tools wait."""

    def reset(self):
        self.order = []

    async def wait(self, name: str, seconds: float) -> str:
        """Wait.

        Args:
            name: what is waited for.
            seconds: how long.
        """
        await asyncio.sleep(seconds)
        self.order.append(name)
        if name == "bad":
            raise ValueError("bad wait")
        return name

    def now(self) -> str:
        """Do not wait."""
        self.order.append("now")
        return "now"

    async def get_reward(self) -> float:
        await asyncio.sleep(0)
        return float(len(self.order))


class Talker:
    """A user who answers twice and pays for each turn."""

    def reset(self):
        self.turns = 0
        return None

    def respond(self, text: str):
        self.turns += 1
        if text == "insult":
            raise RuntimeError("I do not talk to you")
        return f"you said {text}" if self.turns < 3 else None

    def get_turn_reward(self):
        return 0.5 * self.turns

    def hang_up(self) -> str:
        """End it."""
        self.done = True
        return "bye"

    def close(self):
        if os.path.exists("closed"):
            with open("closed", "a") as file:
                file.write("closed\n")


class NoReset:
    pass


class Undescribed:
    def reset(self):
        pass

    def act(self, what):
        pass


class Wants:
    def reset(self, target):
        pass


class BadReward:
    def reset(self):
        pass

    def get_reward(self):
        return "much"


class Finisher:
    def reset(self):
        self.over = False

    def done(self) -> str:
        """Say that it is done."""
        return "noted"


class Unclosed:
    def reset(self):
        self.file = open(os.devnull)  # noqa: SIM115

    def close(self):
        self.file.close()


class Slow:
    def __init__(self):
        time.sleep(30)

    def reset(self):
        pass


class Exits:
    """Ends its process as it is made."""

    def __init__(self):
        os._exit(7)


class Stubborn:
    """Goes on being made, whatever interrupts it."""

    def __init__(self):
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)


class NoTool:
    """Is a set of tools that cannot be made."""

    def __init__(self):
        raise OSError("shut")


class Here:
    """May live in the process of the run."""

    trusted = True

    def reset(self):
        return f"{os.getpid()} {random.random()}"

    def look(self) -> str:
        """Look."""
        return str(random.random())


def make_guess():
    return Guess()


def search(query: str) -> str:
    """Search.

    Args:
        query: what for.
    """
    return f"found {query}"


def guess(number: int) -> str:
    """Guess as well.

    Args:
        number: what.
    """
    return str(number)


not_callable = 3
