"""Plain Hugging Face folders."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from klimb.experience import give_usual_mode


def save_plain_model(
    model: PreTrainedModel,
    state: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    temperature: float | None = None,
) -> None:
    """Write a folder that `from_pretrained` of plain transformers loads: config, safetensors, tokenizer, template.

    Args:
        model: gives the class and the config; how it is quantised, adapted or wrapped is left behind.
        state: the weights to write, by their names in a plain model of that class.
        tokenizer: saved beside the weights.
        folder: made if missing; files of the same names are replaced.
        temperature: at which the saved model samples by default, with nothing cut off; None leaves the model's own
            generation settings.
    """
    config = copy.deepcopy(model.config)
    vars(config).pop("quantization_config", None)
    config.dtype = next(iter(state.values())).dtype
    # Without storage of its own: the weights are taken over, not copied.
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(dict(state), assign=True)
    plain.tie_weights()
    own = model.generation_config
    plain.generation_config = own if temperature is None else _drawing_at(temperature, own)
    with no_progress_bars():
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    give_usual_mode(folder.glob("*.safetensors"))


_CUTS = {"top_p": 1.0, "top_k": 0, "min_p": None, "typical_p": None, "epsilon_cutoff": None, "eta_cutoff": None}


def _drawing_at(temperature: float, config: GenerationConfig | None) -> GenerationConfig:
    """Return the settings, drawing from softmax(logits / temperature): what the base model came with cut off is not."""
    saved = GenerationConfig() if config is None else copy.deepcopy(config)
    saved.update(do_sample=True, temperature=temperature, repetition_penalty=1.0, **_CUTS)
    return saved


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars into the terminal, for the duration."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
