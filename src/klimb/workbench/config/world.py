"""The sections that say what is trained on what: model, task, scoring."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from klimb.declarations import Count, Fraction, LongText, PathText, Seed, ShortText
from klimb.policies.settings import LoraSettings
from klimb.workbench.config.bounds import (
    SECTION,
    ExpressionTemplate,
    FileReward,
    OwnOrTask,
    QuestionTemplate,
    in_plain_words,
)

Parameter = bool | int | float | ShortText


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


class ArithmeticSection(BaseModel):
    """Problems such as `What is 3+4?`, generated; 3+4 and 4+3 are on the same side of the split."""

    model_config = SECTION

    kind: Literal["arithmetic"] = "arithmetic"
    """Generated arithmetic."""
    operators: Annotated[
        str, StringConstraints(pattern=r"^[-+*]{1,3}$"), in_plain_words("some of + - *, e.g. '+-'")
    ] = "+"
    """Some of + - *."""
    digits: Annotated[int, Field(ge=1, le=9)] = 1
    """Digits of every term."""
    num_terms: Annotated[int, Field(ge=2, le=8)] = 2
    """Terms per problem."""
    num_problems: Annotated[int, Field(ge=2, le=100_000)] = 1_000
    """At most this many problems, both sides together; a small space has fewer."""
    held_out_fraction: Fraction = 0.2
    """Share of the problems kept out of training."""
    seed: Seed = 0
    """Draws the problems and the split."""
    wording: ExpressionTemplate = "What is {expression}?"
    """The user's message; {expression} stands for 3+4."""
    reward: OwnOrTask = "task"
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""


class ReasoningGymSection(BaseModel):
    """A generated task of the package `reasoning-gym`."""

    model_config = SECTION

    kind: Literal["reasoning-gym"] = "reasoning-gym"
    """A dataset of reasoning-gym."""
    dataset: ShortText
    """Its name there, e.g. `leg_counting`."""
    parameters: Annotated[dict[ShortText, Parameter | list[Parameter]], Field(max_length=100)] = {}
    """Parameters of that dataset."""
    num_train: Count = 500
    """Training problems."""
    num_held_out: Count = 100
    """Problems kept out of training."""
    seed: Seed = 0
    """Of the generator."""
    extract: Literal["text", "last-line", "last-number", "answer-tag"] = "text"
    """What of the response is the answer: all, its last line, its last number, or what is in <answer>...</answer>."""
    reward: OwnOrTask = "task"
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    template: QuestionTemplate = "{question}"
    """The user's message; {question} stands for the question."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""


class FileSection(BaseModel):
    """Your own questions from a .jsonl, .csv or .parquet file."""

    model_config = SECTION

    kind: Literal["file"] = "file"
    """A data file."""
    path: PathText
    """The data file, relative to the working directory."""
    question: ShortText = "question"
    """Column with the question."""
    answer: Annotated[str, StringConstraints(max_length=200)] = "answer"
    """Column with the reference answer; a reward of your own may do without. Empty if there is none."""
    answer_after: Annotated[str, StringConstraints(max_length=200)] = ""
    """Keep of the answer only what follows this mark (`####` for GSM8K); empty keeps all."""
    reward: FileReward = "math-verify"
    """How a response is compared with the answer, or `python:module.function` for a reward of your own."""
    template: QuestionTemplate = "{question}"
    """The user's message; {question} stands for the question."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    held_out_path: PathText | None = None
    """A second file with the held-out problems; without it a share of the first is held out."""
    held_out_fraction: Fraction = 0.1
    """Share of the questions held out when there is no second file."""
    seed: Seed = 0
    """Draws the split."""


TaskSection = Annotated[ArithmeticSection | ReasoningGymSection | FileSection, Field(discriminator="kind")]


class OverlongSection(BaseModel):
    """DAPO's soft punishment of answers that come close to the length limit."""

    model_config = SECTION

    buffer_tokens: Count
    """The punishment grows from 0 to `factor` over the last this many tokens before the limit."""
    factor: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    """The punishment at the limit."""


class FormatSection(BaseModel):
    """A bonus for answers that match a pattern."""

    model_config = SECTION

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
    """Regular expression that is searched in the answer."""
    weight: Annotated[float, Field(ge=-1_000, le=1_000)] = 0.1
    """Added to the reward when it matches."""


class ScoringSection(BaseModel):
    """How answers are scored, whatever the task."""

    model_config = SECTION

    timeout_seconds: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    """An answer whose scoring takes longer is an error sample: counted, and left out of the averages."""
    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that score answers side by side."""
    max_error_fraction: Fraction = 0.5
    """The run stops when more than this share of the answers could not be scored."""
    memory_limit_gigabytes: Annotated[float, Field(gt=0, le=100_000)] | Literal["none"] = 8.0
    """Memory of a scoring process, or `none`."""
    overlong: OverlongSection | None = None
    """Soft punishment of overlong answers; without this section there is none."""
    format: FormatSection | None = None
    """Bonus for a format; without this section there is none."""
