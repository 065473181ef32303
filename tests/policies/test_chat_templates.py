"""A template and arguments from the settings render as apply_chat_template does, and are part of the saved model."""

import shutil

import pytest
from transformers import AutoTokenizer

from klimb.policies import load_policy
from klimb.policies.chat_templates import with_arguments
from klimb.policies.settings import is_template_text

THINKING = (
    "{%- macro mark() %}{{ '/think' if thinking else '/no' }}{% endmacro %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{{ mark() }}{% if names is defined %}{{ names | join(',') }}{% endif %}{{ level }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": "hi"}]
ARGUMENTS = {"thinking": False, "level": 1.5, "names": ["a", 'quo"te', "back\\slash\n\u00e9\U0001f600 {{ x }}"]}


def rendered(tokenizer, template: str, **arguments) -> str:
    return tokenizer.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True, **arguments
    )


@pytest.mark.parametrize("begin", ["", "\n", "  ", "\n  {% if true %}x{% endif %}", "  {%- if true %}x{% endif %}"])
def test_arguments_in_the_template_render_as_arguments_of_the_call(tiny_policy, begin: str):
    tokenizer, template = tiny_policy.tokenizer, begin + THINKING
    assert rendered(tokenizer, with_arguments(template, ARGUMENTS)) == rendered(tokenizer, template, **ARGUMENTS)
    assert "/no" in rendered(tokenizer, template, **ARGUMENTS)


def test_who_loads_the_saved_model_can_still_give_another_value(tiny_policy):
    text = rendered(tiny_policy.tokenizer, with_arguments(THINKING, ARGUMENTS), thinking=True)
    assert "/think" in text


def test_arguments_are_written_once():
    once = with_arguments(THINKING, ARGUMENTS)
    assert with_arguments(once, ARGUMENTS) == once != with_arguments(THINKING, {"thinking": True})


def load(model, **settings):
    return load_policy(str(model), dtype="float32", device="cpu", **settings)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_template_of_ones_own_renders_is_saved_and_tells_tokenizers_apart(tiny_model_path, tmp_path, as_file: bool):
    path = tmp_path / "own.jinja"
    path.write_text(THINKING)
    given = str(path) if as_file else THINKING
    policy = load(tiny_model_path, chat_template=given, template_arguments={"thinking": True})
    wanted = rendered(policy.tokenizer, THINKING, thinking=True)
    assert policy.render(MESSAGES) == tuple(policy.tokenizer(wanted, add_special_tokens=False)["input_ids"])
    policy.save(tmp_path / "saved")
    saved = load(tmp_path / "saved")
    assert (saved.render(MESSAGES), saved.fingerprint) == (policy.render(MESSAGES), policy.fingerprint)
    plain = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert plain.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == wanted
    others = [load(tiny_model_path), load(tiny_model_path, chat_template=given)]
    others.append(load(tiny_model_path, chat_template=given, template_arguments={"thinking": False}))
    assert len({policy.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_text_of_a_message_is_no_control_token_under_a_template_of_ones_own_either(tiny_model_path):
    policy = load(tiny_model_path, chat_template=THINKING, template_arguments={"thinking": False})
    ids = policy.render([{"role": "user", "content": "a<|im_end|>b"}])
    assert ids.count(policy.tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template_arguments": {"messages": 1}}, "template_arguments.messages: klimb gives"),
        ({"template_arguments": {"add_generation_prompt": False}}, "template_arguments.add_generation_prompt"),
        ({"template_arguments": {"eos_token": "x"}}, "template_arguments.eos_token"),
        ({"template_arguments": {"a b": 1}}, "'a b' is no name"),
        ({"template_arguments": {"if": 1}}, "'if' is no name"),
        ({"template_arguments": {"enable_thinking": False}}, "does not read a name 'enable_thinking'"),
        ({"chat_template": "{% if %}"}, r"model.chat_template = '\{% if %\}…': not a Jinja template"),
        ({"chat_template": "nowhere.jinja"}, "model.chat_template = 'nowhere.jinja': there is no such file"),
    ],
)
def test_what_cannot_be_a_template_or_an_argument_is_refused(tiny_model_path, settings, message: str):
    with pytest.raises(ValueError, match=message):
        load(tiny_model_path, **settings)


def test_arguments_need_a_template(tiny_model_path, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model_path, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template that could read them"):
        load(bare, template_arguments={"thinking": True})
    assert load(bare, chat_template=THINKING, template_arguments={"thinking": True}).render(MESSAGES)


@pytest.mark.parametrize(
    ("given", "is_text"), [("a/b.jinja", False), ("{{ x }}", True), ("{% if a %}", True), ("plain\ntext", True)]
)
def test_a_path_is_told_from_a_template(given: str, is_text: bool):
    assert is_template_text(given) is is_text
