"""A reward model: a sequence classifier with one label, whose logit is the reward.

It is shown the conversation and the response in its own tokenizer's chat template, in the scoring process. It may be
any folder that transformers reads as `AutoModelForSequenceClassification`: as safetensors, without code of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from klimb.tasks.batches import Batches, BatchLimits, Scored, score_alone
from klimb.tasks.protocol import Problem, Response, Score

MODEL_PREFIX = "model:"


LARGEST_LENGTH = 1_000_000
"""A tokenizer that knows no limit says a number beyond this."""


READ_BYTES = 1 << 24


# Not frozen: what a run is does not depend on it, and fields of a frozen dataclass are in the run's identity.
@dataclass
class Placement:
    """Where a reward model is, and where it computes."""

    folder: str
    device: str = "auto"

    def load(self) -> Classifier:
        """Return the model, loaded once a process."""
        return load_classifier(self.folder, self.device)


@dataclass(frozen=True)
class ModelReward:
    """Scores with the classifier in a folder; `content` is the hash of its files, part of what a run is."""

    placement: Placement
    content: str

    @staticmethod
    def of_folder(folder: str, *, device: str = "auto", key: str = "reward") -> ModelReward:
        """Return the reward; nothing is loaded, but what the folder says of itself is checked.

        Raises:
            ValueError: it is no folder of a classifier with one label, as safetensors, with a chat template.
        """
        check_folder(Path(folder), key=key)
        return ModelReward(Placement(str(Path(folder).absolute()), device), hash_files(Path(folder)))

    @property
    def batches(self) -> Batches:
        """All responses to a problem go through the model together: which ones are padded to which is then known."""
        return "group"

    @property
    def is_large(self) -> bool:
        """It holds a model."""
        return True

    def prepare(self) -> None:
        """Load the model."""
        self.placement.load()

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of one response."""
        return score_alone(self, problem, response)

    def score_batch(
        self, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
    ) -> list[Scored]:
        """Return the scores; one without a reward where the text is longer than the model reads."""
        model = self.placement.load()
        texts = [model.text_of(problem, response) for problem, response in zip(problems, responses, strict=True)]
        tokens = [model.tokens_of(text) for text in texts]
        fitting = [number for number, ids in enumerate(tokens) if len(ids) <= model.most_tokens]
        rewards = dict(zip(fitting, model.logits([tokens[number] for number in fitting]), strict=True))
        return [self._score(rewards.get(number), len(ids), model) for number, ids in enumerate(tokens)]

    def _score(self, reward: float | None, num_tokens: int, model: Classifier) -> Score:
        name = Path(self.placement.folder).name
        if reward is None:
            return Score(
                reward=None, reason=f"{num_tokens} tokens are more than the {model.most_tokens:g} that {name} reads"
            )
        if not math.isfinite(reward):
            return Score(reward=None, reason=f"the reward model {name} gives {reward}")
        return Score(reward=reward, parts={"reward": reward}, reason=f"{name} gives {reward:.4g}")


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier with its tokenizer."""

    model: Any
    tokenizer: Any
    most_tokens: float

    def text_of(self, problem: Problem, response: Response) -> str:
        """Return the conversation with the response, in the model's own chat template."""
        messages = [*problem.messages, {"role": "assistant", "content": response.text}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    def tokens_of(self, text: str) -> list[int]:
        """Return the ids; a chat template writes the special tokens itself."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def logits(self, tokens: Sequence[Sequence[int]]) -> list[float]:
        """Return the logit of each sequence, padded to the right; one by one where there is no token to pad with."""
        if not tokens:
            return []
        if self.tokenizer.pad_token_id is None and len(tokens) > 1:
            return [self.logits([ids])[0] for ids in tokens]
        torch = import_module("torch")
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *[self.tokenizer.pad_token_id] * (longest - len(row))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
        with torch.inference_mode():
            given = {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}
            return self.model(**given).logits[:, 0].double().tolist()


@cache
def load_classifier(folder: str, device: str) -> Classifier:
    """Return the classifier, in evaluation mode; float32 on a CPU, as it was saved on a GPU.

    Raises:
        ValueError: a weight is missing, or the tokenizer has no chat template.
    """
    torch, transformers = import_module("torch"), import_module("transformers")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    named = f"the reward model {folder}"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ValueError(f"{named}: its tokenizer has no chat template, so that it cannot be shown a conversation")
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32 if device == "cpu" else "auto",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    if loading["missing_keys"]:
        raise ValueError(
            f"{named} has no {', '.join(sorted(loading['missing_keys']))}: it is no trained classifier; give one that "
            "was saved as AutoModelForSequenceClassification"
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return Classifier(model.to(device).eval(), tokenizer, _most_tokens(tokenizer, model.config))


def _most_tokens(tokenizer: Any, config: Any) -> float:
    known = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    return min((number for number in known if number is not None and number <= LARGEST_LENGTH), default=math.inf)


def check_folder(folder: Path, *, key: str) -> None:
    """Return if the folder says that it holds a classifier with one label.

    Raises:
        ValueError: it doesn't; `key` is named.
    """
    here = f"{key} = '{MODEL_PREFIX}{folder}'"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config.get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{here}: expected the folder of a sequence classifier, with a config.json ({type(error).__name__}; looked "
            f"in {folder.absolute()})"
        ) from None
    if "auto_map" in config:
        raise ValueError(f"{here}: it comes with code of its own (auto_map), which klimb does not run")
    if named and not any(str(name).endswith("ForSequenceClassification") for name in named):
        raise ValueError(f"{here}: it is a {named[0]}; expected a model saved as ...ForSequenceClassification")
    num_labels = _num_labels(config)
    if num_labels != 1:
        raise ValueError(
            f"{here}: it has {num_labels} labels; a reward model has one, whose logit is the reward (num_labels = 1)"
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"{here}: it has no weights as .safetensors; save it with safe_serialization=True")


def _num_labels(config: Mapping[str, Any]) -> int:
    return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))


def hash_files(folder: Path) -> str:
    """Return 16 hexadecimal digits of all files of the folder, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:16]
