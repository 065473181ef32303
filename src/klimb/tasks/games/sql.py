"""Questions about small databases, to be answered by SQL."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from klimb.declarations import Fraction, LongText, Seed, configurable, require
from klimb.tasks.games.messages import call, result, say
from klimb.tasks.games.questions import TEMPLATES
from klimb.tasks.games.schemas import THEMES, Database, make_database, name_columns
from klimb.tasks.protocol import MOST_UNUSABLE, Problem, ProblemSet, QuestionTemplate, chat
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, with_reward
from klimb.tasks.splits import split

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import Message

SHOWN_ROWS = 10


SHOWN_CHARACTERS = 40
"""Of a value."""


DRAWS_PER_PROBLEM = 50
"""Random draws allowed per problem asked for; duplicates use them up when there are few others left."""


MOST_OTHERS = 20
"""Databases that are tried for one in which the right result is another."""


MOST_PROBLEMS = 10_000
"""There are about six times as many different queries."""


@configurable
@dataclass(frozen=True, kw_only=True)
class SqlSettings:
    """Questions about small databases in memory, with tools to look at the tables and to ask them in SQL.

    The reward is 1 where the last query has the right result, on the database that was asked and on another one of the
    same tables with other rows (so that a result written into a query is none), and 0 otherwise. No query answers
    questions on both sides of the split.
    """

    subject: ClassVar[str] = ""

    kind: Literal["sql"] = "sql"
    """Questions about small databases."""
    template: QuestionTemplate = "{question}"
    """The user's message; {question} stands for the question."""
    num_problems: Annotated[int, Ge(2), Le(MOST_PROBLEMS)] = 1_000
    """Problems, both sides together."""
    held_out_fraction: Fraction = 0.2
    """Share of the problems kept out of training."""
    seed: Seed = 0
    """Draws the problems and the split."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        require(2 <= self.num_problems <= MOST_PROBLEMS, "num_problems", self.num_problems, f"in [2, {MOST_PROBLEMS}]")

    def make_task(self) -> ProblemSet:
        """Return the problems, each with a query of its own, and their environment."""
        generator = random.Random(self.seed)
        found: dict[str, Problem] = {}
        for problem in self._draw(generator):
            found.setdefault(problem.answer, problem)
            if len(found) == self.num_problems:
                break
        else:
            raise ValueError(f"num_problems={self.num_problems} are more than there are queries; ask for fewer")
        train, held_out = split(list(found.values()), self.held_out_fraction)
        task = ProblemSet(
            name=f"sql({', '.join(THEMES)})",
            train=tuple(train),
            held_out=tuple(held_out),
            trusted=True,
            environment=SqlDatabase,
        )
        return with_reward(task, self.reward)

    def _draw(self, generator: random.Random) -> Iterator[Problem]:
        for _ in range(DRAWS_PER_PROBLEM * self.num_problems):
            name = generator.choice(tuple(THEMES))
            naming, rows = generator.randrange(2**31), generator.randrange(2**31)
            theme = THEMES[name]
            question = generator.choice(TEMPLATES)(theme, name_columns(theme, random.Random(naming)), generator)
            yield Problem(
                problem_id=question.sql,
                messages=chat(question.text, system_prompt=self.system_prompt, template=self.template),
                answer=question.sql,
                metadata={"theme": name, "naming": str(naming), "rows": str(rows)},
            )


class SqlDatabase:
    """An environment: a small database, which can be described and asked.

    A query reads these tables and nothing else, changes nothing, and ends soon.
    """

    trusted = True

    def __init__(self) -> None:
        self._database = self._other = Database(tables=())
        self._answer = self._last_query = ""

    def reset(self, **row: Any) -> None:
        """Make the database.

        Args:
            row: `theme`, `naming` and `rows` say which, `answer` is a query with the right result.

        Raises:
            ValueError: one of them is missing or makes no database, or the query does not tell databases apart.
        """
        told = {**row.get("metadata", {}), **row}
        if any(name not in told for name in ("theme", "naming", "rows", "answer")) or told["theme"] not in THEMES:
            themes = ", ".join(THEMES)
            raise ValueError(f"a database needs theme (one of {themes}), naming, rows and answer; got {told}")
        theme, seed, self._answer = THEMES[told["theme"]], int(told["rows"]), str(told["answer"])
        names = name_columns(theme, random.Random(int(told["naming"])))
        self._database = make_database(theme, names, seed=seed)
        self._other = self._find_other(make_database(theme, names, seed=seed + step) for step in range(1, MOST_OTHERS))
        self._last_query = ""

    def _find_other(self, databases: Iterator[Database]) -> Database:
        """Return the first database in which the right result is another one."""
        answer_of = _queries().answer_of
        here = answer_of(self._database, self._answer)
        for database in databases:
            if answer_of(database, self._answer) != here:
                return database
        raise ValueError(f"{self._answer!r} has the same result whatever the rows are")

    def describe(self) -> str:
        """Show the tables and their columns.

        Returns:
            The tables, one a line.
        """
        return self._database.definition

    def query(self, sql: str) -> str:
        """Run a query. The last one is the answer.

        Args:
            sql: One SELECT.

        Returns:
            Its rows.
        """
        self._last_query = sql
        return show(*_queries().run_query(self._database, sql))

    def get_reward(self) -> float:
        """Return 1 where the last query has the right result, whatever the rows are; else 0.

        Source: Zhong, Yu and Klein 2020, Semantic evaluation for text-to-SQL with distilled test suites.
        """
        if not self._last_query:
            return 0.0
        return float(all(self._is_right(database) for database in (self._database, self._other)))

    def _is_right(self, database: Database) -> bool:
        queries = _queries()
        try:
            _, rows = queries.run_query(database, self._last_query)
        except ValueError:
            return False  # the query was answered with this error when it was run
        return Counter(rows) == queries.answer_of(database, self._answer)


def _queries() -> Any:
    # Settings are read without DuckDB, which takes a while to load.
    return import_module("klimb.tasks.games.queries")


def show(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    """Return a result as text: a lone value as it is, others as lines under the names of their columns."""
    if len(rows) == 1 and len(names) == 1:
        return _show_value(rows[0][0])
    lines = [" | ".join(name[:SHOWN_CHARACTERS] for name in names)]
    lines += [" | ".join(map(_show_value, row)) for row in rows[:SHOWN_ROWS]]
    more = len(rows) - SHOWN_ROWS
    return "\n".join([*lines, f"and {more} rows more"] if more > 0 else lines) if rows else "no rows"


def _show_value(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def demonstrate(problem: Problem) -> tuple[Message, ...]:
    """Return a conversation that looks at the tables, asks the right query and says what it gave."""
    database = SqlDatabase()
    database.reset(answer=problem.answer, **problem.metadata)
    found = database.query(problem.answer)
    return (
        *problem.messages,
        call("describe"),
        result("describe", database.describe()),
        call("query", sql=problem.answer),
        result("query", found),
        say(found),
    )
