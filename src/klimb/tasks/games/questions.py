"""Questions about a small database, each with the query that answers it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from klimb.tasks.games.schemas import Names, Number, Theme


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and the query whose result is the answer."""

    text: str
    sql: str


Template = Callable[[Theme, Names, random.Random], Question]


def count_beyond(theme: Theme, names: Names, generator: random.Random) -> Question:
    """Ask how many things lie beyond a bound."""
    place = generator.randrange(2)
    number, column, bound = theme.numbers[place], names.numbers[place], _bound(theme.numbers[place], generator)
    word, sign = generator.choice((("above", ">"), ("below", "<")))
    return Question(
        text=f"How many {theme.things} have a {number.noun} {word} {bound}?",
        sql=f"SELECT count(*) FROM {theme.things} WHERE {column} {sign} {bound}",
    )


def count_of_group(theme: Theme, names: Names, generator: random.Random) -> Question:
    """Ask how many things of a group lie beyond a bound."""
    place, group = generator.randrange(2), generator.choice(theme.groups)
    number, column, bound = theme.numbers[place], names.numbers[place], _bound(theme.numbers[place], generator)
    return Question(
        text=f"How many {theme.things} with the {theme.group} {group} have a {number.noun} above {bound}?",
        sql=f"SELECT count(*) FROM {theme.things} WHERE {names.group} = '{group}' AND {column} > {bound}",
    )


def aggregate_of_group(theme: Theme, names: Names, generator: random.Random) -> Question:
    """Ask for the largest, smallest or summed number of a group."""
    place, group = generator.randrange(2), generator.choice(theme.groups)
    word, function = generator.choice((("largest", "max"), ("smallest", "min"), ("total", "sum")))
    return Question(
        text=f"What is the {word} {theme.numbers[place].noun} of the {theme.things} with the {theme.group} {group}?",
        sql=f"SELECT {function}({names.numbers[place]}) FROM {theme.things} WHERE {names.group} = '{group}'",
    )


def extreme_thing(theme: Theme, names: Names, generator: random.Random) -> Question:
    """Ask which thing comes first or last by a number, perhaps among those beyond a bound of the other."""
    place = generator.randrange(2)
    other, bound = theme.numbers[1 - place], _bound(theme.numbers[1 - place], generator)
    word, order = generator.choice((("largest", "DESC"), ("smallest", "ASC")))
    return Question(
        text=f"Of the {theme.things} with a {other.noun} above {bound}, which {theme.thing} has the {word} "
        f"{theme.numbers[place].noun}?",
        sql=f"SELECT {names.key} FROM {theme.things} WHERE {names.numbers[1 - place]} > {bound} "
        f"ORDER BY {names.numbers[place]} {order} LIMIT 1",
    )


def count_by_place(theme: Theme, names: Names, generator: random.Random) -> Question:
    """Ask how many things beyond a bound belong to a group at a place, which stands in the second table."""
    place, city = generator.randrange(2), generator.choice(theme.places)
    number, column, bound = theme.numbers[place], names.numbers[place], _bound(theme.numbers[place], generator)
    return Question(
        text=f"How many {theme.things} with a {number.noun} above {bound} have {_article(theme.group)} {theme.group} "
        f"from {city}?",
        sql=f"SELECT count(*) FROM {theme.things} JOIN {theme.places_table} USING ({names.group}) "
        f"WHERE city = '{city}' AND {column} > {bound}",
    )


TEMPLATES: tuple[Template, ...] = (count_beyond, count_of_group, aggregate_of_group, extreme_thing, count_by_place)


def _bound(number: Number, generator: random.Random) -> int:
    """Return a bound well within the numbers, so that it divides them."""
    margin = (number.highest - number.lowest) // 5
    return generator.randint(number.lowest + margin, number.highest - margin)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
