"""The tokenizer: chat messages to token ids, and what the ids mean.

No text in a message becomes a control token. A vocabulary has a fingerprint, and knows the bytes of each token.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message
from klimb.policies.call_forms import template_messages

FIRST_PRIVATE_USE, LAST_PRIVATE_USE = 0xE000, 0xF8FF
"""Characters to which Unicode gives no meaning; two of them stand in for control-token text while a template runs."""


MOST_ROLES = 8
"""Roles of a conversation that an error names."""


class PromptError(ValueError):
    """Messages that cannot become a prompt of this tokenizer, while others can."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[int, ...]:
    """Token ids of the messages in the tokenizer's chat template, up to where the assistant's answer begins.

    Text in a message that spells a control token (`<|im_end|>`) is encoded as ordinary characters: a question
    cannot end its own turn or begin the assistant's. The same holds for what a tool answers, and for the names and
    arguments of calls and tools. Every other message has exactly the ids of
    `apply_chat_template(messages, tools=tools, add_generation_prompt=True)`.

    Args:
        tokenizer: with a chat template.
        messages: the conversation; an assistant's message may have `tool_calls`, a tool's has a `name`.
        tools: schemas of the tools on offer, in OpenAI's form.

    Raises:
        PromptError: there are no messages, the template refuses them or makes no token of them, or the tokenizer cannot
            keep such text apart.
        ValueError: there is no chat template.
    """
    return _require_tokens(tokenizer, encode_template_text(tokenizer, render_template(tokenizer, messages, tools)))


@dataclass(frozen=True, kw_only=True)
class TemplateText:
    """What a chat template made of messages, before it is encoded.

    Attributes:
        text: control tokens in it are the template's own; those that a message spelled are masked.
        mask: matches what stands for a masked text; its group is the place of that text in `control_tokens`. None if
            nothing was masked.
    """

    text: str
    mask: re.Pattern[str] | None = None


def render_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = True,
) -> TemplateText:
    """Run the chat template on the messages, whose control-token texts are masked meanwhile.

    With `add_generation_prompt` the text goes on to where the assistant's answer begins. Such texts are masked rather
    than split off beforehand, because a template may trim, test or repeat a message.

    Raises:
        PromptError: there are no messages, or the template refuses them.
        ValueError: there is no chat template.
    """
    if not messages:
        raise PromptError("a prompt needs at least one message, got none")
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, so messages cannot become a prompt; "
            "set model.chat_template, or use an instruction-tuned model"
        )
    control = control_tokens(tokenizer)
    texts = [*texts_in(messages), *texts_in(tools)]
    if not any(token in text for token in control for text in texts):
        return TemplateText(text=_apply_template(tokenizer, messages, tools, add_generation_prompt))
    opening, closing = _unused_characters(texts)
    masked = [_mask(part, control, opening, closing) for part in (list(messages), list(tools))]
    return TemplateText(
        text=_apply_template(tokenizer, masked[0], masked[1], add_generation_prompt),
        mask=re.compile(f"{opening}(\\d+){closing}"),
    )


def append_text(
    tokenizer: PreTrainedTokenizerBase, rendered: TemplateText, text: str, *, own: str = ""
) -> TemplateText:
    """Return what a template made with a text behind it, in which control tokens are text, and then `own`.

    Args:
        tokenizer: whose control tokens they are.
        rendered: what comes first.
        text: of a person or a model.
        own: of the template: control tokens in it are such.
    """
    control = control_tokens(tokenizer)
    if rendered.mask is None and not any(token in text for token in control):
        return TemplateText(text=f"{rendered.text}{text}{own}")
    opening, closing = _unused_characters([rendered.text, text])
    before, mask = rendered.text, rendered.mask
    if mask is not None:
        before = mask.sub(lambda match: f"{opening}{match[1]}{closing}", before)
    return TemplateText(
        text=f"{before}{_mask(text, control, opening, closing)}{own}", mask=re.compile(f"{opening}(\\d+){closing}")
    )


def encode_template_text(tokenizer: PreTrainedTokenizerBase, rendered: TemplateText) -> tuple[int, ...]:
    """Token ids of a template's text, in which what was masked becomes ordinary characters.

    Raises:
        PromptError: the tokenizer cannot keep such text apart.
    """
    control, text = control_tokens(tokenizer), rendered.text
    ids = _encode(tokenizer, text)
    if rendered.mask is not None:
        if _encode_in_parts(tokenizer, text, control) != ids:
            raise PromptError(
                "a message holds text that spells a control token, and this tokenizer does not encode text piece by "
                f"piece as it does the whole, so it cannot be kept apart exactly; remove any of {control} from the "
                "messages"
            )
        ids = _encode_in_parts(tokenizer, text, control, unmask=rendered.mask)
    _check_num_control(tokenizer, ids, control, expected=len(re.findall(_any_of(control), text)))
    return tuple(ids)


def _require_tokens(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> tuple[int, ...]:
    if not ids:
        raise PromptError(f"the chat template of {tokenizer.name_or_path!r} makes no token of the messages")
    return ids


def texts_in(part: object) -> Iterator[str]:
    """Yield every text in messages or schemas, at any depth, keys included."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        yield from texts_in([*part.keys(), *part.values()])
    elif isinstance(part, Sequence):
        for element in part:
            yield from texts_in(element)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that the tokenizer turns into a special token, longest first, so that none hides in another."""
    return _read_control(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens))


@lru_cache(maxsize=4)
def _read_control(tokenizer: PreTrainedTokenizerBase, num_tokens: int, special: tuple[str, ...]) -> list[str]:
    """Return them; number and special tokens are part of the key, so that those added later are not overlooked."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *special}, key=len, reverse=True)


def _apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                template_messages(tokenizer, messages),
                # None where there are none: a template asks whether there are tools, and not all ask how many.
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )
    # A template is a program: besides what it raises itself it may raise anything.
    except Exception as error:
        roles = [message["role"] for message in messages]
        told = ", ".join(roles if len(roles) <= MOST_ROLES else [*roles[:MOST_ROLES], f"… ({len(roles)} messages)"])
        raise PromptError(
            f"the chat template of {tokenizer.name_or_path!r} refuses messages of {told}: {_words_of(error)}"
        ) from error


def _words_of(error: Exception) -> str:
    """Return a template's own words in one line; with the kind of error unless the template raised it itself."""
    words = " ".join(str(error).split())
    return words if type(error).__name__ == "TemplateError" else f"{type(error).__name__}: {words}"


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, split_special_tokens: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)["input_ids"]


def _check_num_control(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], control: list[str], *, expected: int
) -> None:
    """Raise unless the control tokens are those that the template wrote; normalising tokenizers may add some."""
    # The unknown token also stands for ordinary characters that the vocabulary lacks.
    control_ids = {id_of(tokenizer, token) for token in control if token != tokenizer.unk_token}
    found = sum(i in control_ids for i in ids)
    if found > expected:
        raise PromptError(
            f"this tokenizer makes {found} control tokens where the chat template has {expected}; a message holds text "
            f"that it reads as one of {control}, which must be removed"
        )


def id_of(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a token that the vocabulary has."""
    return cast(int, tokenizer.convert_tokens_to_ids(token))


def find_control_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[str, int]]:
    """Return the control tokens that a template wrote into a text, each with the place where it ends."""
    matches = re.finditer(_any_of(control_tokens(tokenizer)), text)
    return [(match[0], match.end()) for match in matches if match[0]]


def _unused_characters(texts: Sequence[str]) -> tuple[str, str]:
    used = {character for text in texts for character in text}
    unused = (chr(code) for code in range(FIRST_PRIVATE_USE, LAST_PRIVATE_USE + 1) if chr(code) not in used)
    return next(unused), next(unused)


def _any_of(texts: Sequence[str]) -> str:
    return "|".join(re.escape(text) for text in texts)


def _mask(part: Any, control: list[str], opening: str, closing: str) -> Any:
    """Return messages or schemas with every control-token text in them masked, at any depth."""
    if isinstance(part, str):
        return re.sub(_any_of(control), lambda match: f"{opening}{control.index(match[0])}{closing}", part)
    if isinstance(part, Mapping):
        return {
            _mask(key, control, opening, closing): _mask(value, control, opening, closing)
            for key, value in part.items()
        }
    if isinstance(part, Sequence):
        return [_mask(element, control, opening, closing) for element in part]
    return part


def _encode_in_parts(
    tokenizer: PreTrainedTokenizerBase, rendered: str, control: list[str], unmask: re.Pattern[str] | None = None
) -> list[int]:
    """Encode the template's control tokens as such and everything between them as plain text."""
    ids: list[int] = []
    for part in re.split(f"({_any_of(control)})", rendered):
        if part in control:
            ids.append(id_of(tokenizer, part))
        elif part:
            plain = unmask.sub(lambda match: control[int(match[1])], part) if unmask else part
            ids += _encode(tokenizer, plain, split_special_tokens=True)
    return ids


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
    """Text of the tokens; an id that the tokenizer has no token for, such as a model's padding row, has no text."""
    known = vocabulary_of(tokenizer).known_ids
    return str(
        tokenizer.decode(
            [token for token in ids if token in known],
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
    )


FINGERPRINT_LENGTH = 16
"""Hexadecimal digits that are kept: 64 bits tell tokenizers apart, and a person can compare them."""


_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


_SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"


_SPACE_SYMBOL = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
        ids: token text, as the tokenizer writes it in its vocabulary -> id; added tokens included.
        added: those of them that are matched as whole texts (control tokens and the like).
        special: names of the special tokens (`eos_token`, ...) -> their texts.
    """

    ids: Mapping[str, int]
    added: frozenset[str]
    special: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything here."""
        content = [sorted(self.ids.items()), sorted(self.added), sorted(self.special.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def known_ids(self) -> frozenset[int]:
        """Ids that are a token's; a model may have more rows than that, as padding."""
        return frozenset(self.ids.values())

    @cached_property
    def ids_of_bytes(self) -> Mapping[bytes, tuple[int, ...]]:
        """Bytes that a token stands for -> the ids of the tokens that stand for them.

        A sentencepiece byte piece (`<0x41>`) gives way to an ordinary piece of the same bytes (`A`): a tokenizer
        falls back to bytes only for characters that it has no piece for.
        """
        pieces: dict[bytes, list[int]] = {}
        fallbacks: dict[bytes, int] = {}
        is_byte_level = _SPACE_SYMBOL in self.ids and _SPACE_MARK not in self.ids
        for text, token_id in self.ids.items():
            byte = _BYTE_PIECE.fullmatch(text)
            if byte and text not in self.added:
                fallbacks[bytes.fromhex(byte[1])] = token_id
            else:
                spelled = text.encode() if text in self.added else _bytes_of(text, is_byte_level=is_byte_level)
                pieces.setdefault(spelled, []).append(token_id)
        for spelled, token_id in fallbacks.items():
            pieces.setdefault(spelled, [token_id])
        return {spelled: tuple(sorted(ids)) for spelled, ids in pieces.items()}


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Return the tokenizer's vocabulary; kept, because reading one of 10⁵ tokens takes a tenth of a second."""
    return _read(tokenizer, len(tokenizer))


def fingerprint_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hexadecimal digits of SHA-256 over vocabulary, added and special tokens and the chat template.

    Equal for a tokenizer that was saved and loaded again. Token ids of one tokenizer mean nothing to another.
    """
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    return hashlib.sha256(f"{vocabulary_of(tokenizer).digest}\n{template}".encode()).hexdigest()[:FINGERPRINT_LENGTH]


@lru_cache(maxsize=4)
def _read(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> Vocabulary:
    """Return the number of tokens is part of the key, so that tokens added later are not overlooked."""
    return Vocabulary(
        ids=cast(dict[str, int], tokenizer.get_vocab()),
        added=frozenset(str(token) for token in tokenizer.added_tokens_decoder.values()),
        special={name: str(text) for name, text in tokenizer.special_tokens_map.items()},
    )


def _bytes_of(text: str, *, is_byte_level: bool) -> bytes:
    if not is_byte_level:
        return text.replace(_SPACE_MARK, " ").encode()
    table = _byte_of_symbol()
    return bytes(table[symbol] for symbol in text) if all(symbol in table for symbol in text) else text.encode()


@lru_cache(maxsize=1)
def _byte_of_symbol() -> Mapping[str, int]:
    """Character -> byte in byte-level vocabularies: printable Latin-1 as itself, the others from U+0100 on.

    Source: Radford et al. 2019, `bytes_to_unicode` of GPT-2.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
