"""Which ratings judge and which train: by user and prompt, and for as long as the deployment lives."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from klimb.errors import ConfigError
from klimb.experience.atomic import replace_atomically
from klimb.experience.held_out import LARGEST_SHARE
from klimb.workbench.learn.ratings import Said

FILE = "held_out.json"


FORMAT = 1
"""Of the file."""


FEWEST_USERS = 8
"""With fewer users, or with one who asked most, whole users say too little: then prompts alone are held out."""


Side = Literal["train", "judge", "aside"]
"""`aside`: its user and its prompt are on different sides; it does neither."""


@dataclass
class Split:
    """Who and what was held out so far. What is on a side stays there.

    Attributes:
        fraction: of users (or prompts) that judge.
        seed: another one holds out others.
        by_users: whether users are held out whole, besides prompts.
        sides: hash of a user, a prompt or a conversation -> its side.
    """

    fraction: float
    seed: int
    by_users: bool
    sides: dict[str, Side] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._drawn = Counter((_kind_of(key), side) for key, side in self.sides.items())

    def assign(self, said: Iterable[Said]) -> dict[str, Side]:
        """Return the side of each answer, by its id; users and prompts that are new get one.

        A new user has a side by the hash of the user and by how many users are on each, and the user's new prompts
        follow; without users, a prompt has one by its own. The turns of a conversation are on one side: what trains on
        one of them knows of the others.
        """
        return {each.sample_id: self._side_of(self._keys(each)) for each in said}

    def _keys(self, said: Said) -> list[str]:
        users = [f"user {user}" for user in said.users] if self.by_users else []
        conversation = [f"conversation {said.conversation}"] if said.conversation else []
        return [*users, f"prompt {said.prompt}", *conversation]

    def _side_of(self, keys: Sequence[str]) -> Side:
        known: set[Side] = {self.sides[key] for key in keys if key in self.sides}
        if len(known) > 1:
            return "aside"
        side = next(iter(known)) if known else self._draw(keys[0])
        for key in keys:
            self._drawn[_kind_of(key), side] += key not in self.sides
            self.sides[key] = side
        return side

    def _draw(self, key: str) -> Side:
        number = int.from_bytes(blake2b(f"{self.seed} {key}".encode(), digest_size=8).digest(), "big") / 2**64
        judging, training = (self._drawn[_kind_of(key), side] for side in ("judge", "train"))
        return "judge" if number < _chance_to_judge(self.fraction, judging + training, judging) else "train"

    def write(self, folder: Path) -> None:
        """Write it into the deployment's folder: whole, or not at all."""
        content = {"format": FORMAT, "fraction": self.fraction, "seed": self.seed, "by_users": self.by_users}
        with replace_atomically(folder / FILE) as aside:
            aside.write_text(json.dumps(content | {"sides": self.sides}, indent=1) + "\n", encoding="utf-8")


def open_split(folder: Path, said: Sequence[Said], *, fraction: float, seed: int) -> Split:
    """Return the deployment's split; a new one by what people said so far, where there is none.

    Raises:
        ConfigError: its file cannot be read, or was made with another fraction or seed.
    """
    path = folder / FILE
    if not path.exists():
        return Split(fraction=fraction, seed=seed, by_users=_tell_users_apart(said))
    try:
        content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
        found = Split(**{name: content[name] for name in ("fraction", "seed", "by_users", "sides")})  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); without it nobody knows which ratings were trained on: restore it "
            "from a copy, or begin a new deployment"
        ) from error
    if (found.fraction, found.seed) != (fraction, seed):
        raise ConfigError(
            f"{path} holds out the share {found.fraction} with seed {found.seed}, and what is held out stays so: leave "
            "--held-out-fraction and --seed as they were, or begin a new deployment"
        )
    return found


def _chance_to_judge(fraction: float, number: int, judging: int) -> float:
    """Return the chance that the next one judges: over all that came before it is `fraction`.

    Of the first n, n·fraction judge, rounded up or down. By independent draws 3 of 20 users may where 8 should.
    """
    before, after = fraction * number, fraction * (number + 1)
    missing, part = math.floor(before) - judging, before - math.floor(before)
    if math.floor(after) > math.floor(before):
        chance = 1.0 if missing >= 0 else (part + fraction - 1) / part
    else:
        chance = fraction / (1 - part) if missing == 0 else float(missing > 0)
    return chance if missing >= -1 else 0.0


def _kind_of(key: str) -> str:
    return key.partition(" ")[0]


def _tell_users_apart(said: Sequence[Said]) -> bool:
    users = Counter(user for each in said for user in each.users)
    return len(users) >= FEWEST_USERS and max(users.values()) <= LARGEST_SHARE * len(said)
