import random
from collections import Counter

import pytest

from klimb.tasks import make_task
from klimb.tasks.games.questions import TEMPLATES
from klimb.tasks.games.schemas import THEMES, make_database, name_columns
from klimb.tasks.games.sql import SqlDatabase, SqlSettings, demonstrate, show
from klimb.tasks.tools import tools_of

SMALL = {"num_problems": 60}


def open_database(problem):
    database = SqlDatabase()
    assert database.reset(answer=problem.answer, **problem.metadata) is None
    return database


def a_problem(beginning):
    task = make_task("sql", num_problems=200)
    return next(problem for problem in task.train if problem.answer.startswith(beginning))


def test_the_right_query_earns_the_reward_in_each_kind_of_question():
    task, seen = make_task("sql", **SMALL), Counter()
    for problem in task.train[:15]:
        database = open_database(problem)
        assert database.get_reward() == 0.0
        assert database.query(problem.answer)
        assert database.get_reward() == 1.0
        seen[problem.answer.split("(")[0]] += 1
    assert len(seen) >= 3


def test_answers_are_what_python_counts():
    """The rows of a question about a bound, counted without SQL."""
    generator = random.Random(3)
    count_beyond = TEMPLATES[0]
    for theme in THEMES.values():
        names = name_columns(theme, generator)
        question = count_beyond(theme, names, generator)
        database = make_database(theme, names, seed=5)
        _, _, _, _, _, _, column, sign, bound = [None, *question.sql.split()]
        place = [each.name for each in database.tables[0].columns].index(column)
        values = [row[place] for row in database.tables[0].rows]
        expected = sum(value > int(bound) if sign == ">" else value < int(bound) for value in values)
        asked = SqlDatabase()
        asked._database = database
        assert asked.query(question.sql) == str(expected)


def test_another_query_with_the_same_rows_is_right_and_names_of_columns_do_not_matter():
    problem = a_problem("SELECT count(*)")
    database = open_database(problem)
    database.query(problem.answer.replace("count(*)", "sum(1) as how_many").lower().replace("'", "'"))
    quoted = "'" in problem.answer  # lower() changes what stands in quotes
    assert database.get_reward() == (0.0 if quoted else 1.0)
    database.query(problem.answer.replace("count(*)", "count(*) + 0 AS n"))
    assert database.get_reward() == 1.0


def test_the_last_query_counts_and_not_the_best_one():
    problem = a_problem("SELECT count(*)")
    database = open_database(problem)
    database.query(problem.answer)
    database.query("SELECT 1")
    assert database.get_reward() == 0.0
    database.query(problem.answer)
    with pytest.raises(ValueError):
        database.query("no query")
    assert database.get_reward() == 0.0


def test_the_right_result_written_into_a_query_earns_nothing():
    """It is right here, and not with other rows."""
    task = make_task("sql", **SMALL)
    for problem in task.train[:15]:
        database = open_database(problem)
        found = database.query(problem.answer)
        literal = f"SELECT {found}" if found.lstrip("-").isdigit() else f"SELECT '{found}'"
        assert database.query(literal) == found
        assert database.get_reward() == 0.0


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 0", "SELECT 3", "SELECT NULL", "SELECT 1 WHERE 1 = 2"])
def test_a_policy_that_does_not_look_earns_nothing(sql):
    task = make_task("sql", **SMALL)
    for problem in task.train[:15]:
        database = open_database(problem)
        database.query(sql)
        assert database.get_reward() == 0.0


def test_no_query_is_on_both_sides_and_none_twice():
    task = make_task("sql")
    answers = [problem.answer for problem in (*task.train, *task.held_out)]
    assert len(answers) == len(set(answers)) == 1000
    assert (len(task.train), len(task.held_out)) == (800, 200)
    assert not {each.answer for each in task.train} & {each.answer for each in task.held_out}


def test_the_question_does_not_say_what_columns_are_called():
    task = make_task("sql")
    by_question: dict[str, set[str]] = {}
    for problem in (*task.train, *task.held_out):
        by_question.setdefault(problem.messages[-1]["content"], set()).add(problem.answer)
    assert any(len(answers) > 1 for answers in by_question.values())


def test_the_same_seed_has_the_same_problems_and_rows_and_another_seed_others():
    assert SqlSettings(seed=1, **SMALL).make_task() == SqlSettings(seed=1, **SMALL).make_task()
    assert SqlSettings(seed=1, **SMALL).make_task().train != SqlSettings(seed=2, **SMALL).make_task().train
    problem = a_problem("SELECT")
    table = problem.answer.split("FROM ")[1].split()[0]
    first, second = open_database(problem), open_database(problem)
    assert first.query(f"SELECT * FROM {table}") == second.query(f"SELECT * FROM {table}")
    assert first.describe() == second.describe()


def test_describe_names_the_tables_and_columns_that_the_right_query_uses():
    task = make_task("sql", **SMALL)
    for problem in task.train[:15]:
        described = open_database(problem).describe()
        first, second = described.splitlines()
        assert first.startswith(problem.answer.split("FROM ")[1].split()[0] + "(")
        assert second.endswith("city text)")


def test_a_hostile_query_is_an_error_that_costs_the_call_alone():
    problem = a_problem("SELECT count(*)")
    database = open_database(problem)
    for sql in ("SELECT * FROM read_csv('/etc/passwd')", "DROP TABLE books", "x" * 10_000, "SELECT repeat('x', 10)"):
        with pytest.raises(ValueError):
            database.query(sql)
    database.query(problem.answer)
    assert database.get_reward() == 1.0


def test_a_long_result_is_cut():
    database = open_database(a_problem("SELECT count(*)"))
    table = database.describe().partition("(")[0]
    lines = database.query(f"SELECT a.* FROM {table} a, {table} b").splitlines()
    assert len(lines) == 12
    assert lines[-1].endswith("rows more")


@pytest.mark.parametrize(
    ("names", "rows", "shown"),
    [
        (["n"], [(3,)], "3"),
        (["n"], [(None,)], "None"),
        (["a", "b"], [("x", 1), ("y", 2)], "a | b\nx | 1\ny | 2"),
        (["a"], [], "no rows"),
        (["a"], [("x" * 60,)], "x" * 39 + "…"),
    ],
)
def test_results_are_shown_as_lines(names, rows, shown):
    assert show(names, rows) == shown


@pytest.mark.parametrize("row", [{}, {"theme": "zoo", "naming": "1", "rows": "1", "answer": "SELECT 1"}])
def test_a_row_that_makes_no_database_is_refused(row):
    with pytest.raises(ValueError, match="a database needs theme"):
        SqlDatabase().reset(**row)


def test_a_right_query_with_one_result_whatever_the_rows_are_is_refused():
    with pytest.raises(ValueError, match="same result whatever"):
        SqlDatabase().reset(theme="library", naming="1", rows="1", answer="SELECT 1")


def test_the_tools_are_describe_and_query():
    assert [tool.name for tool in tools_of(SqlDatabase())] == ["describe", "query"]


def test_a_demonstration_looks_asks_and_says():
    task = make_task("sql", **SMALL)
    for problem in task.train[:8]:
        messages = demonstrate(problem)
        assert [message["role"] for message in messages] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "tool",
            "assistant",
        ]
        assert messages[-1]["content"] == messages[-2]["content"]
        database = open_database(problem)
        (asked,) = messages[3]["tool_calls"]
        database.query(**asked["function"]["arguments"])
        assert database.get_reward() == 1.0


@pytest.mark.parametrize(("name", "value"), [("num_problems", 1), ("num_problems", 20_000), ("template", "Well?")])
def test_a_setting_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=r"num_problems|question"):
        SqlSettings(**{name: value}).make_task()
