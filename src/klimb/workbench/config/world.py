"""The section that says how answers are drawn: sampling."""

from typing import Annotated

from pydantic import BaseModel, Field

from klimb.workbench.config.bounds import SECTION


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
