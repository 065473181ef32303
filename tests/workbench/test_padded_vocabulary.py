"""A model that is padded beyond its tokenizer draws padding rows; from sampling to an estimate they are actions."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from klimb.experience import read_samples

NUM_PADDING = 24


@pytest.fixture
def padded(workplace) -> Path:
    """The tiny model with more rows than its tokenizer has tokens; they are as likely as the others."""
    folder = workplace.path / "padded"
    shutil.copytree(workplace.model, folder)
    model = AutoModelForCausalLM.from_pretrained(workplace.model)
    torch.manual_seed(0)
    model.resize_token_embeddings(model.config.vocab_size + NUM_PADDING, mean_resizing=False)
    model.get_input_embeddings().weight.data.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


def test_what_a_padded_model_drew_is_estimated_audited_and_learnt_from_in_full(workplace, padded):
    begun = ("evaluation.at_ends=false", "training.num_steps=4", "optimizer.learning_rate=1e-9", "run.save_model=false")
    ended = workplace.klimb("train", "run.toml", "--folder", "drawn", "--set", "model.path=padded", *begun)
    assert ended.status == 0, ended.err
    drawn = [sample for path in Path("drawn/rollouts").iterdir() for sample in read_samples(path)]
    num_tokens = len(AutoTokenizer.from_pretrained(padded))
    num_with_padding = sum(max(sample.response_ids) >= num_tokens for sample in drawn)
    assert len(drawn) == 32 and num_with_padding > 8

    estimated = workplace.klimb("estimate", "drawn", "--model", "padded", "--json", "estimate.json")
    assert estimated.status == 0, estimated.err
    assert json.loads(Path("estimate.json").read_text())["logged"]["num_samples"] == 32

    audited = workplace.klimb("audit", "drawn", "--model", "padded")
    assert audited.status == 0, audited.err
    said = f"100 % of 32 responses; {num_with_padding} of them hold ids that are no token of the tokenizer"
    assert said in " ".join((audited.out + Path("drawn-audit.html").read_text()).split())

    log = ("sources.log=1.0", "log.path=drawn", "sources.rollout=0.0", *begun[:2], "run.save_model=false")
    learnt = workplace.klimb("train", "run.toml", "--folder", "learnt", "--set", "model.path=padded", *log)
    assert learnt.status == 0, learnt.err
    steps = [json.loads(line) for line in Path("learnt/metrics.jsonl").read_text().splitlines()]
    assert {step["log/num_refused"] for step in steps} == {0} and {step["log/num_samples"] for step in steps} == {8}
