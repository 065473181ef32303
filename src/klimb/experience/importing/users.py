"""User ids, replaced by a hash wherever they stand in a row.

What was said is no place of ids: texts of messages and arguments of calls stay as they are, whatever they hold.
"""

import ast
import json
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from klimb.experience.atomic import replace_atomically
from klimb.experience.importing.cells import first_of, listed, mapping
from klimb.experience.reading.records import Row, RowError
from klimb.experience.reading.strict_json import DECODER

USER_NAMES = ("user", "user_id", "userId", "userid", "end_user", "author_user_id", "authorUserId", "safety_identifier")
"""Under which the id of the one who asked or rated is read; the first that is there."""


_PEOPLE = (
    "author|customer|client|annotator|rater|reviewer|labell?er|worker|creator|sender|employee|owner|member|request[eo]r|"
    "visitor|participant"
)


_OF_A_PERSON = "ids?|uuid|key|(?:first|last|full|display)?name|login|handle|pseudoid|e?mail|e?mailaddress"


_USER_NAME = re.compile(
    rf"(?:{_PEOPLE}|end|langfuse|mlflow(?:trace)?|ls|app)?user(?:{_OF_A_PERSON})?s?|"
    rf"(?:{_PEOPLE})(?:user)?(?:{_OF_A_PERSON})|annotators?|raters?|request[eo]rs?|safetyidentifier|"
    "(?:last)?(?:completed|updated|created|annotated|submitted|assigned|requested)by|"
    "createdusername|commentauthors|.*responsesusers"
)
"""What exporters call a person, in small letters alone: `user_id`, `User ID`, `enduser.id`, `customerEmail`,
`completed_by`. A `customer` or an `author` alone may be what one of them said."""


_EMAIL_NAME = re.compile(r"e?mail(?:address)?")


_KEY = re.compile(r"""["']([\w.\- ]{1,40})\\*["']\s*:""")
"""A name in JSON, in JSON that is text, or as Python writes it."""


_NAMED_TEXT = re.compile(r"""(\\*["'])([\w.\- ]{1,40})\1(\s*:\s*)(\\*["'])(.{1,200}?)\4""")
"""A name and its text, in what is no whole JSON."""


_NAMED_OTHER = re.compile(r"""(\\*["'])([\w.\- ]{1,40})\1(\s*:\s*)(\d[\d.]*|[\[{][^\]}]{0,300}[\]}]?)""")
"""A name and the number, list or object behind it, which may be cut off."""


WORDS = frozenset({"content", "text", "arguments", "reasoning", "reasoning_content", "thinking"})
"""Names of what was said: nothing is changed in it."""


SAID = frozenset(
    {"prompt", "response", "completion", "chosen", "rejected", "question", "answer", "instruction", "input", "output"}
)
"""Names under which a text can be JSON that a model wrote: it is looked through if it is a server's log."""


LOG_NAMES = frozenset({"messages", "choices", "request", "inputs", "prompt", "role"})
"""One of these is in an object that a server or a proxy logs."""


SCHEMA_TYPES = frozenset({"string", "integer", "number", "object", "array", "boolean", "null"})


_IDS_IN_OBJECT = ("id", "user_id", "userId", "uuid", "_id", "email", "username", "name")


NO_IDS = frozenset({"nan", "nat", "none", "null", "<na>"})
"""What programs write into a table of text where there is no id."""


_HASH = re.compile(r"[0-9a-f]{16}")


SALT_FILE = "user-salt"


DEEPEST = 100
"""Levels of lists and objects that are looked through."""


MOST_NAMES = 10_000
"""Names of which it is remembered whether they are a user's."""


LONGEST_LITERAL = 100_000
"""Characters of a text that is tried as Python's writing of a dictionary."""


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


def user_hash(user: str, salt: bytes) -> str:
    """16 hexadecimal digits: BLAKE2b of the id, keyed with the salt."""
    return blake2b(user.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).hexdigest()


def user_in(values: Mapping[str, object]) -> str:
    """Return the user's id; empty if there is none. Of an object it is the id in it; a sentence is none."""
    for name in USER_NAMES:
        value = _object_in(values.get(name))
        if isinstance(value, Mapping):
            value = first_of(mapping(cast(object, value)), *_IDS_IN_OBJECT)
        text = _id_text(value)
        if text and not looks_like_prose(text):
            return text
    return ""


def _object_in(value: object) -> object:
    """Return the object that a text is, as in CSV; any other value stays."""
    if not (isinstance(value, str) and value.lstrip().startswith("{")):
        return value
    found = _decoded(value)
    return value if found is None else found


def _id_text(value: object) -> str:
    """Return an id as text; empty for what is none. 12.0 is 12, which a null beside it made a float."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return ""
    return str(int(value)) if value.is_integer() else str(value)


def looks_like_prose(text: str) -> bool:
    """Whether a text is what somebody said and not somebody's name: lines, a sentence, or more than five words."""
    words = text.split()
    if not words or words[-1][-1] in _ENDS:
        return bool(words)
    return len(words) > 1 and ("\n" in text.strip() or len(words) > 5 or words[-1][-1] == ".")


_ENDS = "?!…。\uff1f\uff01؟।"
"""With which a sentence ends, were it one word, and no name does."""


@dataclass(frozen=True, kw_only=True)
class UserRules:
    """Where users are.

    Attributes:
        salt: asked for at each user id, so that rows without users need none.
        also: columns of user ids under other names; `who.tag` is in the object that is the column `who`.
        never: columns that are something else, by what the user states of them; `data.user` is in the column `data`.
        are_hashed: 16 hexadecimal digits are the hash of an id already, as in what klimb exports.
        note_prose: called for each column of users that holds what somebody said.
    """

    salt: Callable[[], bytes]
    also: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    are_hashed: bool = False
    note_prose: Callable[[], None] = lambda: None


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


def without_users(row: Row, rules: UserRules) -> Row:
    """Return the row with each user id replaced by `user_hash`, in its cells and in its raw text.

    Users stand under the names that exporters give them, however deep, also in JSON that is text. A column of such a
    name that holds prose is hashed in the raw text, where an id could be in it, and is no cell of the row that is read.

    Raises:
        RowError: nested deeper than `DEEPEST`.
    """
    hasher = _Hasher(rules, is_text=row.is_text)
    values = cast(Mapping[str, object], hasher.through(row.values, DEEPEST))
    if not hasher.num_hashed:
        return row
    raw = _ENCODER.encode(values)
    prose = [name for name, value in row.values.items() if hasher.is_prose(name, value)]
    for _ in prose:
        rules.note_prose()
    kept = {name: None if name in prose else value for name, value in values.items()}
    return Row(row.place, kept, raw, row.is_text)


def text_without_users(text: str, rules: UserRules) -> str:
    """Return a text that could not be read as JSON, with what stands behind the name of a user replaced."""
    return _Hasher(rules).in_broken(text)


def may_hold_users(values: Mapping[str, object]) -> bool:
    """Tell by the names in a row, however deep, also in JSON that is text: of most rows none is a user's."""
    if _may_name_users(tuple(values)):
        return True
    left = list(values.values())
    for value in left:  # which grows by what is in the lists and objects
        if isinstance(value, str):
            if value.lstrip()[:1] in _OPENING and _text_may_hold_users(value):
                return True
        elif isinstance(value, list):
            entries = cast(list[object], value)
            left += entries if not _are_numbers(entries) else ()
        elif inner := mapping(value):
            if _may_name_users(tuple(inner)):
                return True
            left += [each for name, each in inner.items() if type(each) not in _NUMBERS and name not in WORDS]
    return False


_NUMBERS = frozenset({int, float, bool, type(None)})


_OPENING = ("[", "{", '"')
"""What JSON text begins with that has names in it."""


def _text_may_hold_users(text: str) -> bool:
    """Tell by the names in a text. An escape can hide a name, so a text with one is looked through."""
    return "\\u00" in text or any(map(_may_name_user, _KEY.findall(text)))


def _are_numbers(entries: Sequence[object]) -> bool:
    """Whether a list has token ids or log-probabilities, and no names."""
    return bool(entries) and isinstance(entries[0], int | float) and isinstance(entries[-1], int | float)


@lru_cache(maxsize=MOST_NAMES)
def _may_name_users(names: tuple[object, ...]) -> bool:
    return any(map(_may_name_user, names))


@lru_cache(maxsize=MOST_NAMES)
def _may_name_user(name: object) -> bool:
    return isinstance(name, str) and _may_be_users_name(name)


def _may_be_users_name(name: str) -> bool:
    return name in ("key", "source_id") or _is_user_name(name) or _is_email_name(name)


@lru_cache(maxsize=MOST_NAMES)
def _is_user_name(name: str) -> bool:
    return _USER_NAME.fullmatch(re.sub(r"[^a-z]", "", name.lower())) is not None


@lru_cache(maxsize=MOST_NAMES)
def _is_email_name(name: str) -> bool:
    return _EMAIL_NAME.fullmatch(re.sub(r"[^a-z]", "", name.lower())) is not None


class _Hasher:
    """Goes through a row and replaces ids."""

    def __init__(self, rules: UserRules, *, is_text: bool = False) -> None:
        self.num_hashed = 0
        self._rules, self._is_text = rules, is_text

    def is_prose(self, name: str, value: object) -> bool:
        """Whether a column that is called as users are holds what somebody said."""
        is_user = name not in self._rules.never and name not in self._rules.also and _is_user_name(name)
        return is_user and isinstance(value, str) and looks_like_prose(value) and not _is_json(value)

    def through(self, value: object, depth: int, *, name: str = "", path: str | None = "") -> object:
        """Return the value without user ids.

        `name` is the one under which it stands, `path` its place in objects of the row, which may be mapped
        (`data.user`); empty for the row itself, None within a list or a text.
        """
        if depth == 0:
            raise RowError("JSON nested too deep", f"more than {DEEPEST} levels around a user id")
        if isinstance(value, str):
            return self._in_text(value, name, depth)
        if isinstance(value, list):
            entries = cast(list[object], value)
            if _are_numbers(entries):
                return entries
            return [self.through(entry, depth - 1, name=name, path=None) for entry in entries]
        if not isinstance(value, Mapping):
            return value
        entries = cast(Mapping[Any, object], value)
        return {
            key: each if self._is_clean(key, each) else self._entry(entries, key, each, depth, around_path=path)
            for key, each in entries.items()
        }

    def _is_clean(self, name: object, value: object) -> bool:
        """Tell the most frequent cells, texts and numbers under a name that no user has, without looking further."""
        # A name that is stated may be a path, which ends with this one.
        if _may_name_user(name) or name == "value" or any(each.endswith(str(name)) for each in self._rules.also):
            return False
        return value.lstrip()[:1] not in _OPENING if isinstance(value, str) else type(value) in _NUMBERS

    def _entry(
        self, around: Mapping[Any, object], name: object, value: object, depth: int, *, around_path: str | None
    ) -> object:
        if not isinstance(name, str):  # as Python writes dictionaries
            return self.through(value, depth - 1, name="", path=None)
        path = f"{around_path}.{name}" if around_path else name if around_path == "" else None
        if path is not None and path in self._rules.never:
            return self.through(value, depth - 1, name="prompt", path=path)
        if path is not None and path in self._rules.also:
            return self._hashed(value, depth - 1)
        if name in WORDS and around_path != "":
            return value
        if name in self._rules.also or self._is_user(around, name, value):
            return self._hashed(value, depth - 1)
        if name == "value" and isinstance(around.get("key"), str) and _is_user_name(str(around["key"])):
            return self._hashed(value, depth - 1)
        return self.through(value, depth - 1, name=name, path=path)

    def _is_user(self, around: Mapping[Any, object], name: str, value: object) -> bool:
        if name == "source_id":
            return str(around.get("source_type", "")).upper() == "HUMAN"
        if _is_email_name(name):
            return isinstance(value, str) and "@" in value and not looks_like_prose(value)
        if not _is_user_name(name) or _is_schema(value):
            return False
        return not (isinstance(value, str) and "assistant" in around and looks_like_prose(value))

    def _hashed(self, value: object, depth: int) -> object:
        """Return the id's hash; of a list or an object, that of each text and number in it."""
        if depth == 0:
            raise RowError("JSON nested too deep", f"more than {DEEPEST} levels around a user id")
        if isinstance(value, list):
            return [self._hashed(entry, depth - 1) for entry in cast(list[object], value)]
        if isinstance(value, Mapping):
            entries = cast(Mapping[str, object], value)
            return {name: each if name in WORDS else self._hashed(each, depth - 1) for name, each in entries.items()}
        if isinstance(value, str) and _is_json(value):
            return json.dumps(self._hashed(_decoded(value), depth - 1), ensure_ascii=False)
        text = _id_text(value)
        if self._is_text and text[:-2].isdecimal():
            text = text.removesuffix(".0")
        is_none = self._is_text and text.strip().lower() in NO_IDS
        if not text or is_none or (self._rules.are_hashed and _HASH.fullmatch(text)):
            return value
        self.num_hashed += 1
        return user_hash(text, self._rules.salt())

    def _in_text(self, text: str, name: str, depth: int) -> str:
        if text.lstrip()[:1] not in _OPENING or not _text_may_hold_users(text):
            return text
        before = self.num_hashed
        if (parsed := _decoded(text)) is not None:
            if name in SAID | WORDS and not isinstance(parsed, str) and not _is_log(parsed):
                return text
            parsed = self.through(parsed, depth - 1, name=name, path=None)
            return json.dumps(parsed, ensure_ascii=False) if self.num_hashed > before else text
        if name in SAID | WORDS:
            return text
        if (written := _written(text)) is not None:
            written = self.through(written, depth - 1, name=name, path=None)
            return repr(written) if self.num_hashed > before else text
        return self.in_broken(text) if text.lstrip()[:1] in ("[", "{") else text

    def in_broken(self, text: str) -> str:
        """Return a text that is no whole JSON without what stands behind the names of users in it."""
        return _NAMED_OTHER.sub(self._named_other, _NAMED_TEXT.sub(self._named, text))

    def _named_other(self, found: re.Match[str]) -> str:
        quote, name, colon, value = found.groups()
        if not (name in self._rules.also or _is_user_name(name)):
            return found[0]
        self.num_hashed += 1
        return f"{quote}{name}{quote}{colon}{quote}{user_hash(value, self._rules.salt())}{quote}"

    def _named(self, found: re.Match[str]) -> str:
        quote, name, colon, opening, value = found.groups()
        is_email = _is_email_name(name) and "@" in value
        if not (name in self._rules.also or _is_user_name(name) or is_email):
            return found[0]
        self.num_hashed += 1
        return f"{quote}{name}{quote}{colon}{opening}{user_hash(value, self._rules.salt())}{opening}"


def _is_schema(value: object) -> bool:
    """Whether an object describes an argument of a tool, such as its `user_id`, and is no person."""
    entry = mapping(value)
    kind = entry.get("type")
    is_typed = isinstance(kind, str) and kind in SCHEMA_TYPES
    return is_typed or any(name in entry for name in ("$ref", "anyOf", "oneOf", "properties", "enum"))


def _is_log(parsed: object) -> bool:
    entries = listed(parsed)
    return not LOG_NAMES.isdisjoint(mapping(entries[0] if entries else parsed))


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in ("[", "{") and _decoded(text) is not None


def _decoded(text: str) -> object | None:
    """Return the list, object or text that a JSON text is; None for any other."""
    if text.lstrip()[:1] not in _OPENING:
        return None
    try:
        return cast(object, DECODER.decode(text))
    except (ValueError, RecursionError):
        return None


def _written(text: str) -> object | None:
    """Return the list or dictionary that a text is as Python writes it, which is how some tables were saved."""
    if text.lstrip()[:1] not in ("[", "{") or "'" not in text or len(text) > LONGEST_LITERAL:
        return None
    try:
        return cast(object, ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
