"""GGUF files (quantised weights in one file) to Hugging Face folders."""

import io
import logging
import os
import shutil
import struct
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from klimb.experience.atomic import flush_to_disk
from klimb.policies.saving import no_progress_bars, save_plain_model

GGUF_MAGIC = b"GGUF"


logger = logging.getLogger(__name__)


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model in `file`, its tokenizer and chat template as float32 safetensors to `folder`.

    The folder appears whole or not at all. If another process has made it meanwhile, that one is kept.

    Raises:
        ValueError: the file is no GGUF file, is damaged, or holds a model that transformers cannot read.
    """
    with file.open("rb") as content:
        magic = content.read(len(GGUF_MAGIC))
    if magic != GGUF_MAGIC:
        raise ValueError(f"{file} is no GGUF file: it begins with {magic!r}, expected {GGUF_MAGIC!r}")
    logger.info("converting %s to %s (once)", file, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(file, aside)
        for written in aside.iterdir():
            flush_to_disk(written)
        _move(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(file: Path, folder: Path) -> None:
    try:
        # The reader draws its progress bar with no switch to turn it off.
        with no_progress_bars(), redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # What the readers of headers, tensors and tokenizers raise on content that they do not know or that is cut off.
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError, EOFError, struct.error) as error:
        raise ValueError(
            f"the GGUF file {file} cannot be read: {error}. It may be damaged, or transformers may not know its "
            "architecture or quantisation; use a safetensors folder of the same model"
        ) from error
    save_plain_model(model, model.state_dict(), tokenizer, folder)


def _move(aside: Path, folder: Path) -> None:
    try:
        os.rename(aside, folder)
    except OSError:
        # Renaming a folder onto a filled one fails: another process was faster, and its content is the same.
        if not folder.is_dir():
            raise
    flush_to_disk(folder.parent)
