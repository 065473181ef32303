"""API keys: each opens some scopes. The file of keys holds their hashes; a key itself is shown once, when it is made.

A key is 256 random bits, so one SHA-256 of it cannot be searched and a slow hash as for passwords would guard nothing;
it would only make each request slow.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from klimb.errors import ConfigError
from klimb.experience.atomic import replace_atomically

KeyScope = Literal["serve", "feedback", "admin"]
"""`serve`: asks for completions. `feedback`: rates, and reads what was rated. `admin`: reads the server's metrics."""


SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)


FORMAT = 1
"""Of the file."""


_KEY = re.compile(r"klimb-([0-9a-f]{12})-([A-Za-z0-9_\-]{43})")


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as the file has it.

    Attributes:
        key_id: says which key it is; part of the key, and no secret.
        sha256: of the whole key, in hexadecimal digits.
        scopes: what it opens.
        note: for people, e.g. who got it.
        created_at: seconds since the epoch.
        revoked_at: the same; 0 while it opens.
    """

    key_id: str
    sha256: str
    scopes: tuple[KeyScope, ...]
    note: str = ""
    created_at: float = 0.0
    revoked_at: float = 0.0


class Keys:
    """The keys of a file, read anew when the file changes, so that a revoked key stops at once.

    Args:
        path: the file; None for no keys at all.

    Raises:
        ConfigError: the file is missing or cannot be read as keys.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        if path is not None:
            self._look()

    @property
    def are_required(self) -> bool:
        """Whether requests need a key. A file whose keys are all revoked requires one still."""
        return self._path is not None

    def find(self, key: str) -> Key | None:
        """Return what the file has of a key that opens something; None for any other text.

        The time that it takes says nothing of the secret: the hashes are compared whole, also where there is no such
        key.
        """
        self._look()
        match = _KEY.fullmatch(key)
        known = self._keys.get(match[1]) if match else None
        expected = known.sha256 if known else _NO_HASH
        is_right = hmac.compare_digest(_hash(key), expected)
        return known if known is not None and is_right and not known.revoked_at else None

    def _look(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise ConfigError(f"{self._path}: there is no such file of keys; make one with klimb keys new") from None
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            self._keys = {key.key_id: key for key in read_keys(self._path)}
            self._seen = seen


def add_key(path: Path, scopes: Iterable[KeyScope], *, note: str = "") -> tuple[str, Key]:
    """Add a new key to the file, which is made if need be; return the key itself, which is nowhere else, and its row.

    Raises:
        ConfigError: no scope, an unknown one, or a file that is none of keys.
    """
    wanted = tuple(dict.fromkeys(scopes))
    if not wanted or not set(wanted) <= set(SCOPES):
        raise ConfigError(f"scopes {', '.join(wanted) or 'none'}: expected some of {', '.join(SCOPES)}")
    keys = read_keys(path) if path.exists() else []
    key_id = secrets.token_hex(6)
    key = f"klimb-{key_id}-{secrets.token_urlsafe(32)}"
    row = Key(key_id=key_id, sha256=_hash(key), scopes=wanted, note=note, created_at=time.time())
    _write(path, [*keys, row])
    return key, row


def revoke_key(path: Path, key_id: str) -> Key:
    """Revoke a key: its row stays, and it opens nothing from now on.

    Raises:
        ConfigError: there is none of that id.
    """
    keys = read_keys(path)
    found = next((key for key in keys if key.key_id == key_id), None)
    if found is None:
        known = ", ".join(key.key_id for key in keys)
        raise ConfigError(f"{path} has no key {key_id!r}; it has {known or 'none'}")
    revoked = found if found.revoked_at else replace(found, revoked_at=time.time())
    _write(path, [revoked if key.key_id == key_id else key for key in keys])
    return revoked


def read_keys(path: Path) -> list[Key]:
    """Return the keys of a file in the order in which they were made.

    Raises:
        ConfigError: it is no file of keys, or others may read it.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in content["keys"]]
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file of keys; make one with klimb keys new") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a file of keys ({error}); restore it from a copy, or make a new one") from error
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others may read or change this file of keys; chmod 600 {path}")
    return keys


def _write(path: Path, keys: Sequence[Key]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "keys": [asdict(key) for key in keys]}
    with replace_atomically(path) as aside:
        os.close(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


_NO_HASH = "0" * 64
