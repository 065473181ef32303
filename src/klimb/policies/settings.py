"""What a policy can be told when it is loaded. Read without torch."""

import keyword
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from klimb.declarations import (
    FromList,
    InWords,
    Matching,
    Parameters,
    PathText,
    ShortText,
    configurable,
    one_of,
    require_known,
)

ALL_LINEAR = "all-linear"


@configurable
@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Train a low-rank adapter W + (alpha / rank)*B*A instead of all weights: only A and B learn.

    Where no adapter is given, `auto` becomes the number that it stands for at construction. Source: arXiv 2106.09685.
    """

    path: Annotated[str, MaxLen(4_000)] = ""
    """Folder of an adapter in peft's format to go on from, made for the model at model.path; a fresh one if empty. Its
    rank, alpha, targets and kind are the adapter's; another value beside it is refused."""
    rank: Annotated[int, Ge(1), Le(1024)] | Literal["auto"] = "auto"
    """Rank of the adapter matrices; `auto` is 16, and with a path that of the adapter."""
    alpha: Annotated[float, Gt(0), Le(10_000)] | Literal["auto"] = "auto"
    """Scale: the adapter's output is multiplied by alpha / rank. `auto` is 32, and with a path that of the adapter."""
    rslora: bool = False
    """Rank-stabilised: multiply by alpha / sqrt(rank) instead, so that a higher rank does not learn more slowly."""
    dora: bool = False
    """Learn the length of each row of the weights besides (DoRA): m * (W + scaled B*A) / its row norms. The norms count
    as constants in gradients."""
    dropout: Annotated[float, Ge(0), Le(0), InWords("0: with dropout log-probabilities are random")] = 0.0
    """Must be 0: the policy that is updated would not be the policy that was sampled, and pi/mu would be wrong."""
    targets: Literal["all-linear", "auto"] | Annotated[tuple[ShortText, ...], FromList(), MinLen(1), MaxLen(100)] = (
        "auto"
    )
    """Names of the layers that get an adapter; `all-linear` is every linear layer but the head. `auto` is all-linear,
    and with a path those of the adapter."""

    def __post_init__(self) -> None:
        if not self.path:
            for name, value in (("rank", 16), ("alpha", 32.0), ("targets", ALL_LINEAR)):
                if getattr(self, name) == "auto":
                    object.__setattr__(self, name, value)
        if isinstance(self.targets, str) and self.targets not in (ALL_LINEAR, "auto"):
            raise ValueError(f"targets must be {ALL_LINEAR!r} or a tuple of layer names, got {self.targets!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.rank != "auto" and (isinstance(self.rank, str) or self.rank < 1):
            raise ValueError(f"rank must be >= 1, got {self.rank!r}")
        if self.alpha != "auto" and (isinstance(self.alpha, str) or not self.alpha > 0):
            raise ValueError(f"alpha must be > 0, got {self.alpha!r}")
        if self.dropout != 0:
            raise ValueError(
                f"dropout must be 0, got {self.dropout}: with dropout log-probabilities are random and pi/mu is wrong"
            )


ActivationCheckpointing = Literal["auto", "never", "always"]
"""`auto`: as many layers as are needed to stay within the budget; `always`: all of them."""


def require_temperature(temperature: float | str) -> None:
    """Return if a policy can have this temperature.

    Raises:
        ValueError: it is no number above 0, nor `auto`.
    """
    if temperature == "auto":
        return
    if isinstance(temperature, str) or not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"the temperature of the policy must be 'auto' or finite and > 0, got {temperature!r}")


RESERVED_ARGUMENTS = (
    *(f"{name}_token" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk")),
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
)
"""Names that a chat template gets from its caller, or that are arguments of the call itself."""


def is_template_text(chat_template: str) -> bool:
    """Return whether this is a template itself, and not the path of a file with one."""
    return any(mark in chat_template for mark in ("{{", "{%", "{#", "\n"))


PolicyTemperature = Annotated[float, Gt(0), Le(100)] | Literal["auto"]


@configurable
@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The language model that is trained."""

    path: PathText = "smollm2-135m"
    """A Hugging Face folder, a .gguf file, or the embedded model `smollm2-135m`."""
    dtype: Annotated[str, one_of(("auto", "float32", "bfloat16"))] = "auto"
    """Number format of the computation; trained weights always stay in float32."""
    device: Annotated[str, Matching(r"^(auto|cpu|mps|cuda(:\d{1,3})?)$", "auto, cpu, mps, cuda or cuda:0")] = "auto"
    """Where it runs; auto takes the best there is."""
    activation_checkpointing: ActivationCheckpointing = "auto"
    """Save memory by computing layers again in the backward pass: as many as needed, none, or all; packed rows only."""
    temperature: PolicyTemperature = "auto"
    """Softmax temperature of the policy, softmax(logits / temperature): of what is trained, evaluated and saved. `auto`
    is sampling.temperature, and in a run that draws nothing the one recorded with its samples. Another one than
    sampling.temperature means that another policy than the trained one explores."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model folder. Leave it off unless you have read that code."""
    chat_template: Annotated[str, MinLen(1), MaxLen(200_000)] | None = None
    """Chat template in the place of the tokenizer's: the path of a Jinja file, or the template itself. It is saved with
    the trained model."""
    template_arguments: Parameters = field(default_factory=dict)
    """What the chat template is told by name, such as `{enable_thinking = false}`; written into the template, and so
    saved with the trained model."""
    lora: LoraSettings | None = None
    """Settings of a low-rank adapter; without this section all weights are trained."""

    def __post_init__(self) -> None:
        require_temperature(self.temperature)
        for name in self.template_arguments:
            if name in RESERVED_ARGUMENTS:
                raise ValueError(f"template_arguments.{name}: klimb gives the chat template its {name} itself")
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"template_arguments: {name!r} is no name that a chat template could read")
        require_known("activation_checkpointing", self.activation_checkpointing, get_args(ActivationCheckpointing))
