"""Settings over settings: the one rule by which a file, the tables of a study and `--set` are laid over each other.

A key changes that key alone. A word in the place of a table that has a `kind` takes away what was said of the table
below it, and a key that is taken away is as if it had never been said. Where the kind of a table changes, what was
written for the old kind stays if the new one has it too, and is refused by name if not. What nobody wrote, of a recipe
or of the old kind's defaults, is filled in afterwards (`klimb.workbench.config.recipe`) and stands in nobody's way.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from klimb.declarations import OWN_KIND
from klimb.errors import ConfigError
from klimb.training.recipes import RECIPES
from klimb.workbench.config.recipe import (
    DEFAULT_RECIPE,
    OTHER_BOUNDS,
    UNIONS,
    Tables,
    filled_sections,
    sections_without_recipe,
    table_of,
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is said in one place.

    Attributes:
        tables: that it holds.
        fresh: dotted paths of which nothing that was said below counts any more.
    """

    tables: Mapping[str, Any]
    fresh: Collection[str] = ()


def layer_of(values: Mapping[str, Any]) -> Layer:
    """Return what these values by dotted key say together, in whatever order; None takes the key away.

    Raises:
        ConfigError: two of them do not go together.
    """
    tables: Tables = {}
    fresh: set[str] = set()
    for key, value in sorted(values.items(), key=lambda item: item[0].count(".")):
        *sections, leaf = key.split(".")
        table: Any = tables
        for depth, section in enumerate(sections, start=1):
            inner = table.setdefault(section, {})
            if isinstance(inner, str):
                inner = table[section] = {"kind": inner}
                fresh.add(".".join(sections[:depth]))
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {key}: {section} is {inner!r} and not a table")
            table = inner
        if value is None:
            fresh.add(key)
        elif leaf in table:
            raise ConfigError(f"--set {key} = {value!r}, and {table[leaf]!r} elsewhere on the command line: say one")
        else:
            table[leaf] = copy.deepcopy(value)
    return Layer(tables=tables, fresh=fresh)


def lay_over(lower: Mapping[str, Any], upper: Layer, *, is_resolved: bool = False) -> Tables:
    """Return the tables of the upper layer over the lower ones.

    Args:
        lower: said before.
        upper: said after it.
        is_resolved: the lower tables hold every default: only what differs from it is somebody's word.

    Raises:
        ConfigError: what was written for one kind of a table is nothing to the kind that the upper layer sets.
    """
    kept = _without(lower, upper.fresh)
    if is_resolved and _recipe_of(upper.tables):
        kept = _said_beside(kept, filled_sections(RECIPES[_recipe_of(kept) or DEFAULT_RECIPE]))
    merged = _merge(kept, upper.tables)
    refused: list[str] = []
    for path in UNIONS:
        old, new = _kind_below(kept, upper.tables, path), _kind_of(merged, path, _recipe_of(merged) or DEFAULT_RECIPE)
        if old is None or new is None or old == new:
            continue
        unsaid = _defaults(path, old, _recipe_of(kept) or DEFAULT_RECIPE) if is_resolved else {}
        for key, value in _misfits(kept, upper.tables, path, old=old, new=new):
            if unsaid.get(key) == value:
                del table_at(merged, path)[key]
            else:
                refused.append(_refusal(path, key, value, old=old, new=new))
    if refused:
        raise ConfigError("\n".join(refused))
    return merged


def table_at(tables: Mapping[str, Any], path: str) -> Any:
    """Return the table at the dotted path; a word there is its kind, and what is no table is an empty one."""
    found: Any = tables
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return {"kind": found}
    return found if isinstance(found, Mapping) else {}


def _without(tables: Mapping[str, Any], paths: Collection[str]) -> Tables:
    kept = copy.deepcopy(dict(tables))
    for path in paths:
        section, _, leaf = path.rpartition(".")
        table = table_at(kept, section) if section else kept
        table.pop(leaf, None)
    return kept


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Tables:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if not isinstance(value, Mapping):
            merged[key] = value
        else:
            below = {"kind": below} if isinstance(below, str) else below
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value)
    return merged


def _said_beside(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Tables:
    """Return the tables without what says the same as the defaults; a table of which a key is left keeps its kind."""
    kept: Tables = {}
    for key, value in given.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            kept[key] = _said_beside(value, default)
        elif key not in defaults or value != default:
            kept[key] = value
    return {"kind": given["kind"], **kept} if kept and "kind" in given else kept


def _recipe_of(tables: Mapping[str, Any]) -> str | None:
    name = table_at(tables, "objective").get("recipe")
    return name if isinstance(name, str) and name in RECIPES else None


def _kind_of(tables: Mapping[str, Any], path: str, recipe: str | None) -> str | None:
    """Return the kind of the table: the one it says, or the recipe's."""
    said = table_at(tables, path).get("kind")
    if isinstance(said, str):
        return said
    sections = sections_without_recipe() if recipe is None else filled_sections(RECIPES[recipe])
    return table_at(sections, path).get("kind")


def _kind_below(lower: Mapping[str, Any], upper: Mapping[str, Any], path: str) -> str | None:
    """Return for which kind the lower table was written; None where it says nothing, or is for any recipe to come."""
    section, _, leaf = path.rpartition(".")
    is_replaced = isinstance((table_at(upper, section) if section else upper).get(leaf), str)
    if is_replaced or not table_at(lower, path):
        return None
    return _kind_of(lower, path, _recipe_of(lower) or (None if _recipe_of(upper) else DEFAULT_RECIPE))


def _misfits(
    lower: Mapping[str, Any], upper: Mapping[str, Any], path: str, *, old: str, new: str
) -> Iterator[tuple[str, Any]]:
    """Return the keys, with their values, that were written for the old kind and are nothing to the new one."""
    said_anew = table_at(upper, path)
    old_keys, new_keys = _keys_of(path, old), _keys_of(path, new)
    for key, value in table_at(lower, path).items():
        stays = key in new_keys and path not in OTHER_BOUNDS
        # A key that the old kind does not have either, and a kind that there is not, are for the fields' own checks.
        if key in old_keys and new_keys and key not in said_anew and not stays:
            yield key, value


def _row(path: str, kind: str) -> type | None:
    union = UNIONS[path]
    named = union.name_of({union.key: kind})
    return union.own if named == OWN_KIND else union.rows.get(named or "")


def _keys_of(path: str, kind: str) -> set[str]:
    row = _row(path, kind)
    return set() if row is None else {"kind", *(entry.name for entry in fields(row))}


def _defaults(path: str, kind: str, recipe: str) -> Mapping[str, Any]:
    """Return what holds of a table of this kind of which nobody says more."""
    of_recipe = table_at(filled_sections(RECIPES[recipe]), path)
    row = _row(path, kind)
    if of_recipe.get("kind") == kind or row is None:
        return of_recipe
    try:
        return table_of(row(kind=kind))
    except TypeError:  # it has keys without a default
        return {}


def _refusal(path: str, key: str, value: Any, *, old: str, new: str) -> str:
    is_there = key in _keys_of(path, new)
    why = f"means something else with {new!r}" if is_there else f"{new!r} has no such setting"
    again = f"say it again beside {path}.kind = {new!r}, " if is_there else ""
    return (
        f"{path}.{key} = {value!r} was written for {path}.kind = {old!r}, and {why}: leave it out, {again}or give "
        f"{path} = {new!r} in place of the kind, which takes away all that was said of {path} before"
    )
