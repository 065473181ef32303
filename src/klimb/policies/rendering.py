"""Chat messages to token ids, such that no text in a message becomes a control token."""

import re
from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message

FIRST_PRIVATE_USE, LAST_PRIVATE_USE = 0xE000, 0xF8FF
"""Characters to which Unicode gives no meaning; two of them stand in for control-token text while a template runs."""


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of the messages in the tokenizer's chat template, up to where the assistant's answer begins.

    Text in a message that spells a control token (`<|im_end|>`) is encoded as ordinary characters: a question
    cannot end its own turn or begin the assistant's. Every other message has exactly the ids of
    `apply_chat_template(messages, add_generation_prompt=True)`.

    Raises:
        ValueError: there are no messages or no chat template, or the tokenizer cannot keep such text apart.
    """
    if not messages:
        raise ValueError("a prompt needs at least one message, got none")
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, so messages cannot become a prompt; "
            "set policy.tokenizer.chat_template, or use an instruction-tuned model"
        )
    control = _control_tokens(tokenizer)
    if any(token in text for token in control for message in messages for text in _texts(message)):
        return _render_with_control_text(tokenizer, messages, control)
    rendered = _apply_template(tokenizer, messages)
    ids = _encode(tokenizer, rendered)
    _check_num_control(tokenizer, ids, control, expected=len(re.findall(_any_of(control), rendered)))
    return tuple(ids)


def _texts(message: Message) -> tuple[str, str]:
    return message["role"], message["content"]


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that the tokenizer turns into a special token, longest first, so that none hides in another."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)


def _apply_template(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    conversation = [{"role": message["role"], "content": message["content"]} for message in messages]
    return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, split_special_tokens: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)["input_ids"]


def _render_with_control_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], control: list[str]
) -> tuple[int, ...]:
    """Runs the template on messages whose control-token texts are masked, and encodes them as plain text after it.

    Masked rather than split off beforehand, because a template may trim, test or repeat a message.
    """
    opening, closing = _unused_characters(messages)
    masked: list[Message] = [
        {
            "role": _mask(message["role"], control, opening, closing),
            "content": _mask(message["content"], control, opening, closing),
        }
        for message in messages
    ]
    rendered = _apply_template(tokenizer, masked)
    if _encode_in_parts(tokenizer, rendered, control) != _encode(tokenizer, rendered):
        raise ValueError(
            "a message holds text that spells a control token, and this tokenizer does not encode text piece by piece "
            f"as it does the whole, so it cannot be kept apart exactly; remove any of {control} from the messages"
        )
    ids = _encode_in_parts(tokenizer, rendered, control, unmask=re.compile(f"{opening}(\\d+){closing}"))
    _check_num_control(tokenizer, ids, control, expected=len(re.findall(_any_of(control), rendered)))
    return tuple(ids)


def _check_num_control(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], control: list[str], *, expected: int
) -> None:
    """Raises unless the control tokens are those that the template wrote; normalising tokenizers may add some."""
    # The unknown token also stands for ordinary characters that the vocabulary lacks.
    control_ids = {_id_of(tokenizer, token) for token in control if token != tokenizer.unk_token}
    found = sum(i in control_ids for i in ids)
    if found > expected:
        raise ValueError(
            f"this tokenizer makes {found} control tokens where the chat template has {expected}; a message holds text "
            f"that it reads as one of {control}, which must be removed"
        )


def _id_of(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return cast(int, tokenizer.convert_tokens_to_ids(token))


def _unused_characters(messages: Sequence[Message]) -> tuple[str, str]:
    used = {character for message in messages for text in _texts(message) for character in text}
    unused = (chr(code) for code in range(FIRST_PRIVATE_USE, LAST_PRIVATE_USE + 1) if chr(code) not in used)
    return next(unused), next(unused)


def _any_of(texts: Sequence[str]) -> str:
    return "|".join(re.escape(text) for text in texts)


def _mask(text: str, control: list[str], opening: str, closing: str) -> str:
    return re.sub(_any_of(control), lambda match: f"{opening}{control.index(match[0])}{closing}", text)


def _encode_in_parts(
    tokenizer: PreTrainedTokenizerBase, rendered: str, control: list[str], unmask: re.Pattern[str] | None = None
) -> list[int]:
    """Encodes the template's control tokens as such and everything between them as plain text."""
    ids: list[int] = []
    for part in re.split(f"({_any_of(control)})", rendered):
        if part in control:
            ids.append(_id_of(tokenizer, part))
        elif part:
            plain = unmask.sub(lambda match: control[int(match[1])], part) if unmask else part
            ids += _encode(tokenizer, plain, split_special_tokens=True)
    return ids
