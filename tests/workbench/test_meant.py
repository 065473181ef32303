"""A run file means what it says: what would be done otherwise, or not at all, is refused when it is read."""

import json
import shutil

import pytest
from tests.workbench.logged import drawn, store_of

from klimb.errors import ConfigError
from klimb.training import RECIPES
from klimb.workbench.config import build_config


def message_of(*overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config({}, overrides, source="run.toml")
    return str(raised.value)


REFUSED = [
    (("training.num_minibatches=17",), "training.num_minibatches = 17", "sampling.num_prompts"),
    (("sampling.num_prompts=3", "training.num_minibatches=4"), "training.num_minibatches = 4", "at most 3"),
    (("objective.recipe=ppo", "credit.kind=response"), "credit.kind = 'response'", "leave credit.kind out"),
    (("objective.recipe=ppo", "credit=reward-to-go"), "credit.kind = 'reward-to-go'", "trains without one"),
    (("guard.general=['everday']",), "guard.general names 'everday'", "did you mean 'everyday'?"),
    (("guard.general=['everyday', 'chain_sums']",), "guard.general names 'chain_sums'", "did you mean 'chain_sum'?"),
    (("guard.format='(x+)+y'",), "guard.format = '(x+)+y' takes longer", "let no repeat contain another"),
    (("scoring.format.pattern='(x+)+y'",), "scoring.format.pattern = '(x+)+y'", "takes longer than"),
    (("scoring.format={pattern = 'x', weight = 0.0}",), "scoring.format", "weight must be another number than 0"),
    (("optimizer.learning_rate=0.0",), "optimizer.learning_rate = 0.0", "expected a number > 0"),
    (("optimizer.learning_rate=1e-400",), "optimizer.learning_rate = 0.0", "expected a number > 0"),
    (("cloning={path = 'x.csv', learning_rate = 0}",), "cloning.learning_rate = 0", "expected a number > 0"),
    (("critic.learning_rate=0",), "critic.learning_rate = 0", "expected a number > 0"),
    (("guard.rollback_learning_rate_factor=0",), "guard.rollback_learning_rate_factor = 0", "a number > 0"),
    (("objective.clip={kind = 'dual', low = 0.0, high = 0.0}",), "clip low and clip high are both 0", "raise one"),
    (
        ("objective.recipe=kto", "advantages.kind=group-mean"),
        "advantages.kind = 'group-mean' and the loss kto",
        "set advantages.kind = 'binary-feedback'",
    ),
    (
        ("objective.recipe=kto", "objective.desirable_weight=0", "objective.undesirable_weight=0"),
        "desirable_weight and undesirable_weight are both 0",
        "raise one",
    ),
]


@pytest.mark.parametrize(("overrides", "what", "way_out"), REFUSED)
def test_what_could_not_be_done_as_it_is_written_is_refused_by_name(overrides, what: str, way_out: str):
    message = message_of(*overrides)
    assert what in message
    assert way_out in message


@pytest.mark.parametrize("overrides", [REFUSED[0][0], REFUSED[2][0], REFUSED[5][0], REFUSED[7][0]])
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_it_is_refused_by_the_command_too_before_anything_is_made(workplace, overrides, dry):
    outcome = workplace.klimb("train", "run.toml", *dry, "--set", *overrides)
    assert outcome.status == 2
    assert REFUSED[[given for given, _, _ in REFUSED].index(overrides)][1].split(" = ")[0] in outcome.err
    assert not (workplace.path / "runs").exists()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("['q_prj']", "model.lora.targets names 'q_prj', and the model has no such layer; did you mean 'q_proj'?"),
        ("['q_proj', 'c_attn']", "model.lora.targets names 'c_attn'"),
        ("['input_layernorm']", "model.lora.targets names 'input_layernorm'"),
    ],
)
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_a_target_of_an_adapter_that_names_no_layer_is_refused_with_those_there_are(workplace, targets, message, dry):
    outcome = workplace.klimb("train", "run.toml", *dry, "--set", f"model.lora.targets={targets}")
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())
    assert "down_proj" in outcome.err and "Traceback" not in outcome.err
    assert not (workplace.path / "runs").exists()


def test_a_model_with_code_of_its_own_is_refused_by_the_key_that_lets_it_run(workplace):
    foreign = workplace.path / "foreign"
    shutil.copytree(workplace.model, foreign)
    stored = json.loads((foreign / "config.json").read_text())
    stored |= {"model_type": "foreign", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (foreign / "config.json").write_text(json.dumps(stored))
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", f"model.path={str(foreign)!r}")
    assert outcome.status == 2
    assert "model.trust_remote_code = false does not run" in outcome.err


def test_a_log_with_fewer_groups_than_optimiser_steps_is_refused(workplace, tiny_policy):
    store_of(workplace.path / "log", drawn(tiny_policy, num_prompts=3))
    settings = ("sources.log=1.0", "log.path='log'", "sampling.num_prompts=8", "training.num_minibatches=4")
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", *settings)
    assert outcome.status == 2
    assert "training.num_minibatches = 4" in outcome.err and "3, by" in outcome.err


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "ppo"])
def test_the_other_recipes_are_read_as_before(recipe: str):
    config = build_config({"objective": {"recipe": recipe}}, source="")
    assert config.credit.kind == RECIPES[recipe].credit.kind
