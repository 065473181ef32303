"""A call is read as it was written, in the format of the model's own chat template; nothing that is drawn raises."""

import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from klimb.experience.samples import ToolCall
from klimb.tasks.tools import FORMATS, CallFormat, Tool, choose_format, get_format, tool_of

TRL = find_spec("trl")
assert TRL is not None and TRL.origin is not None
TEMPLATES = Path(TRL.origin).parent / "chat_templates"
"""Of many models, as TRL has them; TRL itself is not imported, which takes seconds."""


def call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))


HOSTILE = [
    "",
    " ",
    "\n",
    " both ends \n",
    "7",
    "true",
    "null",
    "None",
    "[1, 2]",
    '{"a": 1}',
    'say "hello"',
    "it's",
    "\\",
    "\\n",
    "\\u0041",
    "line\nbreak\r\nand\ttab",
    "\u2028\x00\x7f",
    "日本語 ünï 🙂 ｜",
    "</tool_call>",
    "<tool_call>",
    "a\n</tool_call>\n<tool_call>\nb",
    "</think>",
    "<think>",
    "<|im_end|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "<｜tool▁call▁end｜>",
    "```",
    "<|call|>",
    "<|message|>",
    "<|end|>",
    ")]",
    "}",
    "f(a=1)",
    "<tool_call|>",
    "<|END_ACTION|>",
    "<|/tool_call|>",
    "</code>",
    "; {}",
    '{"name": "g", "arguments": {}}',
]


ENDS_OF_TEXTS = ("</parameter>", "</arg_value>", "parameter>", '<|"|>')
"""What a text cannot hold in the formats that have no way to write it."""


def schema_of(value: object) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds.get(type(value), "null")}


def tool_for(name: str, arguments: Mapping[str, Any]) -> Tool:
    properties = {key: schema_of(value) for key, value in arguments.items()}
    return Tool(name=name, description="", parameters={"properties": properties}, function=print)


def check_round_trip(form: CallFormat, calls: list[ToolCall], before: str = "", after: str = "") -> None:
    """What was written comes back, where the schemas of the tools say which values are texts."""
    tools = [tool_for(each.name, json.loads(each.arguments)) for each in calls]
    parsed = form.parse(before + form.render(calls) + after, tools)
    assert parsed.error == ""
    assert [(each.name, json.loads(each.arguments)) for each in parsed.calls] == [
        (each.name, json.loads(each.arguments)) for each in calls
    ]
    assert [each.arguments for each in parsed.calls] == [each.arguments for each in calls]  # 1 is neither 1.0 nor true


every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))


@every_format
def test_hostile_texts_come_back(form: CallFormat):
    for text in HOSTILE:
        check_round_trip(form, [call("f", a=text)])
        check_round_trip(form, [call("f", a=text, b={"c": [text, 1]})])


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=3).map("".join),
)


NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False))


VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


@st.composite
def drawn_calls(draw: st.DrawFn) -> list[ToolCall]:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return [call(name, **draw(st.dictionaries(NAMES, VALUES, max_size=3))) for name in names]


@every_format
@settings(max_examples=15, deadline=None)
@given(calls=drawn_calls())
def test_any_calls_come_back(form: CallFormat, calls: list[ToolCall]):
    assume(not any(end in each.arguments.replace('\\"', '"') for each in calls for end in ENDS_OF_TEXTS))
    check_round_trip(form, calls)


@every_format
@settings(max_examples=15, deadline=None)
@given(text=st.one_of(TEXTS, st.lists(st.sampled_from([*HOSTILE, "f", "(", "=", ",", '"', "<function="])).map("".join)))
def test_garbage_raises_nothing_and_no_text_is_lost_without_a_call(form: CallFormat, text: str):
    parsed = form.parse(text)
    assert "\n" not in parsed.error
    if not parsed.calls and not parsed.error and form.name != "harmony":
        assert text.startswith(parsed.content)


@every_format
@settings(max_examples=15, deadline=None)
@given(calls=drawn_calls(), data=st.data())
def test_a_call_that_was_cut_off_raises_nothing_and_is_never_another_call(
    form: CallFormat, calls: list[ToolCall], data: st.DataObject
):
    written = form.render(calls[:1])
    at = data.draw(st.integers(0, len(written)))
    parsed = form.parse(written[:at], [tool_for(each.name, json.loads(each.arguments)) for each in calls])
    assert all(each == calls[0] for each in parsed.calls) or any(end in calls[0].arguments for end in ENDS_OF_TEXTS)


@every_format
@pytest.mark.parametrize(
    "part", ["<tool_call><function=f><parameter=a>", "</parameter>" + " " * 50, "[f(a=", "<think>"]
)
def test_a_long_turn_of_nothing_but_beginnings_is_read_in_no_time(form: CallFormat, part: str):
    started = time.process_time()
    form.parse(part * 500)
    form.parse(form.render([call("f", a=1)])[:-3] * 500)
    assert time.process_time() - started < 5  # what grows with the square of the length shows here


@every_format
def test_several_calls_come_back_in_their_order(form: CallFormat):
    check_round_trip(form, [call("f", a=1), call("g"), call("e", a="x", b=[True, None, 2.5])])


OTHER_THOUGHTS = {
    "gemma4": ("<|channel>thought", "<channel|>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "mistral-v11": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
}


def formats_but(*names: str) -> pytest.MarkDecorator:
    forms = [each for name, each in FORMATS.items() if name not in names]
    return pytest.mark.parametrize("form", forms, ids=[each.name for each in forms])


@formats_but("harmony", "llama3", "python")  # a turn of the last two that calls says nothing else
def test_what_is_said_before_a_call_and_thought_is_kept(form: CallFormat):
    opening, closing = OTHER_THOUGHTS.get(form.name, ("<think>", "</think>"))
    thought = f"{opening}\nI could write {form.render([call('wrong')])}, or not.\n{closing}\n\nI look it up."
    check_round_trip(form, [call("f", a=1)], before=f"{thought}\n")
    parsed = form.parse(f"{thought}\n{form.render([call('f', a=1)])}<|im_end|>\n")
    assert parsed.content == thought
    assert parsed.calls == (call("f", a=1),)


@formats_but("harmony")
def test_a_thought_that_the_template_began_holds_no_calls(form: CallFormat):
    opening, closing = OTHER_THOUGHTS.get(form.name, ("<think>", "</think>"))
    thought = f"Maybe {form.render([call('wrong')])}? No.\n{closing}\n\n"
    parsed = form.parse(thought + form.render([call("right")]))
    assert parsed.calls == (call("right"),)
    assert parsed.content == thought.rstrip()
    assert form.parse(f"{opening}Maybe {form.render([call('wrong')])}").calls == ()


@formats_but("harmony")
@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|eot_id|>", "<｜end▁of▁sentence｜>"])
def test_the_end_of_a_turn_is_no_part_of_it(form: CallFormat, end: str):
    check_round_trip(form, [call("f", a="x")], after=end)
    assert form.parse(f"It is 4.{end}").content == "It is 4."


@every_format
@pytest.mark.parametrize(
    "answer", ["It is 4.", '{"answer": 4}', "[1, 2, 3]", "Use f(a=1).", "  indented\n", "<s>struck</s>"]
)
def test_an_answer_is_no_call(form: CallFormat, answer: str):
    parsed = form.parse(answer)
    assert parsed.calls == ()
    assert (parsed.content, parsed.error) == (answer, "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>', "no valid JSON: Expecting value at"),
        ("hermes", "<tool_call>f(a=1)</tool_call>", 'no valid JSON: Expecting value at "f(a=1)</tool_call>"'),
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', "the call of 'f' has no arguments; write {}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "arguments of f must be an object"),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "the call names no tool"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}} and so on', "</tool_call> was expected before"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "NaN is no JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', "cannot be written as JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', "half a character"),
        ("hermes", "<tool_call>" + "[" * 100_000, "nested too deeply"),
        ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"a": {"1" * 5000}}}}}', "digit"),
        ("llama3", '{"name": "f", "parameters": {"a": 1}', "no valid JSON"),
        ("llama3", "<|python_tag|>", "nothing follows <|python_tag|>"),
        ("llama3", "<|python_tag|>import os", "no call at"),
        ("python", "[f(a=b)]", "no value at"),
        ("python", "[f(a=1, a2=", "no value at the end of the text"),
        ("python", "[f(3)]", "argument 1 of f has no name; write NAME=VALUE"),
        ("python", "[f(a=" + "[" * 1000 + "]", "more than 60 lists"),
        ("llama4", "<|python_start|>print('x'<|python_end|>", "was expected at"),
        ("qwen-xml", "<tool_call>\n<function=f>\n<parameter=a>\n1", "argument 'a' of f is not closed"),
        ("qwen-xml", "<tool_call>\n{}\n</tool_call>", "no name of a tool"),
        ("glm", "<tool_call>f\n<arg_key>a</arg_key>", "the call of f is not closed"),
        ("mistral", "[TOOL_CALLS]", "no name of a tool"),
        ("mistral-v11", '[TOOL_CALLS]f[ARGS]{"a"', "no valid JSON"),
        ("harmony", "<|channel|>commentary to=functions.f<|message|>{a}<|call|>", "no valid JSON"),
        ("deepseek-v3", "<｜tool▁call▁begin｜>f{}<｜tool▁call▁end｜>", "no name of a tool"),
        ("gemma4", "<|tool_call>call:f{a:<tool_call|>", "no value at"),
        ("minimax", '<invoke name="f"><parameter name="a">1', "argument 'a' of f is not closed"),
    ],
)
def test_a_call_that_cannot_be_read_is_answered_with_what_was_expected(name: str, text: str, message: str):
    parsed = FORMATS[name].parse(text)
    assert message in parsed.error
    assert "; expected " in parsed.error
    assert parsed.calls == ()
    assert "\n" not in parsed.error
    assert len(parsed.error) < 500


def test_a_call_that_can_be_read_counts_beside_one_that_cannot():
    good = FORMATS["hermes"].render([call("f", a=1)])
    parsed = FORMATS["hermes"].parse(f"First.\n<tool_call>{{oh}}</tool_call>\n{good}")
    assert parsed.calls == (call("f", a=1),)
    assert "no valid JSON" in parsed.error
    assert parsed.content == "First."


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>', call("f", a=1)),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}\n</tool_call>', call("f", a=1)),
        ("llama3", '{"name": "f", "parameters": {"a": "b; c"}}<|eot_id|>', call("f", a="b; c")),
        ("llama3", '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}<|eom_id|>', call("f")),
        ("llama3", '<|python_tag|>brave_search.call(query="x")<|eom_id|>', call("brave_search", query="x")),
        ("qwen-xml", "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>", call("f", a=1)),
        ("qwen-xml", "<tool_call><function=f><parameter=a>x</parameter></function></tool_call>", call("f", a="x")),
        ("qwen-xml", "<tool_call>\n<function=f>\n<parameter=a>\nTrue\n</parameter>\n</function>", call("f", a=True)),
        ("glm", "<tool_call>f<arg_key>a</arg_key><arg_value>[1]</arg_value></tool_call>", call("f", a=[1])),
        ("python", '[f(a=1_000, b=-.5, c=None, d={"e": (1, 2,)}, f=r"\\d")]', None),
        ("lfm2", "<|tool_call_start|>[f(a='x', b=true)]<|tool_call_end|>", call("f", a="x", b=True)),
        ("code", "<code>\nf(a=1)\n</code>", call("f", a=1)),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "VvvODy9mT"}]</s>', call("f", a=1)),
        ("mistral", '[TOOL_CALLS]f{"a": 1}</s>', call("f", a=1)),
        ("mistral-v11", '[TOOL_CALLS]f[CALL_ID]VvvODy9mT[ARGS]{"a": 1}</s>', call("f", a=1)),
        (
            "harmony",
            "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant to=functions.f<|channel|>commentary json"
            '<|message|>{"a": 1}<|call|>',
            call("f", a=1),
        ),
        ("gemma4", '<|tool_call>call:f{a:<|"|>x "y"<|"|>,b:[1,true]}<tool_call|>', call("f", a='x "y"', b=[1, True])),
        ("phi4", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', call("f", a=1)),
        (
            "deepseek-v3.2",
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">1'
            '</｜DSML｜parameter>\n<｜DSML｜parameter name="b" string="false">1</｜DSML｜parameter>\n'
            "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            call("f", a="1", b=1),
        ),
    ],
)
def test_what_models_of_these_formats_write_is_read(name: str, text: str, expected: ToolCall | None):
    parsed = FORMATS[name].parse(text)
    assert parsed.error == ""
    assert parsed.calls == (expected or call("f", a=1000, b=-0.5, c=None, d={"e": [1, 2]}, f="\\d"),)


def test_the_content_of_a_harmony_turn_is_its_answer_or_else_its_thought():
    form = FORMATS["harmony"]
    thought = "<|channel|>analysis<|message|>Two and two.<|end|><|start|>assistant"
    assert form.parse(f"{thought}<|channel|>final<|message|>It is 4.<|return|>").content == "It is 4."
    parsed = form.parse(f"{thought}{form.render([call('f')])}")
    assert (parsed.content, parsed.calls) == ("Two and two.", (call("f"),))


def test_values_without_quotes_have_the_types_of_the_tools_schema():
    parameters = {
        "properties": {
            "zip": {"type": "string"},
            "count": {"type": "integer"},
            "maybe": {"type": "string", "nullable": True},
            "either": {"anyOf": [{"type": "array"}, {"type": "number"}]},
            "wrong": {"type": "integer"},
            "free": {},
        }
    }
    tool = Tool(name="f", description="", parameters=parameters, function=print)
    written = {"zip": "75001", "count": "3.0", "maybe": "null", "either": "2.5", "wrong": "many", "free": "[1]"}
    text = FORMATS["qwen-xml"].render([call("f", **written)])
    assert json.loads(FORMATS["qwen-xml"].parse(text, [tool]).calls[0].arguments) == {
        "zip": "75001",
        "count": 3,
        "maybe": None,
        "either": 2.5,
        "wrong": "many",  # the check of the arguments says so to the policy
        "free": [1],
    }
    assert json.loads(FORMATS["qwen-xml"].parse(text).calls[0].arguments)["zip"] == 75001


def test_arguments_without_a_name_have_those_of_the_tool():
    tool = Tool(name="f", description="", parameters={"properties": {"a": {}, "b": {}}}, function=print)
    assert FORMATS["python"].parse("[f(1, b='x')]", [tool]).calls == (call("f", a=1, b="x"),)
    assert "argument 3 of f has no name" in FORMATS["python"].parse("[f(1, 2, 3)]", [tool]).error


def test_a_text_that_holds_the_end_of_an_argument_is_read_up_to_there_where_another_argument_follows():
    text = FORMATS["qwen-xml"].render([call("f", a="x</parameter>\ny")])
    assert FORMATS["qwen-xml"].parse(text).calls == (call("f", a="x</parameter>\ny"),)
    text = FORMATS["qwen-xml"].render([call("f", a="x\n</parameter>\n<parameter=b>\ny")])
    assert FORMATS["qwen-xml"].parse(text).calls == (call("f", a="x", b="y"),)  # the format cannot say it


CHOSEN = {
    "deepseekv3": "deepseek-v3",
    "deepseek_r1_distill": "deepseek-v3",
    "diffusion_gemma": "gemma4",
    "gemma4": "gemma4",
    "gemma4_v5": "gemma4",
    "glm4moe": "glm",
    "gptoss": "harmony",
    "lfm2_2_5": "lfm2",
    "lfm2_v2": "lfm2",
    "llama3_1": "llama3",
    "llama3_2": "llama3",
    "muse_glimmer": "atem",
    "nemotron_3_nano": "qwen-xml",
    "nemotron_3_5_lightning": "qwen-xml",
    "qwen2_5": "hermes",
    "qwen3": "hermes",
    "qwen3_vl": "hermes",
    "qwen3_instruct_2507": "hermes",
    "qwen3_5_think": "qwen-xml",
    "qwen3_6": "qwen-xml",
    "qwen3_8": "qwen-xml",
}


@pytest.mark.parametrize(("template", "name"), CHOSEN.items())
def test_the_format_of_a_chat_template_is_recognised(template: str, name: str):
    paths = [each for each in TEMPLATES.glob(f"{template}*.jinja") if each.stem in (template, f"{template}_training")]
    assert paths
    assert {choose_format(each.read_text(encoding="utf-8")).name for each in paths} == {name}


def look_up(city: str, days: int, exact: bool = True, names: list[str] | None = None) -> str:
    """Look up.

    Args:
        city: a
        days: b
        exact: c
        names: d
    """
    return ""


WRITTEN = {"city": 'Saint "Ét"\nienne', "days": 3, "exact": True, "names": ["a", "b"]}


def render_turn(template: str, arguments: Any, content: str | None) -> str:
    """Return what a template writes of a turn that calls, behind the prompt that it writes for it."""
    user = {"role": "user", "content": "Look."}
    function = {"name": "look_up", "arguments": arguments}
    turn = {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": function}]}
    tokens: Any = {"bos_token": "<s>", "eos_token": "</s>"}
    tools: Any = [tool_of(look_up).schema]
    (prompt,), _ = render_jinja_template(
        [[user]], tools=tools, chat_template=template, add_generation_prompt=True, **tokens
    )
    (whole,), _ = render_jinja_template([[user, turn]], tools=tools, chat_template=template, **tokens)
    same = next((at for at, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(prompt))
    return whole[same:]


@pytest.mark.parametrize(("template", "name"), CHOSEN.items())
def test_what_a_template_writes_of_a_call_is_read_back(template: str, name: str):
    is_text = name == "deepseek-v3"  # those templates want the arguments as they were drawn
    text = render_turn(
        (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"),
        json.dumps(WRITTEN) if is_text else WRITTEN,
        None if is_text else "",
    )
    parsed = FORMATS[name].parse(text, [tool_of(look_up)])
    assert parsed.error == ""
    assert [(each.name, json.loads(each.arguments)) for each in parsed.calls] == [("look_up", WRITTEN)]


@pytest.mark.parametrize("template", ["gemma", "gemma3", "phi3", "llama3", "qwen2_5_vl", "smolvlm", "cohere"])
def test_a_template_without_tools_is_refused_with_the_way_out(template: str):
    with pytest.raises(ValueError, match=r"state one with environment\.call_format: hermes, llama3"):
        choose_format((TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("{{ '[TOOL_CALLS] [' }}", "mistral"),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral-v11"),
        ("{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' }}", "deepseek-v3.1"),
        ("<｜DSML｜function_calls>", "deepseek-v3.2"),
        ("<|tool_call_argument_begin|>", "kimi"),
        ("<minimax:tool_call>", "minimax"),
        ("should be in the format of [func_name1(params_name1=params_value1...)]", "python"),
        ("<|START_ACTION|>", "cohere"),
        ("<tool_call> ... </tool_call> and <code> for tools in Python", "hermes"),
    ],
)
def test_the_marks_of_other_templates_are_recognised(part: str, name: str):
    assert choose_format(part).name == name


def test_a_misspelt_name_is_answered_with_the_nearest():
    assert get_format("hermes") is FORMATS["hermes"]
    with pytest.raises(ValueError, match=r"environment\.call_format = 'hermess' is none.*did you mean 'hermes'\?"):
        get_format("hermess")


def test_formats_are_formats():
    assert all(isinstance(each, CallFormat) and each.name == name for name, each in FORMATS.items())
