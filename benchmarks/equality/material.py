"""The inputs that both states share: a tiny model, a log that it drew, rows as logs write them, a reward.

A program of its own: `python -m benchmarks.equality.material FOLDER`. It imports nothing of klimb.
"""

import json
import string
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END_TOKEN = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REWARD = '''
def share_of_letters(prompt, response, answer, metadata):
    """A reward that a random model earns now and then."""
    return sum(character.isalpha() for character in response) / max(1, len(response))
'''
NUM_QUESTIONS, NUM_ANSWERS, NUM_TOKENS = 10, 4, 6


def make_material(folder: Path) -> None:
    """Write everything; the same bytes each time."""
    model, tokenizer = make_tiny_model(folder / "tiny-model", seed=0)
    make_tiny_model(folder / "other-model", seed=0, noise=0.03)
    write_rows(folder / "log.jsonl", log_rows(model, tokenizer))
    write_rows(folder / "pairs.jsonl", pair_rows())
    write_rows(folder / "questions.jsonl", ({"question": f"Say {n}", "answer": str(n)} for n in range(12)))
    (folder / "my_reward.py").write_text(REWARD, encoding="utf-8")
    for name, rows in KINDS_OF_ROWS.items():
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "table.csv").write_text(CSV_ROWS, encoding="utf-8")


def make_tiny_model(folder: Path, *, seed: int, noise: float = 0.0) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Write a random Llama of two layers with a token for each character; `noise` moves its weights."""
    characters = sorted(set(string.printable) - set("\t\r\x0b\x0c"))
    tokens = ["<unk>", "<|im_start|>", END_TOKEN, *characters]
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        # Larger than the default 0.02, so that distributions are far from uniform and mistakes show.
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def log_rows(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterable[Mapping[str, Any]]:
    """Answers that the tiny model draws, with token ids and log-probabilities; the reward is 0 or 1, by vowels."""
    generator = torch.Generator().manual_seed(0)
    for number in range(NUM_QUESTIONS):
        question = f"question {number}"
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        prompt_ids = tokenizer.encode(text, add_special_tokens=False)
        for index in range(NUM_ANSWERS):
            ids, log_probs = draw_answer(model, prompt_ids, generator)
            response = tokenizer.decode([token for token in ids if token != tokenizer.eos_token_id])
            yield {
                "id": f"row-{number}-{index}",
                "group": f"group-{number}",
                "prompt": question,
                "response": response,
                "reward": float(any(character in "aeiouAEIOU" for character in response)),
                "model": "tiny",
                "finish_reason": "stop" if ids[-1] == tokenizer.eos_token_id else "length",
                "created_at": 1_700_000_000 + number,
                "prompt_token_ids": prompt_ids,
                "token_ids": ids,
                "log_probs": log_probs,
                "temperature": 1.0,
                "top_p": 1.0,
            }


@torch.no_grad()
def draw_answer(
    model: LlamaForCausalLM, prompt_ids: list[int], generator: torch.Generator
) -> tuple[list[int], list[float]]:
    """Draw tokens until the end token or `NUM_TOKENS`, with the log-probability of each."""
    ids: list[int] = []
    log_probs: list[float] = []
    while len(ids) < NUM_TOKENS and (not ids or ids[-1] != model.config.eos_token_id):
        logits = model(torch.tensor([[*prompt_ids, *ids]])).logits[0, -1].double()
        log_p = logits.log_softmax(-1)
        token = int(torch.multinomial(log_p.exp(), 1, generator=generator))
        ids.append(token)
        log_probs.append(float(log_p[token]))
    return ids, log_probs


def pair_rows() -> Iterable[Mapping[str, Any]]:
    """Answers to imitate."""
    return ({"prompt": f"What is {n}+1?", "response": str(n + 1)} for n in range(8))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> None:
    """Write one object a line; a text stands as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


QUESTION = [{"role": "user", "content": "2 + 2?"}]
TOKENS = [{"token": "4", "logprob": -0.5, "bytes": [52]}, {"token": "!", "logprob": -0.25, "bytes": [33]}]


def _chat_row(number: int, **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "4!"}
    return {
        "request": {"messages": QUESTION, "temperature": 1, "top_p": 1},
        "response": {
            "id": f"chatcmpl-{number}",
            "model": "m-1",
            "created": 1_700_000_000,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        },
    }


def _kto_row(number: int, label: Any, **more: Any) -> dict[str, Any]:
    row = {"id": f"k{number}", "prompt": f"{number}?", "completion": f"it is {number}", "label": label}
    return {**row, "user": "ann", **more}


KINDS_OF_ROWS: Mapping[str, tuple[Mapping[str, Any] | str, ...]] = {
    "kto": (
        *(_kto_row(number, number % 2 == 0) for number in range(6)),
        _kto_row(6, None),
        _kto_row(7, "maybe"),
        _kto_row(8, True, completion=7),
        _kto_row(9, True, prompt=[{"role": "wizard", "content": "x"}]),
        {"prompt": "no completion", "label": True},
        _kto_row(0, True),
        _kto_row(1, True),
        "{not json",
        "[1, 2]",
        "",
    ),
    "openai": (
        _chat_row(0),
        _chat_row(1, logprobs={"content": TOKENS}),
        _chat_row(2, logprobs={"content": TOKENS[:1]}),
        _chat_row(3, finish_reason="tool_calls", message={"role": "assistant", "tool_calls": [{"id": "x"}]}),
        {"request": {"messages": QUESTION}, "response": {"error": {"message": "overloaded"}}},
        {"request": {"messages": QUESTION}, "response": {"choices": []}},
        {"response": _chat_row(4)["response"]},
        _chat_row(5, logprobs={"content": [{"token": "4!", "logprob": 0.5, "bytes": None}]}),
    ),
    "vllm": (
        _chat_row(0, token_ids=[5, 6], logprobs={"content": TOKENS}),
        _chat_row(1, token_ids=[5, 6, 7], logprobs={"content": TOKENS}),
        _chat_row(2, token_ids=[-1, 6], logprobs={"content": TOKENS}),
        _chat_row(3, token_ids=["a", 6]),
        _chat_row(4, token_ids=[5, 6]),
        _chat_row(5),
        _chat_row(6, meta_info={"output_token_logprobs": [[-0.1, 5, None], [-0.2, 6, None]]}),
        _chat_row(7, meta_info={"output_token_logprobs": [[-0.1]]}),
    ),
    "preference": (
        {"prompt": "2+2?", "chosen": "4", "rejected": "5", "id": "p0"},
        {
            "chosen": [*QUESTION, {"role": "assistant", "content": "4"}],
            "rejected": [*QUESTION, {"role": "assistant", "content": "3"}],
        },
        {
            "chosen": [*QUESTION, {"role": "assistant", "content": "4"}],
            "rejected": [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}],
        },
        {"prompt": "3+3?", "chosen": "6", "rejected": None},
    ),
    "prompt-completion": (
        {"prompt": "2+2?", "completion": "4"},
        {"messages": [*QUESTION, {"role": "assistant", "content": "4"}]},
        {"messages": QUESTION},
        {"prompt": 7, "completion": "4"},
    ),
    "verl": (
        {
            "data_source": "gsm8k",
            "prompt": QUESTION,
            "reward_model": {"ground_truth": "4"},
            "responses": ["4", "5"],
            "rewards": [1.0, 0.0],
            "uid": "v0",
        },
        {"data_source": "gsm8k", "prompt": QUESTION, "responses": ["4", "5"], "rewards": [1.0]},
        {"data_source": "gsm8k", "prompt": QUESTION, "reward_model": {"ground_truth": "4"}},
        {"data_source": "gsm8k", "prompt": QUESTION, "response": "4", "score": "high"},
    ),
    "langfuse": (
        {
            "id": "o1",
            "traceId": "t1",
            "type": "GENERATION",
            "input": {"messages": QUESTION},
            "output": "4",
            "model": "m-1",
            "startTime": "2024-01-01T00:00:00Z",
            "userId": "bob",
        },
        {"id": "o2", "traceId": "t1", "type": "SPAN", "input": "x", "output": "y"},
        {"id": "o3", "traceId": "t2", "type": "GENERATION", "input": json.dumps(QUESTION), "output": None},
        {
            "id": "o4",
            "traceId": "t3",
            "type": "GENERATION",
            "input": {"messages": QUESTION, "tools": [1]},
            "output": "4",
        },
    ),
    "langfuse-scores": (
        {
            "id": "s1",
            "observationId": "o1",
            "name": "helpful",
            "value": 1,
            "dataType": "BOOLEAN",
            "createdAt": "2024-01-02T00:00:00Z",
        },
        {"id": "s2", "traceId": "t9", "name": "helpful", "value": 0},
        {"id": "s3", "traceId": "t1", "name": "tone", "stringValue": "rude", "dataType": "CATEGORICAL"},
    ),
    "stars": tuple(
        {"id": f"r{n}", "prompt": f"{n}?", "response": "fine", "reward": stars, "created_at": 1_700_000_000}
        for n, stars in enumerate([1, 2, 3, 4, 5, 5, 6, None, "5", 1e9])
    ),
    "feedback": (
        {"completion_id": "r0", "value": 1, "user": "ann", "created_at": 1_700_000_100, "feedback_id": "f0"},
        {"completion_id": "r1", "value": "up", "created_at": 1_700_000_100, "feedback_id": "f1"},
        {"completion_id": "r2", "value": 0.5, "created_at": 1_700_000_100, "feedback_id": "f2"},
        {"value": 1},
        {"completion_id": "nobody", "value": 0, "created_at": "yesterday"},
    ),
}
"""Good and bad rows of each kind."""

CSV_ROWS = """prompt,response,reward,group,created_at
2+2?,4,1,a,1700000000
2+2?,5,0,a,1700000000
"[{""role"": ""user"", ""content"": ""3+3?""}]",6,1,b,1700000000
,7,1,c,1700000000
4+4?,8,many,d,1700000000
5+5?,10,,e,1700000000
"""


if __name__ == "__main__":
    make_material(Path(sys.argv[1]))
