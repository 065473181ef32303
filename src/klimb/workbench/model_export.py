"""A trained model out again, for other programs: as a GGUF file, as a plain folder, or as an adapter.

What was written is read again and compared: the same token ids, and log-probabilities as near as the encoding allows.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from klimb.errors import ConfigError
from klimb.experience import Message, SamplingSettings
from klimb.policies import LoraSettings, Policy, load_policy
from klimb.policies.gguf import convert_gguf
from klimb.policies.gguf_file import Encoding, write_gguf
from klimb.policies.loading import find_gguf
from klimb.samplers import LocalSampler
from klimb.training.run_folder import RunFolder, is_run
from klimb.workbench.config.reading import read_config, read_tables
from klimb.workbench.model_path import model_path
from klimb.workbench.run_directory import find_directory

Target = Literal["gguf", "merged", "adapter"]
"""What is made of a model."""


LARGEST_MEAN_GAP: Mapping[Encoding, float] = {"f32": 1e-4, "f16": 0.02, "q8_0": 0.2}
"""Nats a token. Rounding of the weights makes less; a matrix in another order makes some tenths and more."""


NUM_CHECKED = 48
"""Tokens of each answer that is compared."""


QUESTIONS = ("Hello! Who are you?", "What is 12 + 35?", "Write three words about the sea.", "def add(a, b):")


TEXTS = (
    *QUESTIONS,
    "The year 2024, 3.14 and 1,000,000.",
    "  two  blanks\n\nand lines\t",
    "naïve café — 你好 🙂",
    "I'll; you're",
)
"""What both tokenizers read: words, digits, white space, other scripts."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far two models' log-probabilities of the same tokens are apart, in nats."""

    largest: float
    mean: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it compares."""

    path: Path
    num_bytes: int
    gap: Gap


def export_model(
    name: str, *, to: Target, into: Path, encoding: Encoding = "f16", tokenizer_from: Path | None = None
) -> Exported:
    """Write the model of a run, or one of a name or path, and compare what was written with it.

    Args:
        name: a run's folder, or what `load_policy` takes.
        to: `gguf` is one file, `merged` a Hugging Face folder, `adapter` a run's adapter in peft's format.
        into: the file or folder; nothing may be there.
        encoding: of the matrices of a GGUF file.
        tokenizer_from: a GGUF file whose tokenizer is taken over; that of the model's own, if it came from one.

    Raises:
        ConfigError: something is there already, the run has no such thing, or what was written is not the model.
        ValueError: the model cannot be written so.
    """
    if into.exists():
        raise ConfigError(f"{into} already exists; nothing is written over: choose another --into")
    if to != "gguf" and tokenizer_from is not None:
        raise ConfigError(f"--tokenizer-from is read with --to gguf alone, got --to {to}")
    into.parent.mkdir(parents=True, exist_ok=True)
    if to == "adapter":
        return _export_adapter(name, into)
    policy = _load(model_path(name))
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as aside:
        written = Path(aside) / (into.name if to == "gguf" else "model")
        if to == "gguf":
            base = tokenizer_from or find_gguf(_origin(name))
            write_gguf(policy, written, encoding=encoding, tokenizer_from=base, name=into.stem)
            convert_gguf(written, Path(aside) / "again")
            again = _load(Path(aside) / "again")
        else:
            policy.save(written)
            again = _load(written)
        check_same_reading(policy, again)
        gap = compare(policy, again)
        _check_gap(gap, LARGEST_MEAN_GAP[encoding if to == "gguf" else "f32"])
        written.rename(into)
    return Exported(path=into, num_bytes=_size(into), gap=gap)


def _export_adapter(name: str, into: Path) -> Exported:
    if not is_run(Path(name)):
        raise ConfigError(f"{name} is no run: an adapter is a part of what a run with [model.lora] leaves")
    run = RunFolder(Path(name))
    if not run.adapter.is_dir():
        raise ConfigError(
            f"{name} has no adapter/: it trained all weights, or has not ended, or ended before runs kept their "
            "adapter beside the model; --to merged writes the whole model"
        )
    trained = _load(model_path(name))
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as aside:
        written = Path(aside) / "adapter"
        shutil.copytree(run.adapter, written)
        again = _load(_base_of(run.path), lora=LoraSettings(path=str(written)))
        gap = compare(trained, again)
        _check_gap(gap, LARGEST_MEAN_GAP["f32"])
        written.rename(into)
    return Exported(path=into, num_bytes=_size(into), gap=gap)


def _load(path: str | Path, lora: LoraSettings | None = None) -> Policy:
    """Return the model in float32, at the temperature that it was saved to draw at."""
    policy = load_policy(path, dtype="float32", lora=lora)
    saved = policy.causal_lm.generation_config
    policy.temperature = (saved.temperature if saved is not None and saved.do_sample else None) or 1.0
    return policy


def _origin(name: str) -> str:
    """Return the model that a run's began as, through all runs before it."""
    path = Path(name)
    folder = path if is_run(path) else path.parent if path.name == "model" and is_run(path.parent) else None
    return name if folder is None else _origin(_base_of(folder))


def _base_of(folder: Path) -> str:
    """Return the name or path of the model that a run began with, from where it was begun."""
    tables = read_tables(RunFolder(folder).config)
    path = read_config(RunFolder(folder).config).model.path
    begun_at = find_directory(folder.resolve(), tables) / path
    return str(begun_at) if begun_at.exists() else path


def check_same_reading(policy: Policy, again: Policy) -> None:
    """Return if both read texts and chats as the same tokens.

    Raises:
        ConfigError: they do not.
    """
    for text in TEXTS:
        own, other = (each.tokenizer(text)["input_ids"] for each in (policy, again))
        if own != other:
            raise ConfigError(
                f"what was written reads {text!r} as tokens {other}, and the model as {own}; nothing was kept. Give a "
                "GGUF file of the model's own tokenizer with --tokenizer-from"
            )
    own, other = (each.render([Message(role="user", content=QUESTIONS[0])]) for each in (policy, again))
    if own != other:
        raise ConfigError(
            f"what was written renders a chat as tokens {list(other)}, and the model as {list(own)}; nothing was kept"
        )


@torch.no_grad()
def compare(policy: Policy, again: Policy) -> Gap:
    """Return how far the log-probabilities of a few answers of the first model are from those of the second."""
    prompts = [policy.render([Message(role="user", content=question)]) for question in QUESTIONS]
    settings = SamplingSettings(max_new_tokens=NUM_CHECKED, min_new_tokens=NUM_CHECKED)
    generator = torch.Generator().manual_seed(0)
    drawn = LocalSampler(policy).sample(prompts, num_samples=1, settings=settings, generator=generator)
    ids = torch.tensor([completion.response_ids for (completion,) in drawn])
    mask, index = torch.ones_like(ids, dtype=torch.bool), torch.arange(len(prompts))
    first, second = (
        each.log_probs(prompts, index, ids, mask, temperature=1.0).log_pi.cpu() for each in (policy, again)
    )
    gaps = (first - second).abs()
    return Gap(largest=float(gaps.max()), mean=float(gaps.mean()), num_tokens=gaps.numel())


def _check_gap(gap: Gap, limit: float) -> None:
    # Not "larger": what is no number is no agreement.
    if not gap.mean <= limit:
        raise ConfigError(
            f"what was written is not the model: its log-probabilities of {gap.num_tokens} tokens are {gap.mean:.3g} "
            f"nats a token from the model's, the largest {gap.largest:.3g}, where rounding makes at most {limit:g}; "
            "nothing was kept"
        )


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
