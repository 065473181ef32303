"""A chat template of one's own, and the arguments of one: they become part of the tokenizer, and are saved with it.

An argument is written into the template as the value that a name has where nothing else gives it one. So the template
alone says how messages are rendered: in training, in an evaluation, by whoever loads the saved model, and in the
tokenizer's fingerprint.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from klimb.policies.settings import is_template_text


def apply_chat_settings(
    tokenizer: PreTrainedTokenizerBase, *, chat_template: str | None, arguments: Mapping[str, Any]
) -> None:
    """Give the tokenizer this chat template, and the template these arguments.

    Args:
        tokenizer: changed in place.
        chat_template: a Jinja template, or the path of a file with one; None keeps the tokenizer's own.
        arguments: name -> value, as `apply_chat_template` takes them by name.

    Raises:
        ValueError: there is no such file, it is no template, or the template does not read an argument.
    """
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
        _check_syntax(tokenizer, chat_template)
    if not arguments:
        return
    given = tokenizer.chat_template
    if not given:
        raise ValueError(
            f"model.template_arguments: the tokenizer of {tokenizer.name_or_path!r} has no chat template that could "
            "read them; set model.chat_template"
        )
    templates = given if isinstance(given, dict) else {"": given}
    for name in arguments:
        if not any(_reads(template, name) for template in templates.values()):
            raise ValueError(
                f"model.template_arguments.{name}: the chat template of {tokenizer.name_or_path!r} does not read a "
                f"name {name!r}, so it would do nothing; leave it out, or look how the template spells it"
            )
    written = {name: with_arguments(template, arguments) for name, template in templates.items()}
    tokenizer.chat_template = written if isinstance(given, dict) else written[""]


def read_template(chat_template: str) -> str:
    """Return the template itself, read from its file unless it is given as text.

    Raises:
        ValueError: there is no such file, or it is not UTF-8.
    """
    if is_template_text(chat_template):
        return chat_template
    path = Path(chat_template)
    if not path.is_file():
        raise ValueError(f"model.chat_template = {chat_template!r}: there is no such file in {path.absolute().parent}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"model.chat_template = {chat_template!r}: not UTF-8 ({error.reason})") from error


def with_arguments(template: str, arguments: Mapping[str, Any]) -> str:
    """Return the template with these values for the names that nothing else gives one; once written, as it is.

    The line feed at the end is eaten by the block before it, as in `apply_chat_template`: what is rendered begins as
    before.
    """
    lead = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}{{% endif %}}"
        for name, value in arguments.items()
    )
    return template if template.startswith(f"{lead}\n") else f"{lead}\n{template}"


def _reads(template: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def _check_syntax(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> None:
    """Raise if the text is no template; what it raises itself is for the messages of the run to show."""
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True)
    # A template is a program: besides what it raises itself it may raise anything.
    except Exception as error:
        if type(error).__name__ == "TemplateSyntaxError":
            shown = chat_template if not is_template_text(chat_template) else f"{chat_template[:40]}…"
            line = getattr(error, "lineno", "?")
            raise ValueError(f"model.chat_template = {shown!r}: not a Jinja template: {error} (line {line})") from error
