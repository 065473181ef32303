"""The sections that say what is trained on what: model, task, sampling."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from klimb.declarations import OneOf, PathText
from klimb.policies.settings import LoraSettings
from klimb.tasks.catalogue import TASKS, OwnTask, TaskSettings
from klimb.workbench.config.bounds import SECTION, in_plain_words


class ModelSection(BaseModel):
    """The language model that is trained."""

    model_config = SECTION

    path: PathText = "smollm2-135m"
    """A Hugging Face folder, a .gguf file, or the embedded model `smollm2-135m`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the computation; trained weights always stay in float32."""
    device: Annotated[
        str,
        StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"),
        in_plain_words("auto, cpu, mps, cuda or cuda:0"),
    ] = "auto"
    """Where it runs; auto takes the best there is."""
    activation_checkpointing: Literal["auto", "never", "always"] = "auto"
    """Save memory by computing layers again in the backward pass: as many as needed, none, or all; packed rows only."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model folder. Leave it off unless you have read that code."""
    lora: LoraSettings | None = None
    """Settings of a low-rank adapter; without this section all weights are trained."""


if TYPE_CHECKING:
    AnyTask = TaskSettings
else:
    AnyTask = Annotated[Any, OneOf(TASKS, own=OwnTask)]


class SamplingSection(BaseModel):
    """How much is sampled per collection, and the behaviour policy it is drawn from."""

    model_config = SECTION

    num_prompts: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Prompts per collection."""
    num_samples: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Answers per prompt: the group that shares a baseline."""
    lag: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Collections between drawing a batch and training on it, as with asynchronous actors; 0 trains at once."""
    max_batch: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Answers generated at the same time."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Softmax temperature; training needs it above 0."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Keep this many most likely tokens; 0 keeps all."""
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """An answer is cut after this many tokens."""
