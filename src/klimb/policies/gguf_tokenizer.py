"""What a GGUF file says of a tokenizer: taken from the file that the model came from, or from a byte-level BPE."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf
from transformers import PreTrainedTokenizerBase

_TEMPLATE = "tokenizer.chat_template"


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


SPLITS: Mapping[str, str] = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}
"""How a text is cut into words before the merges, and llama.cpp's name for it."""


FROM_ANOTHER = "give a GGUF file of the same tokenizer with --tokenizer-from"


@dataclass(frozen=True, kw_only=True)
class GgufField:
    """One key of a GGUF file with its value and types."""

    key: str
    value: Any
    kind: gguf.GGUFValueType
    of_entries: gguf.GGUFValueType | None = None

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add it to a file that is being written."""
        writer.add_key_value(self.key, self.value, self.kind, sub_type=self.of_entries)


def fields_of_file(file: Path, tokenizer: PreTrainedTokenizerBase, num_vocab: int) -> list[GgufField]:
    """Return what a GGUF file says of its tokenizer, but for the chat template.

    Raises:
        ValueError: it is no GGUF file, or has other tokens than the tokenizer.
    """
    fields = gguf.GGUFReader(file).fields
    tokens = fields.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ValueError(f"{file} has no tokenizer; {FROM_ANOTHER}")
    _check_same_tokens(file, tokens.contents(), tokenizer, num_vocab)
    return [
        GgufField(
            key=key,
            value=field.contents(),
            kind=field.types[0],
            of_entries=field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None,
        )
        for key, field in fields.items()
        if key.startswith("tokenizer.") and key != _TEMPLATE
    ]


def _check_same_tokens(file: Path, tokens: Sequence[str], tokenizer: PreTrainedTokenizerBase, num_vocab: int) -> None:
    if len(tokens) != num_vocab:
        raise ValueError(f"{file} has {len(tokens)} tokens, and the model {num_vocab}; {FROM_ANOTHER}")
    own = _spelled(tokenizer)
    other = next((token_id for token_id, token in own.items() if tokens[token_id] != token), None)
    if other is not None:
        raise ValueError(
            f"token {other} is {tokens[other]!r} in {file} and {own[other]!r} in the model's tokenizer; {FROM_ANOTHER}"
        )


def _spelled(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {token_id: token for token, token_id in tokenizer.get_vocab().items()}


def fields_of_tokenizer(tokenizer: PreTrainedTokenizerBase, num_vocab: int, *, end_id: int) -> list[GgufField]:
    """Return what a GGUF file says of a byte-level BPE tokenizer whose way of cutting words llama.cpp knows.

    Raises:
        ValueError: it is another kind of tokenizer, or cuts words in a way without a name.
    """
    content = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    kind = content["model"]["type"]
    if kind != "BPE":
        raise ValueError(f"the tokenizer is a {kind}, and only byte-level BPE is written; {FROM_ANOTHER}")
    cut = _name_of_cut(content["pre_tokenizer"])
    spelled, added = _spelled(tokenizer), {each["id"]: each for each in content["added_tokens"]}
    # The model may have more rows than the tokenizer has tokens, and each row needs a name.
    tokens = [spelled.get(token_id, f"[PAD{token_id}]") for token_id in range(num_vocab)]
    kinds = [int(_kind(token_id, spelled, added)) for token_id in range(num_vocab)]
    merges = [each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]]
    first = tokenizer("a")["input_ids"][0]
    text, array, string, number = (
        gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, gguf.GGUFValueType.UINT32,
    )  # fmt: skip
    ids = {"bos": tokenizer.bos_token_id, "eos": end_id, "padding": tokenizer.pad_token_id}
    adds_first = tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id
    return [
        GgufField(key="tokenizer.ggml.model", value="gpt2", kind=text),
        GgufField(key="tokenizer.ggml.pre", value=cut, kind=text),
        GgufField(key="tokenizer.ggml.tokens", value=tokens, kind=array, of_entries=string),
        GgufField(key="tokenizer.ggml.token_type", value=kinds, kind=array, of_entries=gguf.GGUFValueType.INT32),
        GgufField(key="tokenizer.ggml.merges", value=merges, kind=array, of_entries=string),
        *(
            GgufField(key=f"tokenizer.ggml.{name}_token_id", value=token_id, kind=number)
            for name, token_id in ids.items()
            if token_id is not None
        ),
        GgufField(key="tokenizer.ggml.add_bos_token", value=adds_first, kind=gguf.GGUFValueType.BOOL),
    ]


def _kind(token_id: int, spelled: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> gguf.TokenType:
    if token_id not in spelled:
        return gguf.TokenType.UNUSED
    if token_id not in added:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added[token_id]["special"] else gguf.TokenType.USER_DEFINED


def _name_of_cut(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """Return llama.cpp's name of how a text is cut into words.

    Raises:
        ValueError: it has none that is known here.
    """
    parts = [pre_tokenizer] if pre_tokenizer else []
    parts = parts[0]["pretokenizers"] if parts and parts[0]["type"] == "Sequence" else parts
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        name = SPLITS.get(str(parts[0]["pattern"].get("Regex")))
        if name is not None:
            return name
    found = ", ".join(kinds) or "nothing"
    raise ValueError(
        f"llama.cpp has names for a few ways to cut a text into words, and this tokenizer's ({found}) is none of those "
        f"known here; {FROM_ANOTHER}"
    )
