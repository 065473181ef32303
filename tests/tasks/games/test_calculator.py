import pytest

from klimb.tasks import Response, make_task
from klimb.tasks.games.calculator import Calculator, CalculatorSettings, demonstrate
from klimb.tasks.games.messages import call, result, say
from klimb.tasks.tools import check_arguments, tools_of
from tests.tasks.test_arithmetic import classes


def respond(text, *messages, finish_reason="stop"):
    return Response(text=text, num_tokens=5, finish_reason=finish_reason, messages=messages)


def test_the_problems_have_an_environment_and_the_answers_that_python_computes():
    task = make_task("calculator", operators="+-*", num_terms=3, num_problems=200)
    assert task.environment is Calculator
    for problem in (*task.train, *task.held_out):
        assert problem.answer == str(eval(problem.problem_id))
        assert Calculator().calculate(problem.problem_id) == problem.answer
        assert problem.messages[-1]["content"] == f"What is {problem.problem_id}?"


@pytest.mark.parametrize("settings", [{}, {"operators": "+-*", "num_terms": 3}, {"operators": "+", "digits": 1}])
def test_no_problem_is_on_both_sides_in_any_order(settings):
    task = make_task("calculator", **settings)
    assert task.train
    assert task.held_out
    assert not classes(task.train) & classes(task.held_out)


def test_the_same_seed_has_the_same_problems_and_another_seed_others():
    assert CalculatorSettings(seed=1).make_task() == CalculatorSettings(seed=1).make_task()
    assert CalculatorSettings(seed=1).make_task().train != CalculatorSettings(seed=2).make_task().train


def test_the_reward_is_for_the_number_that_the_last_turn_ends_with():
    task = make_task("calculator")
    problem = task.train[0]
    played = (call("calculate", expression=problem.problem_id), result("calculate", problem.answer))
    right = task.score(problem, respond(f"It is {problem.answer}.", *played, say(f"It is {problem.answer}.")))
    assert (right.reward, right.correct) == (1.0, True)
    wrong = task.score(problem, respond("It is 12.", *played, say("It is 12.")))
    assert (wrong.reward, wrong.correct) == (0.0, False)
    without_a_call = task.score(problem, respond(problem.answer, say(problem.answer)))
    assert without_a_call.reward == 1.0


def test_neither_a_call_nor_the_question_nor_a_cut_answer_is_an_answer():
    task = make_task("calculator")
    problem = task.train[0]
    asked = call("calculate", expression=problem.answer)  # the answer stands in it, and is not given
    assert task.score(problem, respond(problem.answer, asked)).reward == 0.0
    assert task.score(problem, respond(problem.problem_id)).reward == 0.0
    assert task.score(problem, respond(problem.answer, finish_reason="length")).reward == 0.0


def test_a_guess_of_the_last_digits_earns_nothing():
    task = make_task("calculator")
    for problem in task.train[:50]:
        assert task.score(problem, respond(problem.answer[1:])).reward == 0.0


def test_the_tool_says_what_it_takes():
    (tool,) = tools_of(Calculator())
    assert tool.name == "calculate"
    assert tool.parameters["properties"] == {
        "expression": {"type": "string", "description": "Numbers, + - * / and parentheses."}
    }
    assert check_arguments(tool, {"expression": "1+1"}) == ""
    assert check_arguments(tool, {"expression": 2})


def test_a_call_that_fails_is_no_crash_and_leaves_nothing_behind():
    calculator = Calculator()
    calculator.reset(answer="5", seed=3, prompt=[])
    for hostile in ("os.system('ls')", "9" * 10_000, "(" * 10_000, "2**99999", "\0", "1/0"):
        with pytest.raises(ValueError):
            calculator.calculate(hostile)
    assert calculator.calculate("2*3") == "6"


def test_a_demonstration_earns_the_reward():
    task = make_task("calculator")
    for problem in task.train[:20]:
        conversation = demonstrate(problem)
        assert conversation[: len(problem.messages)] == problem.messages
        said = conversation[len(problem.messages) :]
        assert [message["role"] for message in said] == ["assistant", "tool", "assistant"]
        assert task.score(problem, respond(said[-1]["content"], *said)).reward == 1.0


@pytest.mark.parametrize(("name", "value"), [("digits", 0), ("operators", "/"), ("num_terms", 1), ("wording", "What?")])
def test_a_setting_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        CalculatorSettings(**{name: value})
