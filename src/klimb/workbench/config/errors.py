"""What is wrong with a configuration, all at once: key, value, what is allowed, the nearest right key."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from klimb.declarations import NONE_OF_UNION
from klimb.errors import ConfigError
from klimb.losses.settings import LOSSES
from klimb.tasks.protocol import did_you_mean
from klimb.workbench.config.fields import TABLE, FieldFacts, as_declared, known_fields
from klimb.workbench.config.run import RunConfig

LONGEST_VALUE = 80


UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that a section, or a settings class, does not have."""


MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")


SAYS_ALL = ("value_error", "assertion_error", NONE_OF_UNION)
"""Errors whose message is for people."""


WRONG_NAME = "[key]"
"""How pydantic marks that the name of a table is wrong, and not what is in it."""


def config_error(error: ValidationError, *, source: str, model: type[BaseModel] = RunConfig) -> ConfigError:
    """Return the same errors for people: one line per key of the configuration's class."""
    words = _Words(model)
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        path = words.dotted(detail["loc"])
        lines.setdefault(path or str(detail["msg"]), words.line(detail, path))
    count = "1 setting is" if len(lines) == 1 else f"{len(lines)} settings are"
    return ConfigError(f"{source}: {count} not right:\n" + "\n".join(f"  {line}" for line in lines.values()))


def nearest_keys(path: str, kinds: Iterable[str] = (), *, model: type[BaseModel] = RunConfig) -> list[str]:
    """Return the right keys that a wrong one was probably meant to be; of the tables of these kinds, or of any.

    In this order: a much alike neighbour, keys of (almost) that name in other sections, a somewhat alike neighbour.
    """
    written, _, leaf = path.rpartition(".")
    section = as_declared(written, model)
    known = known_fields(model)
    chosen = {*kinds} if {*kinds} & {*LOSSES} else {*kinds, *LOSSES}
    fitting = list(dict.fromkeys(facts.path for facts in known if not kinds or {*facts.kinds} <= chosen))
    neighbours = [each for each in fitting if each.rpartition(".")[0] == section]
    for choices, cutoff in ((neighbours, 0.75), (fitting, 0.8), (neighbours, 0.5)):
        found = difflib.get_close_matches(leaf, [_leaf(each) for each in choices], n=1, cutoff=cutoff)
        if found:
            near = (each for each in choices if _leaf(each) == found[0])
            return list(dict.fromkeys(_as_written(each, section, written) for each in near))
    return []


def _as_written(path: str, section: str, written: str) -> str:
    """Return a key of this section with the names that the user gave; elsewhere they are still to be given."""
    beside = section.endswith("*") and path.rpartition(".")[0] == section
    return f"{written}.{_leaf(path)}" if beside else path.replace("*", "NAME")


@dataclass(frozen=True)
class _Words:
    """Says what is wrong in the words of one kind of configuration."""

    model: type[BaseModel]

    def dotted(self, location: Iterable[int | str]) -> str:
        """Return the key as the user wrote it: pydantic's location without the union tags in it."""
        known = {facts.path for facts in known_fields(self.model)}
        rest = [str(part) for part in location if part != WRONG_NAME]
        parts: list[str] = []
        for index, part in enumerate(rest):
            here = ".".join([*parts, part])
            is_last = index == len(rest) - 1
            if as_declared(here, self.model) in known or (
                is_last and not self._is_leaf(".".join(parts)) and not self._is_tag(rest, parts)
            ):
                parts.append(part)
        return ".".join(parts)

    def _is_tag(self, location: list[str], parts: list[str]) -> bool:
        # Of a table as a whole: the kind stands right behind the table's own key.
        key = ".".join([*parts, "kind"])
        kinds = {kind for facts in known_fields(self.model) if facts.path == key for kind in facts.kinds[-1:]}
        return location[-2:-1] == parts[-1:] and location[-1] in kinds

    def line(self, detail: ErrorDetails, path: str) -> str:
        """Return one error as one line."""
        kinds = tuple(str(part) for part in detail["loc"])
        facts = self._facts(path, kinds)
        shown = _shown(detail["input"])
        if detail["type"] in UNKNOWN_KEY:
            return self._unknown_key(path, kinds, shown)
        if detail["type"] in MISSING_KEY:
            return f"{path}: missing; expected {facts.allowed if facts else 'a value'}"
        if detail["type"] in SAYS_ALL:
            message = str(detail["msg"]).removeprefix("Value error, ")
            says_where = not path or message.startswith(f"{path}.")
            return message if says_where else f"{path} = {shown}: {message}"
        if detail["type"] == "union_tag_invalid":
            context = detail.get("ctx", {})
            return f"{self._told_by(path)} = {context.get('tag')!r}: expected one of {context.get('expected_tags')}"
        allowed = facts.allowed if facts else str(detail["msg"])
        meaning = f" ({facts.meaning})" if facts and facts.meaning else ""
        return f"{path} = {shown}: expected {allowed}{_nearest_word(detail['input'], allowed)}{meaning}"

    def _unknown_key(self, path: str, kinds: tuple[str, ...], shown: str) -> str:
        """Return one line about a key that its table does not have; tables of another kind may have it."""
        beside = ", ".join(self._keys_beside(path, kinds))
        if any(facts.path == as_declared(path, self.model) for facts in known_fields(self.model)) and len(kinds) > 1:
            kind = kinds[-2]
            if kind in LOSSES:
                return (
                    f"{path} = {shown} does nothing: the loss {kind} reads {beside}; leave it out, or take another "
                    "recipe"
                )
            told_by = self._told_by(path.rpartition(".")[0])
            return f"{path} = {shown}: unknown key; known keys here: {beside}; they are those of {told_by} = {kind!r}"
        near = " or ".join(nearest_keys(path, kinds, model=self.model))
        hint = f"did you mean {near}?" if near else f"known keys here: {beside}"
        return f"{path} = {shown}: unknown key; {hint}"

    def _told_by(self, path: str) -> str:
        """Return the key that tells the tables apart that may stand at this one."""
        loss = f"{path}.loss"
        return loss if any(facts.path == loss for facts in known_fields(self.model)) else f"{path}.kind"

    def _facts(self, path: str, kinds: tuple[str, ...]) -> FieldFacts | None:
        declared = as_declared(path, self.model)
        same_path = [facts for facts in known_fields(self.model) if facts.path == declared]
        fitting = [facts for facts in same_path if set(facts.kinds) <= set(kinds)]
        return next(iter(fitting or same_path), None)

    def _is_leaf(self, path: str) -> bool:
        declared = as_declared(path, self.model)
        return any(facts.path == declared and not facts.allowed.startswith(TABLE) for facts in known_fields(self.model))

    def _keys_beside(self, path: str, kinds: tuple[str, ...]) -> list[str]:
        section = as_declared(path.rpartition(".")[0], self.model)
        fitting = (facts for facts in known_fields(self.model) if set(facts.kinds) <= set(kinds))
        return [_leaf(facts.path) for facts in fitting if facts.path.rpartition(".")[0] == section]


def _nearest_word(value: object, allowed: str) -> str:
    """Return `; did you mean 'x'?` where a word is one letter or two from one that is allowed."""
    words = re.findall(r"'([^']*)'", allowed) if "one of '" in allowed else []
    return did_you_mean(value, words) if isinstance(value, str) else ""


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "{…}"
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
