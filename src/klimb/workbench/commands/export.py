"""`klimb export`: a trained model for other programs."""

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.ui.text import printable
from klimb.workbench.options import PathOrNone


def export(
    model: str,
    /,
    *,
    to: Literal["gguf", "merged", "adapter"],
    into: Path,
    encoding: Literal["f32", "f16", "q8_0"] = "f16",
    tokenizer_from: PathOrNone = None,
) -> None:
    """Write a trained model for llama.cpp, Ollama, transformers or peft, and compare what was written.

    Samples are another thing: `klimb experience export`.

    Args:
        model: A run's folder, a Hugging Face folder, a `.gguf` file or `smollm2-135m`.
        to: `gguf` is one file with tokenizer and template, `merged` a Hugging Face folder, `adapter` peft's format.
        into: The file or folder to make; nothing may be there.
        encoding: How a GGUF file keeps matrices.
        tokenizer_from: A GGUF file of the same tokenizer, where the model came from none.
    """
    folder = Path(model)
    if folder.is_dir() and any(folder.glob("*.parquet")):
        raise ConfigError(f"{model} holds samples, not a model; klimb experience export writes these")
    from klimb.workbench.model_export import export_model

    console = Console()
    with console.status("writing the model, reading it again and comparing"):
        done = export_model(model, to=to, into=into, encoding=encoding, tokenizer_from=tokenizer_from)
    gap = done.gap
    lines = (
        f"{done.path}, {done.num_bytes / 1e6:,.1f} MB",
        f"read again: log-probabilities of {gap.num_tokens} tokens differ by at most {gap.largest:.2g} nats, "
        f"{gap.mean:.2g} in the mean",
    )
    for line in lines:
        console.print(Text(printable(line, limit=1000)), soft_wrap=True)
