"""Which prompts a model can continue."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from klimb.experience.samples import SamplingSettings


@dataclass(frozen=True)
class PromptLimits:
    """What prompts of a model must keep to.

    Attributes:
        num_vocab: token ids are 0 to this − 1.
        context: positions that prompt and answer may have together; None: any number.
    """

    num_vocab: int
    context: int | None

    def check(self, prompt: Sequence[int], settings: SamplingSettings, *, name: str = "the prompt") -> None:
        """Raise ValueError for a prompt that is empty, holds other ids, or leaves no room for the answer."""
        if not len(prompt):
            raise ValueError(f"{name} is empty; the first token needs at least one token before it")
        if min(prompt) < 0 or max(prompt) >= self.num_vocab:
            raise ValueError(
                f"{name} holds token ids from {min(prompt)} to {max(prompt)}, the model's vocabulary is "
                f"0 to {self.num_vocab - 1}; was it made with another tokenizer?"
            )
        if self.context is not None and len(prompt) + settings.max_new_tokens > self.context:
            raise ValueError(
                f"{name} has {len(prompt)} tokens and max_new_tokens is {settings.max_new_tokens}; together "
                f"they must fit the model's context of {self.context}; shorten one of them"
            )


def prompt_limits(config: PreTrainedConfig) -> PromptLimits:
    """Return those of the model with this configuration."""
    config = config.get_text_config()
    return PromptLimits(config.vocab_size, getattr(config, "max_position_embeddings", None))
