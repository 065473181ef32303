"""Files as people have them that hold what no kind reads, or whose first rows show nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, openai_row, reason_of, sample_of, samples_of, written

from klimb.experience.importing import import_rows
from klimb.experience.importing.known_forms import FORMS
from klimb.experience.store import Store


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 1}, "comparisons"),
        ({"prompt": "q", "response_a": "a", "response_b": "b", "better": "first"}, "comparisons"),
        ({"prompt": "q", "answers": [{"answer": "a", "rank": 1.0}]}, "Nectar"),
        ({"instruction": "q", "models": ["m"], "completions": [{"response": "a"}]}, "UltraFeedback"),
        ({"message_tree_id": "t", "text": "Hi", "role": "prompter"}, "OpenAssistant"),
        ({"request": {"contents": []}, "response": {"candidates": []}}, "Gemini"),
        ({"request": {"inputs": "q"}, "response": {"generated_text": "a"}}, "Text Generation Inference"),
        (
            {"id": "t", "input": {"messages": QUESTION}, "output": "a", "observations": [], "scores": []},
            "traces of Langfuse",
        ),
        ({"custom_id": "1", "method": "POST", "body": {"messages": QUESTION}}, "requests of a batch"),
        ({"prompt": QUESTION, "solution": "4"}, "prompts with their solutions"),
        ({"problem": "2 + 2?", "answer": "4", "level": 1}, "problems with their answers"),
        ({"title": "t", "mapping": {}, "create_time": 1.0}, "ChatGPT"),
    ],
)
def test_a_form_that_no_kind_reads_is_named_with_the_way_out(row: Mapping[str, Any], name: str, tmp_path: Path):
    with pytest.raises(ValueError, match=name) as refused:
        import_rows(Store(tmp_path / "store"), written(tmp_path / "rows.jsonl", [row]))
    assert any(form.advice in str(refused.value) for form in FORMS)


def test_the_way_out_of_a_log_of_helicone_works():
    row = openai_row()
    logged = {"request_body": row["request"], "response_body": row["response"]}
    sample = sample_of("openai", logged, columns={"request": "request_body", "response": "response_body"})
    assert sample.response == "4!"


def test_a_first_request_that_failed_does_not_hide_the_kind(tmp_path: Path):
    failed = {"request": {"messages": QUESTION}, "response": {"error": {"message": "too many requests"}}}
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "log.jsonl", [failed, openai_row()]))
    assert (report.kind, report.tally.num_rows_in, report.tally.num_rows_refused) == ("openai", 1, 1)


def test_a_response_that_echoes_its_prompt_is_what_stands_behind_it():
    request, choice = {"prompt": "2 + 2", "echo": True}, {"index": 0, "text": "2 + 2 = 4", "finish_reason": "stop"}
    row = {"request": request, "response": {"id": "c", "choices": [choice]}}
    assert sample_of("openai", row).response == " = 4"
    other = {**row, "request": {"prompt": "3 + 1", "echo": True}}
    assert reason_of("openai", other) == "a response with its prompt"
    with_ids = {**row, "response": {"choices": [{**choice, "token_ids": [1, 2]}]}}
    assert reason_of("vllm", with_ids) == "token ids with those of the prompt"


def test_requests_and_responses_may_be_json_text(tmp_path: Path):
    row = openai_row()
    text = {name: json.dumps(row[name]) for name in ("request", "response")}
    found = import_rows(Store(tmp_path / "store"), written(tmp_path / "log.jsonl", [text]))
    assert found.kind == "openai"
    spend = {"messages": json.dumps(QUESTION), "response": text["response"], "request_id": "r"}
    assert sample_of("openai", spend).prompt == sample_of("openai", row).prompt


def test_the_request_of_a_proxy_stands_in_for_messages_that_are_empty():
    row = {"messages": {}, "response": openai_row()["response"], "proxy_server_request": {"messages": QUESTION}}
    assert sample_of("openai", row).prompt == ({"role": "user", "content": "2 + 2?"},)


def test_a_log_that_python_wrote_into_a_table_is_no_prompt(tmp_path: Path):
    row = openai_row()
    table = tmp_path / "log.csv"
    table.write_text(f'request,response\n"{row["request"]}","{row["response"]}"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="no kind of row"):
        import_rows(Store(tmp_path / "store"), table)


def test_messages_that_are_json_text_are_messages_and_a_written_dialogue_stays_an_answer():
    asked, said = json.dumps(QUESTION), json.dumps([{"role": "assistant", "content": "4"}])
    chosen, rejected = samples_of("preference", {"prompt": asked, "chosen": said, "rejected": "5"})
    assert (chosen.response, rejected.response) == ("4", "5")
    assert chosen.prompt == rejected.prompt == ({"role": "user", "content": "2 + 2?"},)
    dialogue = json.dumps([*QUESTION, {"role": "assistant", "content": "4"}])
    assert sample_of("kto", {"prompt": "Write one.", "completion": dialogue, "label": True}).response == dialogue


def test_whole_dialogues_beside_a_conversation_are_a_pair(tmp_path: Path):
    """As distilabel's Capybara has them."""
    asked = {"role": "user", "content": "q"}
    pair = {name: [asked, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    row = {"conversation": [{"input": "q", "output": "a"}], "prompt": "q", **pair}
    report = import_rows(store := Store(tmp_path / "store"), written(tmp_path / "rows.jsonl", [row]))
    assert report.kind == "preference"
    assert [sample.response for sample in store.samples()] == ["chosen", "rejected"]


def test_two_lists_of_token_ids_that_differ_are_refused():
    meta = {"output_token_logprobs": [[-0.5, 5, None], [-0.4, 6, None]]}
    row = {"request": {"input_ids": [1]}, "response": {"text": "A", "output_ids": [5, 9], "meta_info": meta}}
    assert reason_of("vllm", row) == "two lists of token ids that differ"
    row["response"]["output_ids"] = [5]
    assert sample_of("vllm", row).response_ids == (5, 6)


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
        "system\nBe brief.\nuser\nq\nassistant\n",
        "[INST] q [/INST]",
    ],
)
def test_a_prompt_that_was_rendered_already_is_noted(text: str):
    """As verl's dumps of rollouts have them, with the marks of the template or without."""
    assert "rendered already" in sample_of("table", {"prompt": text, "response": "a"}).metadata["prompt_note"]
    row = {"prompt": text, "response": "a", "token_ids": [5], "log_probs": [-0.5], "temperature": 1, "top_p": 1}
    assert sample_of("table", row).log_mu_provenance == "estimated"
    assert sample_of("table", {**row, "prompt_token_ids": [1]}).log_mu_provenance == "sampler"


@pytest.mark.parametrize("text", ["user\nq", "What does [INST] mean?", "Explain <|im_start|>."])
def test_a_question_about_a_template_is_a_question(text: str):
    assert "prompt_note" not in sample_of("table", {"prompt": text, "response": "a"}).metadata


def test_roles_in_capitals_are_roles():
    spoken = [{"role": "USER", "content": "q"}, {"role": "Chatbot", "content": "a"}]
    assert sample_of("prompt-completion", {"messages": spoken}).response == "a"
    assert reason_of("prompt-completion", {"messages": [{"role": "Narrator", "content": "q"}]})


@pytest.mark.parametrize(
    "spoken",
    [
        [{"type": "human", "content": "q"}, {"type": "ai", "content": "a"}],
        [{"type": "human", "data": {"content": "q"}}, {"type": "ai", "data": {"content": "a"}}],
        [
            {"lc": 1, "type": "constructor", "id": ["schema", name], "kwargs": {"content": text}}
            for name, text in (("HumanMessage", "q"), ("AIMessage", "a"))
        ],
    ],
)
def test_messages_as_langchain_writes_them_are_messages(spoken: Any):
    sample = sample_of("prompt-completion", {"messages": spoken})
    assert (sample.prompt, sample.response) == (({"role": "user", "content": "q"},), "a")
