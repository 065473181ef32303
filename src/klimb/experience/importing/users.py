"""User ids, replaced by a hash wherever they stand in a row."""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import cast

from klimb.experience.atomic import replace_atomically
from klimb.experience.reading.records import Row, RowError

USER_NAMES = frozenset(
    {"user", "user_id", "userId", "userid", "end_user", "author_user_id", "authorUserId", "safety_identifier"}
)


SALT_FILE = "user-salt"


DEEPEST = 100
"""Levels of lists and objects that are looked through."""


def user_salt(folder: Path) -> bytes:
    """Return the salt kept in the folder; it is drawn the first time. With it, a user has the same hash in all files.

    Raises:
        ValueError: the file is empty or cut short.
    """
    path = folder / SALT_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as aside:
            aside.touch(mode=0o600)
            aside.write_text(secrets.token_hex(32), encoding="ascii")
    salt = path.read_text(encoding="ascii")
    if len(salt) != 64:
        raise ValueError(f"{path} holds {len(salt)} characters and not 64; restore it, or users get new hashes")
    return bytes.fromhex(salt)


def without_users(row: Row, salt: Callable[[], bytes], *, also: str = "") -> Row:
    """Return the row with each user id replaced by `user_hash`, in its cells and in its raw text.

    Users stand under the names of `USER_NAMES`, however deep, and under the name `also`. The salt is asked for at each
    of them, so one without users needs none.

    Raises:
        RowError: nested deeper than `DEEPEST`.
    """
    if _pattern(also).search(row.raw) is None:
        return row
    values = cast(Mapping[str, object], _hashed(row.values, salt, USER_NAMES | {also}, DEEPEST))
    return Row(row.place, values, json.dumps(values, ensure_ascii=False, default=str), row.is_text)


def user_hash(user: str, salt: bytes) -> str:
    """16 hexadecimal digits: BLAKE2b of the id, keyed with the salt."""
    return blake2b(user.encode("utf-8"), key=salt, digest_size=8).hexdigest()


@cache
def _pattern(also: str) -> re.Pattern[str]:
    names = "|".join(re.escape(json.dumps(name)[1:-1]) for name in sorted(USER_NAMES | {also}) if name)
    # An escape can hide a name from the search for it, so a row with one is looked through.
    return re.compile(rf'"(?:{names})"\s*:|\\u00')


def _hashed(value: object, salt: Callable[[], bytes], names: frozenset[str], depth: int) -> object:
    if depth == 0:
        raise RowError("JSON nested too deep", f"more than {DEEPEST} levels around a user id")
    if isinstance(value, list):
        return [_hashed(entry, salt, names, depth - 1) for entry in cast(list[object], value)]
    if not isinstance(value, Mapping):
        return value
    entries = cast(Mapping[str, object], value)
    return {
        name: user_hash(str(entry), salt())
        if name in names and isinstance(entry, str | int) and entry != ""
        else _hashed(entry, salt, names, depth - 1)
        for name, entry in entries.items()
    }
