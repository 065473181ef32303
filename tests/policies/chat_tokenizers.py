"""Tokenizers for chat templates: byte-level BPE with a few merges, and the control tokens that a template writes."""

import re
from functools import lru_cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "It is five. What is two and three? And twice that? And half of it? The result is five.",
    "Let me add two and three. Answer in few words. user assistant system tool function name arguments",
    '{"name": "add", "arguments": {"x": "two", "y": 2}} <tool_call> </tool_call> <tool_response> <think> </think>',
]

CONTROL = re.compile(
    r"<\|[A-Za-z_0-9/]+\|>|<\uff5c[^\uff5c>]+\uff5c>|<\|[a-z_]+>|<[a-z_]+\|>|<start_of_turn>|<end_of_turn>|<start_of_image>"
    r"|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|\[TOOL_CALLS\]|\[ARGS\]|\[gMASK\]|<sop>"
)


def control_tokens_in(template: str) -> list[str]:
    """Return the texts in a template that models of its family have as control tokens, in their order."""
    return list(dict.fromkeys(CONTROL.findall(template)))


@lru_cache(maxsize=1)
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def chat_tokenizer(template: str, *, bos: str = "<s>", eos: str = "</s>") -> PreTrainedTokenizerFast:
    """Return a tokenizer with this chat template and the control tokens that it writes."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=[token for token in control_tokens_in(template) if token not in (bos, eos)],
    )
    tokenizer.chat_template = template
    return tokenizer
