"""Low-rank adapters (LoRA, rsLoRA, DoRA) by peft: fresh ones, and given ones to go on from."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from klimb.policies.model_names import EMBEDDED_MODELS
from klimb.policies.settings import ALL_LINEAR, LoraSettings

ADAPTER = "default"
"""peft's name of the only adapter."""


ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Give the model a fresh adapter, which leaves its outputs unchanged (B starts at 0) and alone is trained.

    A is drawn from torch's global random state.

    Raises:
        ValueError: one of the targets names no layer of the model that an adapter can stand beside.
    """
    is_all = settings.targets in (ALL_LINEAR, (ALL_LINEAR,))
    if not is_all:
        _check_targets(model, settings.targets)
    config = LoraConfig(
        r=cast(int, settings.rank),
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  peft divides it by r; it may be a float
        lora_dropout=0.0,
        target_modules=ALL_LINEAR if is_all else list(settings.targets),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        task_type="CAUSAL_LM",
    )
    return _adapted(model, config)


def load_lora(model: PreTrainedModel, settings: LoraSettings, *, names: Iterable[str]) -> PeftModel:
    """Give the model the adapter in the folder `settings.path`, which alone is trained.

    Args:
        model: the base model.
        settings: what they say of the adapter must be so.
        names: what the base model is called: its name, its folder.

    Raises:
        ValueError: there is no such adapter, it is of another kind or for another model, or differs from the settings.
    """
    folder = Path(settings.path).expanduser()
    config = _read_config(folder)
    _check_kind(config, folder)
    _check_stated(config, settings, folder, model)
    _check_base(config, folder, names)
    # What is drawn here is replaced by the weights; some ways to draw would change the base model.
    config.init_lora_weights, config.lora_dropout, config.inference_mode = True, 0.0, False
    config.base_model_name_or_path = model.name_or_path
    weights = load_file(folder / ADAPTER_WEIGHTS)
    try:
        adapted = _adapted(model, config)
    except ValueError as error:
        raise ValueError(
            f"the adapter in {folder} does not fit the model at model.path: {_first_line(error)}"
        ) from error
    _check_weights(get_peft_model_state_dict(adapted, adapter_name=ADAPTER), weights, folder)
    set_peft_model_state_dict(adapted, weights, adapter_name=ADAPTER)
    return adapted


def _adapted(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    adapted = get_peft_model(model, config, adapter_name=ADAPTER)
    if not isinstance(adapted, PeftModel):
        raise TypeError(f"peft returned {type(adapted).__name__} for a LoRA adapter, expected a PeftModel")
    _check_head(model)
    return adapted


def _check_head(model: PreTrainedModel) -> None:
    """Return if the head's own weight is all that its logits come from."""
    is_tied = model.config.get_text_config().tie_word_embeddings
    if isinstance(model.get_output_embeddings(), LoraLayer) or (
        is_tied and isinstance(model.get_input_embeddings(), LoraLayer)
    ):
        raise ValueError(
            "an adapter on the head, or on an embedding that is the head too, cannot be scored or merged here; leave "
            f"it out of model.lora.targets ({ALL_LINEAR!r} does)"
        )


def _read_config(folder: Path) -> LoraConfig:
    if not (folder / ADAPTER_CONFIG).is_file():
        holds = f"there is no {ADAPTER_CONFIG} in it" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"model.lora.path = {str(folder)!r}: {holds}; expected the folder of an adapter made by peft")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ValueError(
            f"the adapter in {folder} has no {ADAPTER_WEIGHTS}; only safetensors are read, since a pickle runs "
            "whatever code is inside. Save it with peft's save_pretrained"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / ADAPTER_CONFIG} cannot be read: {_first_line(error)}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"the adapter in {folder} is of kind {config.peft_type}, expected LORA")
    return config


CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin an adapter that take a part out of the base model's weights."""


PLAIN: Mapping[str, object] = {
    "bias": "none",
    "lora_bias": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "target_parameters": None,
    "alora_invocation_tokens": None,
}
"""Settings of peft that train something besides the low-rank matrices, with the value by which they do not."""


def _check_kind(config: LoraConfig, folder: Path) -> None:
    more = [name for name, nothing in PLAIN.items() if (getattr(config, name, None) or nothing) != nothing]
    if more:
        found = ", ".join(f"{name} = {getattr(config, name)!r}" for name in more)
        raise ValueError(
            f"the adapter in {folder} trains more than low-rank matrices ({found}), which is not supported"
        )
    begun = str(config.init_lora_weights)
    if begun.startswith(CHANGES_BASE):
        raise ValueError(
            f"the adapter in {folder} was begun with init_lora_weights = {begun!r}, which changed its base model; save "
            "it as one for the unchanged model (peft: path_initial_model_for_weight_conversion)"
        )


def _check_stated(config: LoraConfig, settings: LoraSettings, folder: Path, model: PreTrainedModel) -> None:
    """Return if nothing stated beside the path contradicts the adapter."""
    stated: dict[str, tuple[object, object]] = {
        "rank": (settings.rank, config.r),
        "alpha": (settings.alpha, config.lora_alpha),
        "dora": (settings.dora or config.use_dora, config.use_dora),
        "rslora": (settings.rslora or config.use_rslora, config.use_rslora),
    }
    if settings.targets != "auto":
        stated["targets"] = (_layers(model, settings.targets), _layers(model, config.target_modules))
    for name, (wanted, found) in stated.items():
        if wanted != "auto" and wanted != found:
            shown = sorted({layer.rpartition(".")[2] for layer in found}) if isinstance(found, set) else found
            raise ValueError(
                f"model.lora.{name} = {getattr(settings, name)!r}, and the adapter in {folder} has {shown!r}; leave it "
                "out: with model.lora.path it is the adapter's"
            )


def _layers(model: PreTrainedModel, targets: object) -> set[str]:
    """Return the layers that are meant: by a regular expression, or by names and ends of names."""
    head = model.get_output_embeddings()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    if targets in (ALL_LINEAR, (ALL_LINEAR,)):
        return {name for name, module in layers.items() if module is not head}
    if isinstance(targets, str):
        return {name for name in layers if re.fullmatch(targets, name)}
    named = tuple(cast(Iterable[str], targets or ()))
    return {name for name in layers if any(name == each or name.endswith(f".{each}") for each in named)}


_QUANTISED = re.compile(r"[.-](i?q\d|bf16|f16|f32).*$")


def _short_names(name: str) -> set[str]:
    """Return what a model's name or folder is called without where it is: `org/Model`, `/models/Model/` -> `model`."""
    if name in EMBEDDED_MODELS:
        name = EMBEDDED_MODELS[name].file
    parts = [part.lower() for part in Path(name).parts] or [""]
    cached = {part.rpartition("--")[2] for part in parts if part.startswith("models--")}
    last = parts[-1].removesuffix(".gguf")
    return {last, _QUANTISED.sub("", last), *cached}


def _check_base(config: LoraConfig, folder: Path, names: Iterable[str]) -> None:
    base = str(config.base_model_name_or_path or "")
    known = list(names)
    if not base or _short_names(base) & {short for name in known for short in _short_names(name)}:
        return
    raise ValueError(
        f"the adapter in {folder} was made for the base model {base!r}, and model.path is {known[0]!r}; give its own "
        f"base model. If that is the same one, write its name as base_model_name_or_path into {ADAPTER_CONFIG}"
    )


def _check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path) -> None:
    """Return if the file holds exactly the adapter's matrices, in their shapes."""
    differing = sorted(expected.keys() ^ found.keys())
    if differing:
        where = "only in the file" if differing[0] in found else "not in the file"
        raise ValueError(
            f"the adapter in {folder} was made for another base model: {len(differing)} of its matrices differ, first "
            f"{differing[0]} ({where})"
        )
    for name, weight in expected.items():
        if weight.shape != found[name].shape:
            raise ValueError(
                f"the adapter in {folder} was made for another base model: {name} has shape {list(found[name].shape)}, "
                f"expected {list(weight.shape)}"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Return if each target is the name, or the end of the name, of a layer with a weight matrix."""
    layers = {name: module for name, module in model.named_modules() if name}
    fitting = [name for name, module in layers.items() if isinstance(module, nn.Linear | nn.Embedding | Conv1D)]
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in fitting):
            continue
        ends = sorted({name.rpartition(".")[2] for name in fitting})
        near = difflib.get_close_matches(target, ends, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"model.lora.targets names {target!r}, and the model has no such layer{hint} It has "
            f"{', '.join(ends)}; {ALL_LINEAR!r} takes every linear layer but the head"
        )


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the plain model, with the adapter's update where there is one; the model is left as it is.

    W + scaling·B·A, and with DoRA its rows brought to their learned lengths.
    """
    state = {_plain_name(name): weight for name, weight in model.state_dict().items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            # Experts are one parameter of three dimensions, whose adapters wrap the module that holds it.
            key = _plain_name(f"{name}.{getattr(module, 'parameter_name', 'weight')}")
            state[key] = _merged(cast(Any, module), state[key])
    return state


def _plain_name(name: str) -> str:
    """Return the name without the wrappers that adapters put around a layer; several may wrap one."""
    return name.replace(".base_layer", "")


def _merged(layer: Any, weight: Tensor) -> Tensor:
    if ADAPTER in layer.lora_variant:
        return layer.lora_variant[ADAPTER].merge_safe(layer, ADAPTER, weight)
    return weight + layer.get_delta_weight(ADAPTER)
