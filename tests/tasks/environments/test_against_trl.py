"""The same environment and the same calls in TRL's own loop and here."""

import json
from types import SimpleNamespace

import pytest

from tests.tasks.environments import games
from tests.tasks.environments.scenes import opened, tell

CALLS = [("guess", '{"number": 3}'), ("give_up", "{}"), ("fly", '{"to": "the moon"}'), ("guess", '{"number": 7}')]


class Stop(Exception):
    """Ends TRL's loop once its messages are made: what follows needs a tokenizer."""


@pytest.mark.slow
def test_the_messages_are_those_of_trls_loop():
    grpo = pytest.importorskip("trl.trainer.grpo_trainer")
    game = games.Guess()
    opening = game.reset(prompt=[{"role": "user", "content": "Play."}], answer="7", problem_id="p1")
    theirs = _messages_of_trl(grpo.GRPOTrainer, game)
    with opened("Guess", "7") as (episode,):
        assert episode.opening == opening
        reply = tell(episode, "\n".join(f"CALL {name} {arguments}" for name, arguments in CALLS))
        assert list(reply.messages) == theirs
        outcome = episode.finish()
    assert outcome.reward == game.get_reward() == 1.0
    assert vars(outcome.view.unseal()) == vars(game)


def _messages_of_trl(trainer, game):
    def stop(messages):
        raise Stop

    tools = {"guess": game.guess, "give_up": game.give_up}
    held = SimpleNamespace(
        max_tool_calling_iterations=1, _sync_tool_dicts=[tools], _async_tool_dicts=[{}], _get_tool_suffix_ids=stop
    )
    calls = [
        {"type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}
        for name, arguments in CALLS
    ]
    completions = [[{"role": "assistant", "content": "", "tool_calls": calls}]]
    with pytest.raises(Stop):
        trainer._tool_call_loop(held, [[]], [[1]], [[2]], completions, None, None, {})
    return completions[0][1:]
