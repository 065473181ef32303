"""Conversations with environments, as TRL's contract has them: what the policy is told, and what comes of it."""

import ast
import json
import os
import random

import pytest

from klimb.own_parts import OBJECT, OwnObject, have_objects
from klimb.tasks import from_file, make_task
from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.environments.environments import row_of
from tests.tasks.environments import games
from tests.tasks.environments.scenes import GAMES, LineFormat, contents, environments, opened, problem, tell


def test_a_game_is_opened_played_and_paid():
    with environments("Guess") as running:
        (episode,) = running.open([problem("7", low="4", color="red")], [0])
        assert episode.opening == " I think of a number from 4 to 10."
        reply = tell(episode, 'I try.\nCALL guess {"number": 3}')
        assert reply.messages == ({"role": "tool", "name": "guess", "content": "higher"},)
        assert (reply.content, reply.errors, reply.is_over, reply.call_error) == ("I try.", ("",), False, "")
        assert [(call.name, json.loads(call.arguments)) for call in reply.calls] == [("guess", {"number": 3})]
        assert contents(tell(episode, 'CALL guess {"number": 9}\nCALL guess {"number": 7}')) == ["lower", "right"]
        last = tell(episode, "Done.")
        assert (last.messages, last.is_over, last.reward) == ((), True, None)
        outcome = episode.finish()
    assert (outcome.reward, outcome.error) == (1.0, "")
    assert (outcome.num_calls, outcome.num_failed_calls, outcome.num_slow_calls) == (3, 0, 0)


def test_reset_gets_the_columns_of_the_problem_as_trl_gives_those_of_a_dataset():
    with environments("Guess") as running:
        (episode,) = running.open([problem("7", color="red")], [0])
        game = episode.finish().view.unseal()
    assert game.columns == {"color": "red", "problem_id": "p1", "prompt": [{"role": "user", "content": "Play."}]}
    assert game.target == 7


def test_the_tools_are_the_public_methods_and_functions_besides():
    with environments("Guess", tools=(f"{GAMES}.search",)) as running:
        (episode,) = running.open([problem()], [0])
        assert [tool["function"]["name"] for tool in running.tools] == ["search", "give_up", "guess"]
        assert episode.tools == running.tools
        assert running.has_reward
        assert contents(tell(episode, 'CALL search {"query": "x"}')) == ["found x"]


def test_calls_are_read_in_the_models_own_format():
    told = EnvironmentSettings(factory=f"{GAMES}.Guess", call_format="hermes")
    with Environments(told, call_format=told.find_format("")) as running:
        (episode,) = running.open([problem("7")], [0])
        call = '<tool_call>\n{"name": "guess", "arguments": {"number": 7}}\n</tool_call>'
        reply = tell(episode, f"I know it.\n{call}<|im_end|>")
        assert (reply.content, contents(reply)) == ("I know it.", ["right"])
        unread = tell(episode, call.replace("}}", "}"))
        assert unread.call_error.startswith("a tool call could not be read")
        assert unread.errors == (unread.call_error,) and not unread.is_over


class PaysByTurns:
    trusted = True

    def reset(self, **row):
        self.row = row

    def get_turn_reward(self):
        return 1.0


def test_rewards_of_turns_are_rewards_and_the_row_has_the_problems_own_seed():
    told = EnvironmentSettings(call_format="hermes")
    with Environments(told, call_format=told.find_format(""), factory=PaysByTurns) as running:
        assert running.has_reward
        made = make_task("environment", num_problems=2, held_out_fraction=0.5).train[0]
        (episode,) = running.open([made], [0])
        row = episode.finish().view.unseal().row
    assert row["environment_seed"] == made.problem_id.removeprefix("seed-")


def test_tools_alone_need_no_environment():
    with environments("", tools=(f"{GAMES}.search",)) as running:
        (episode,) = running.open([problem()], [0])
        assert (episode.opening, running.has_reward) == ("", False)
        assert contents(tell(episode, 'CALL search {"query": "x"}')) == ["found x"]
        assert tell(episode, "so").is_over
        outcome = episode.finish()
    assert (outcome.reward, outcome.view, outcome.error) == (None, None, "")


def test_two_tools_of_one_name_are_refused():
    with (
        pytest.raises(ValueError, match="two tools are called 'guess'"),
        environments("Guess", tools=(f"{GAMES}.guess",)),
    ):
        pass


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("CALL give_up", "never give up"),
        ("CALL fly", "Tool fly not found."),
        ("CALL reset", "Tool reset not found."),
        ("CALL get_reward", "Tool get_reward not found."),
        ("CALL __init__", "Tool __init__ not found."),
        ("CALL guess", "guess: missing argument 'number' (integer)"),
        ("CALL guess [3]", "guess: expected an object of arguments by name, got [3]"),
        ("CALL guess {number", "The arguments are no JSON: "),
        ("CALL", "a call needs a name"),
    ],
)
def test_a_call_that_fails_is_answered_with_an_error_as_trl_writes_it(call, error):
    with opened("Guess", "7") as (episode,):
        reply = tell(episode, call)
        (message,) = reply.messages
        shown = ast.literal_eval(message["content"])["error"]
        assert shown.startswith(error) and reply.errors == (shown,)
        assert message["role"] == "tool"
        assert not reply.is_over
        assert contents(tell(episode, 'CALL guess {"number": 7}')) == ["right"]
        outcome = episode.finish()
    assert outcome.reward == 1.0 and outcome.error == ""
    is_unread = call == "CALL"
    assert (outcome.num_failed_calls, outcome.num_unread_turns) == (int(not is_unread), int(is_unread))


def test_a_turn_of_which_some_calls_can_be_read_is_answered_for_all():
    with opened("Guess", "7") as (episode,):
        reply = tell(episode, 'CALL guess {"number": 3}\nCALL')
    assert contents(reply) == ["higher", "{'error': 'a call needs a name'}"]
    assert reply.errors == ("", "a call needs a name") and reply.call_error == "a call needs a name"


def test_calls_of_one_turn_run_in_order_and_those_that_wait_run_together():
    with opened("Waiting", "") as (episode,):
        calls = [("slow", 0.4), ("bad", 0.2), ("quick", 0.1)]
        text = "\n".join(f'CALL wait {{"name": "{name}", "seconds": {seconds}}}' for name, seconds in calls)
        reply = tell(episode, f"{text}\nCALL now")
        assert contents(reply) == ["slow", "{'error': 'bad wait'}", "quick", "now"]
        assert all(0.4 <= seconds < 0.69 for seconds in reply.seconds[:3])
        outcome = episode.finish()
    assert outcome.view.unseal().order == ["now", "quick", "bad", "slow"]
    assert outcome.reward == 4.0


def test_a_call_that_waits_too_long_costs_that_call_alone():
    with opened("Waiting", "", call_seconds=0.5) as (episode,):
        reply = tell(episode, 'CALL wait {"name": "slow", "seconds": 30}\nCALL wait {"name": "quick", "seconds": 0.1}')
        assert contents(reply) == ["{'error': 'took longer than 0.5 s'}", "quick"]
        assert episode.finish().num_slow_calls == 1


def test_a_user_answers_a_turn_without_calls_until_there_is_nothing_to_say():
    with opened("Talker", "") as (episode,):
        assert episode.opening == ""
        first = tell(episode, "hello")
        assert first.messages == ({"role": "user", "content": "you said hello"},)
        assert (first.is_over, first.reward, len(first.seconds)) == (False, 0.5, 1)
        assert tell(episode, "again").reward == 1.0
        last = tell(episode, "and again")
        assert (last.messages, last.is_over, last.reward) == ((), True, 1.5)
        assert episode.finish().reward is None


def test_done_ends_a_conversation_and_the_results_are_still_there():
    with opened("Talker", "") as (episode,):
        reply = tell(episode, "CALL hang_up")
        assert (contents(reply), reply.is_over) == (["bye"], True)


def test_a_tool_called_done_ends_nothing():
    with opened("Finisher", "") as (episode,):
        reply = tell(episode, "CALL done")
        assert (contents(reply), reply.is_over) == (["noted"], False)


def test_methods_that_only_klimb_calls_are_no_tools():
    with environments("Talker") as running:
        assert [tool["function"]["name"] for tool in running.tools] == ["hang_up"]


def test_a_user_who_raises_costs_the_sample():
    with opened("Talker", "", "") as (episode, other):
        reply = tell(episode, "insult")
        assert (reply.messages, reply.is_over) == ((), True)
        assert episode.finish().error == "RuntimeError: I do not talk to you"
        assert contents(tell(other, "hello")) == ["you said hello"]


def test_the_same_seed_and_the_same_texts_give_the_same_messages():
    texts = ["CALL roll", "CALL roll\nCALL roll"]

    def play(running, seed):
        (episode,) = running.open([problem()], [seed])
        heard = [episode.opening, *(contents(tell(episode, text)) for text in texts)]
        episode.close()
        return heard

    with environments("Dice") as running:
        first, again, other = play(running, 5), play(running, 5), play(running, 6)
    with environments("Dice") as running:
        between = [play(running, seed) for seed in (6, 5)]
    assert first == again == between[1]
    assert other == between[0]
    assert first[0].split("[")[0] != other[0].split("[")[0] and first[1:] != other[1:]


def test_environments_that_share_a_process_draw_numbers_of_their_own():
    def play(max_processes):
        with environments("Dice", max_processes=max_processes) as running:
            episodes = running.open([problem()] * 3, [1, 2, 3])
            turns = [[contents(tell(episode, "CALL roll")) for episode in episodes] for _ in range(3)]
            return [episode.opening for episode in episodes], turns

    assert play(1) == play(3)


def test_reset_is_told_the_seed_where_it_takes_one():
    with environments("Seeded") as running:
        plain, column = running.open([problem(), problem(seed="of the data")], [5, 6])
        assert (plain.opening, column.opening) == ("5", "of the data")


def test_a_trusted_environment_lives_in_this_process():
    for running in (
        environments("Here"),
        Environments(EnvironmentSettings(), call_format=LineFormat(), factory=games.Here),
    ):
        with running:
            (episode,) = running.open([problem()], [3])
            (again,) = running.open([problem()], [3])
            assert episode.opening == again.opening == f"{os.getpid()} {random.Random(3).random()}"
            assert contents(tell(episode, "CALL look")) == contents(tell(again, "CALL look"))
            episode.close()


def test_an_object_of_this_program_is_held_by_a_fork_of_it():
    count = 3

    class Local:
        def reset(self):
            return f"{os.getpid()}"

        def look(self) -> str:
            """Look."""
            return f"{count}"

    name = f"{OBJECT}Local"
    with have_objects({name: OwnObject(Local, "0" * 16)}):
        for running in (
            Environments(EnvironmentSettings(factory=name), call_format=LineFormat()),
            Environments(EnvironmentSettings(), call_format=LineFormat(), factory=Local),
        ):
            with running:
                (episode,) = running.open([problem()], [0])
                assert int(episode.opening) != os.getpid()
                assert contents(tell(episode, "CALL look")) == ["3"]


def test_a_class_of_a_module_is_imported_by_the_process_that_forks():
    running = Environments(EnvironmentSettings(), call_format=LineFormat(), factory=games.Guess)
    with running:
        assert running._server._process is not None
        (episode,) = running.open([problem("7")], [0])
        assert contents(tell(episode, 'CALL guess {"number": 7}')) == ["right"]


def test_a_function_without_parameters_is_a_factory():
    with environments("make_guess") as running:
        assert running.open([problem("7")], [0])[0].opening == " I think of a number from 1 to 10."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoReset", "makes NoReset, which has no method `reset`"),
        ("Undescribed", "act"),
        ("Missing", "has no 'Missing'"),
        ("not_callable", "expected a class, or a function without parameters"),
        ("Exits", r"^environment\.factory = .*Exits': what is made there ended its process \(exit code 7\)"),
        ("Stubborn", r"what is made there took longer than 1 s and could not be interrupted"),
        ("Slow", r"took longer than 1 s to be made; .* raise environment\.call_seconds"),
    ],
)
def test_what_is_no_environment_is_refused_before_anything_is_drawn(name, message):
    with pytest.raises(ValueError, match=message), environments(name, call_seconds=1):
        pass


def test_what_is_wrong_with_a_tool_is_said_of_its_own_key():
    with pytest.raises(ValueError, match=r"^environment\.tools = .*NoTool\(\) raised OSError: shut"):
        environments("Guess", tools=(f"{GAMES}.NoTool",)).__enter__()


def test_a_column_that_is_missing_is_named_with_those_there_are():
    with environments("Wants") as running:
        with pytest.raises(ValueError, match=r"'target'; a problem has color, problem_id, answer, prompt"):
            running.open([problem(color="red")], [0])
        (episode,) = running.open([problem(target="red")], [0])
        assert episode.error == ""


def test_a_reward_that_is_no_number_costs_the_sample():
    with opened("BadReward", "") as (episode,):
        outcome = episode.finish()
    assert outcome.reward is None
    assert outcome.error == "ValueError: get_reward returned str 'much', expected a finite number"


def test_several_conversations_are_finished_together():
    with environments("Guess") as running:
        episodes = running.open([problem("7"), problem("8")], [0, 1])
        tell(episodes[1], 'CALL guess {"number": 8}')
        assert [outcome.reward for outcome in running.finish(episodes)] == [0.0, 1.0]
        with pytest.raises(ValueError, match="is finished"):
            episodes[0].respond("more")


def test_an_environment_that_cannot_be_closed_before_it_is_reset_is_one():
    with opened("Unclosed", "") as (episode,):
        assert episode.error == ""


def test_a_copy_is_made_where_it_is_wanted():
    for with_views in (True, False):
        told = EnvironmentSettings(factory=f"{GAMES}.Guess")
        with Environments(told, call_format=LineFormat(), with_views=with_views) as running:
            (outcome,) = running.finish(running.open([problem()], [0]))
            assert (outcome.reward, outcome.view is not None) == (0.0, with_views)


def test_a_conversation_that_is_asked_after_the_end_is_lost_and_raises_nothing():
    with opened("Guess", "7") as (episode,):
        pass
    assert tell(episode, 'CALL guess {"number": 7}').is_over
    assert episode.finish().error == "the environments were closed"
    episode.close()


def test_there_is_a_seed_for_each_problem_and_something_to_talk_to():
    with environments("Guess") as running, pytest.raises(ValueError, match="got 1 seeds for 2 problems"):
        running.open([problem()] * 2, [0])
    with pytest.raises(ValueError, match=r"neither environment\.factory nor environment\.tools"):
        Environments(EnvironmentSettings(), call_format=LineFormat())
    with pytest.raises(ValueError, match="not running"):
        environments("Guess").open([problem()], [0])


def test_reset_gets_the_columns_of_a_file_as_the_file_has_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": [{"role": "user", "content": "Go."}], "number": 7, "tags": ["a"], "deep": {"x": 1}}\n')
    (found,) = from_file(path, question="prompt", answer="", reward="none", held_out_fraction=0.0).train
    row = row_of(found)
    assert (row["number"], row["tags"], row["deep"]) == (7, ["a"], {"x": 1})
    assert (row["prompt"], row["problem_id"]) == ([{"role": "user", "content": "Go."}], found.problem_id)
