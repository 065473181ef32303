"""Environments that teach on a small machine: a calculator, a guessing game, and a database to ask in SQL.

Each is a kind of task: problems, and what the conversation about them is had with. They are seeded by their problems,
answer the same call in the same way, and take little time and memory whatever they are called with.
"""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.tasks.games.calculator import Calculator, CalculatorSettings
    from klimb.tasks.games.guessing import Guessing, GuessingSettings
    from klimb.tasks.games.sql import SqlDatabase, SqlSettings

__all__ = [
    "Calculator",
    "CalculatorSettings",
    "Guessing",
    "GuessingSettings",
    "SqlDatabase",
    "SqlSettings",
]

open_lazily(__name__)
