"""A model that opens locks by calls most of the time: what both sides train in the comparison of their speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl.chat_template_utils import qwen2_5_chat_template

from benchmarks.environments.lock import Lock, make_rows
from klimb.policies.loading import resolve_source
from klimb.tasks.tools import tools_of

LEARNING_RATE = 1e-4


def play(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation that halves what is left until the lock is open or jammed."""
    lock = Lock()
    asked = row["prompt"][-1]["content"] + str(lock.reset(**row))
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    low, high, result = 1, 9, ""
    while result != "open" and lock.num_tries < lock.most_tries:
        number = (low + high) // 2
        arguments = {"to": number}
        result = lock.turn(**arguments)
        low, high = (number + 1, high) if result == "higher" else (low, number - 1)
        messages.append(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "turn", "arguments": arguments}}],
            }
        )
        messages.append({"role": "tool", "name": "turn", "content": result})
    return [*messages, {"role": "assistant", "content": "Done."}]


def teach(source: str, folder: Path, *, num_conversations: int = 24) -> None:
    """Save a model that has seen conversations with the lock once each, with a chat template that TRL knows.

    Args:
        source: name or folder of a ChatML model.
        folder: for the taught one.
        num_conversations: that it is shown.
    """
    torch.manual_seed(0)
    path = str(resolve_source(source))
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    tokenizer.chat_template = qwen2_5_chat_template
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for row in make_rows(num_conversations):
        ids, start = read(tokenizer, play(row))
        labels = ids.clone()
        labels[:, :start] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, int]:
    """Return the ids of a conversation, `[1, tokens]`, and where the first answer begins."""
    tools = [dict(tool.schema) for tool in tools_of(Lock())]
    told = {"tools": tools, "tokenize": False}
    asked = str(tokenizer.apply_chat_template(list(messages[:1]), add_generation_prompt=True, **told))
    whole = str(tokenizer.apply_chat_template(list(messages), **told))
    ids = tokenizer.encode(whole, add_special_tokens=False)
    return torch.tensor([ids]), len(tokenizer.encode(asked, add_special_tokens=False))
