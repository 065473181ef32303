"""One environment in TRL and here: the same turns give the same results, rewards, tokens and masks."""

from pathlib import Path

import pytest
from tests.tiny_model import save_tiny_model
from transformers import AutoConfig, AutoTokenizer

from benchmarks.environments.acting import ODD_OPENINGS, OPENINGS, ActingSampler, Actor
from benchmarks.environments.klimb_side import run_tables, train_in_klimb, write_rows
from benchmarks.environments.lock import make_rows
from benchmarks.environments.talks import differences

TEMPLATE = Path(__file__).parents[2] / "examples" / "templates" / "smollm2-tools.jinja"
NUM_TURNS = 6


def save_model(folder, template):
    """A tiny random model with room for the schemas of tools, and a chat template that offers them."""
    save_tiny_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.max_position_embeddings = 8192
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_here(model, folder, actor, *, rows, num_samples, num_turns=NUM_TURNS, num_steps=1):
    tables = run_tables(
        model,
        write_rows(rows, folder / "locks.jsonl"),
        sampling={"num_prompts": len(rows), "num_samples": num_samples, "max_new_tokens": 200},
        environment={"max_turns": num_turns},
        training={"num_steps": num_steps},
    )
    return train_in_klimb(tables, folder / "run", sampler=lambda policy, max_batch: ActingSampler(policy, actor))


def train_there(model, actor, *, rows, num_samples, num_turns=NUM_TURNS, num_steps=1):
    pytest.importorskip("trl")
    from benchmarks.environments.trl_side import train_in_trl

    return train_in_trl(
        model,
        rows,
        draw=actor.draw,
        num_generations=num_samples,
        max_completion_length=4000,
        max_tool_calling_iterations=num_turns - 1,
        max_steps=num_steps,
    )


def test_an_environment_in_trls_form_runs_unchanged(tmp_path):
    actor = Actor(save_model(tmp_path / "model", TEMPLATE.read_text()))
    # Row 1 has the number 5: the first sample opens the lock at once, the second looks and then tries 4 and 7.
    rows = make_rows(2)[1:]
    ((first, second),) = train_here(tmp_path / "model", tmp_path, actor, rows=rows, num_samples=2)
    assert (first.reward, first.results) == (1.0, ("open",))
    look = "A dial from 1 to 9; 0 of 3 tries."
    assert (second.reward, second.results) == (0.0, (look, "higher", "lower", "higher", "jammed"))
    assert first.num_drawn < len(first.response_ids)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two steps of three locks on either side: here, and in TRL."""
    folder = tmp_path_factory.mktemp("both")
    templates = pytest.importorskip("trl.chat_template_utils")
    openings = (*OPENINGS, *ODD_OPENINGS)
    actor = Actor(save_model(folder / "model", templates.qwen2_5_chat_template), openings)
    told = {"rows": make_rows(3), "num_samples": len(openings), "num_steps": 2}
    return train_here(folder / "model", folder, actor, **told), train_there(folder / "model", actor, **told)


def pairs_of(both, openings):
    """Both sides' conversations that begin with these turns."""
    every = (*OPENINGS, *ODD_OPENINGS)
    ours, theirs = both
    assert [len(step) for step in ours] == [len(step) for step in theirs] == [3 * len(every)] * 2
    places = [place for place in range(3 * len(every)) if every[place % len(every)] in openings]
    return [(step[place], other[place]) for step, other in zip(ours, theirs, strict=True) for place in places]


@pytest.mark.slow
def test_the_same_turns_have_the_same_tokens_masks_results_and_rewards_in_trl(both):
    pairs = pairs_of(both, OPENINGS)
    assert [differences(*pair) for pair in pairs] == [{}] * len(pairs)
    rewards = {ours.reward for ours, _ in pairs}
    assert 0.0 in rewards and len(rewards) > 2


@pytest.mark.slow
def test_a_call_that_is_no_json_ends_the_conversation_in_trl_and_is_answered_here(both):
    for ours, theirs in pairs_of(both, ODD_OPENINGS[:1]):
        assert theirs.results == () and "error" in ours.results[0]
        assert ours.response_ids[: len(theirs.response_ids)] == theirs.response_ids


@pytest.mark.slow
def test_an_argument_of_another_type_has_another_error_and_the_rest_is_the_same(both):
    for ours, theirs in pairs_of(both, ODD_OPENINGS[1:]):
        assert {*differences(ours, theirs)} == {"response_ids", "is_drawn", "results"}
        assert ours.results[1:] == theirs.results[1:]
        assert "must be integer" in ours.results[0] and "not supported between" in theirs.results[0]


@pytest.mark.slow
def test_the_calls_of_the_last_turn_are_carried_out_here_and_not_in_trl(tmp_path):
    templates = pytest.importorskip("trl.chat_template_utils")
    model = tmp_path / "model"
    actor = Actor(save_model(model, templates.qwen2_5_chat_template))
    # Row 1 has the number 5, which the first sample tries at once.
    told = {"rows": make_rows(2)[1:], "num_samples": 2, "num_turns": 1}
    (ours, *_) = train_here(model, tmp_path, actor, **told)[0]
    (theirs, *_) = train_there(model, actor, **told)[0]
    assert (ours.reward, theirs.reward) == (1.0, 0.0)
    assert (ours.response_ids, ours.is_drawn) == (theirs.response_ids, theirs.is_drawn)
