"""What a tokenizer's ids mean: a fingerprint of it, the ids that stand for something, and the bytes of each token."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

from transformers import PreTrainedTokenizerBase

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
    """The tokenizer's vocabulary; kept, because reading one of 10⁵ tokens takes a tenth of a second."""
    return _read(tokenizer, len(tokenizer))


def fingerprint_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hexadecimal digits of SHA-256 over vocabulary, added and special tokens and the chat template.

    Equal for a tokenizer that was saved and loaded again. Token ids of one tokenizer mean nothing to another.
    """
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    return hashlib.sha256(f"{vocabulary_of(tokenizer).digest}\n{template}".encode()).hexdigest()[:FINGERPRINT_LENGTH]


@lru_cache(maxsize=4)
def _read(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> Vocabulary:
    """The number of tokens is part of the key, so that tokens added later are not overlooked."""
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
