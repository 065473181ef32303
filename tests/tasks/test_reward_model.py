"""A sequence classifier as a reward, against transformers' own forward pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from klimb.tasks import ModelReward, Problem, ProblemSet, Response, RewardSettings, Score, Scorer, with_rewards
from klimb.tasks.batches import BatchLimits
from klimb.tasks.reward_model import hash_files
from klimb.training.identity import describe_part

PROBLEMS = tuple(
    Problem(
        problem_id=f"p{number}",
        messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"say {number}"}),
        answer=str(number),
    )
    for number in range(2)
)
TEXTS = ("1", "one, I think", "no", "1, surely")


def reply(text: str) -> Response:
    return Response(text=text, num_tokens=len(text), finish_reason="stop")


def is_right(problem: Problem, response: Response) -> Score:
    return Score(reward=1.0, correct=True)


TASK = ProblemSet(name="numbers", train=PROBLEMS, held_out=(), score=is_right)


@pytest.fixture(scope="module")
def folder(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with one label."""
    folder = tmp_path_factory.mktemp("reward-model")
    config = LlamaConfig.from_pretrained(tiny_model_path, num_labels=1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def logit_of(folder: Path, problem: Problem, text: str) -> float:
    """One text by itself, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    chat = [*problem.messages, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        return model(**ids).logits[0, 0].item()


def test_the_reward_is_the_logit_that_transformers_computes_of_the_conversation(folder: Path):
    rewards = {
        "liked": RewardSettings(reward=f"model:{folder}", weight=2.0, device="cpu"),
        "right": RewardSettings(reward="task"),
    }
    asked = [PROBLEMS[0]] * 2 + [PROBLEMS[1]] * 2
    with Scorer(with_rewards(TASK, rewards)) as scorer:
        scores = scorer.score_many(asked, [reply(text) for text in TEXTS])
    expected = [logit_of(folder, problem, text) for problem, text in zip(asked, TEXTS, strict=True)]
    assert len(set(expected)) == 4
    assert [score.values["liked"] for score in scores] == pytest.approx(expected, abs=1e-5)
    assert [score.reward for score in scores] == pytest.approx([2 * each + 1 for each in expected], abs=1e-5)
    assert {score.correct for score in scores} == {True}


def test_a_text_longer_than_the_model_reads_has_no_reward_and_is_not_cut(folder: Path):
    reward = ModelReward.of_folder(str(folder), device="cpu")
    reward.prepare()
    assert reward(PROBLEMS[0], reply("a")).reward is not None
    long = reward(PROBLEMS[0], reply("a" * 300))
    assert long.reward is None
    assert f"tokens are more than the 256 that {folder.name} reads" in long.reason


def test_without_a_token_to_pad_with_the_rewards_are_the_same(copy: Path, folder: Path):
    for name in ("tokenizer_config.json", "config.json"):
        content = json.loads((copy / name).read_text())
        content.pop("pad_token", None)
        content.pop("pad_token_id", None)
        (copy / name).write_text(json.dumps(content))
    reward = ModelReward.of_folder(str(copy), device="cpu")
    assert AutoTokenizer.from_pretrained(copy).pad_token_id is None
    scores = [reward(PROBLEMS[0], reply(text)).reward for text in TEXTS]
    together = reward.score_batch([PROBLEMS[0]] * 4, [reply(text) for text in TEXTS], BatchLimits())
    assert [score.reward for score in together] == scores


def change(folder: Path, **keys) -> None:
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "it has 2 labels; a reward model has one"),
        ({"architectures": ["LlamaForCausalLM"]}, "it is a LlamaForCausalLM; expected"),
        ({"auto_map": {"AutoConfig": "mine.Config"}}, "code of its own"),
    ],
)
def test_a_folder_of_something_else_is_refused_before_anything_is_loaded(copy: Path, keys, message):
    change(copy, **keys)
    with pytest.raises(ValueError, match=message) as raised:
        ModelReward.of_folder(str(copy), key="rewards.liked.reward")
    assert str(raised.value).startswith("rewards.liked.reward = 'model:")


def test_a_folder_without_weights_or_that_is_not_there_is_refused(copy: Path):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights as \.safetensors"):
        ModelReward.of_folder(str(copy))
    with pytest.raises(ValueError, match="expected the folder of a sequence classifier"):
        ModelReward.of_folder(str(copy / "not-there"))


def test_a_causal_model_that_calls_itself_a_classifier_is_refused(tiny_model_path: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "causal"))
    change(folder, architectures=["LlamaForSequenceClassification"], id2label={"0": "LABEL_0"})
    with pytest.raises(ValueError, match=r"has no score\.weight: it is no trained classifier"):
        ModelReward.of_folder(str(folder), device="cpu").prepare()


def test_a_tokenizer_without_a_chat_template_is_refused(copy: Path):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        ModelReward.of_folder(str(copy), device="cpu").prepare()


def test_the_identity_holds_the_content_and_neither_place_nor_device(folder: Path, copy: Path):
    first, moved = ModelReward.of_folder(str(folder), device="cpu"), ModelReward.of_folder(str(copy))
    assert describe_part(first) == describe_part(moved)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert describe_part(ModelReward.of_folder(str(copy))) != describe_part(first)
    assert hash_files(copy) != first.content
