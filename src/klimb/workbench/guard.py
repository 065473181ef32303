"""From the configuration's section `[guard]` to what measures and what is told to the loop."""

from importlib.resources import files
from pathlib import Path

from klimb.errors import ConfigError
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.training.guard.general import general_problems
from klimb.training.guard.measuring import Measurer, text_ids
from klimb.training.minibatches import tokens_at_once
from klimb.workbench.config import RunConfig


def make_measurer(config: RunConfig, policy: Policy, sampler: Sampler) -> Measurer | None:
    """Return what measures the base metrics, not yet entered; None without the section.

    Raises:
        ConfigError: the text cannot be read, a limit has nothing to be measured on, or there is no such set.
    """
    section = config.guard
    if section is None:
        return None
    pattern = section.format or ("" if config.scoring.format is None else config.scoring.format.pattern)
    if section.min_format_fraction != "none" and not pattern:
        raise ConfigError(
            "guard.min_format_fraction is set, and there is no format to check: give guard.format, a regular expression"
        )
    try:
        general = general_problems(section.general, num_problems=section.num_problems, pattern=pattern)
    except ValueError as error:
        raise ConfigError(f"guard.general: {error}; the set that is shipped is everyday") from error
    return Measurer(
        policy=policy,
        sampler=sampler,
        text=_ids(policy, section.text),
        general=general,
        has_format=bool(pattern),
        max_new_tokens=section.max_new_tokens,
        max_tokens=tokens_at_once(config.training.micro_batch_tokens, policy.device),
    )


def _ids(policy: Policy, text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    if text == "built-in":
        content = (files("klimb.training.guard") / "text.txt").read_text(encoding="utf-8")
    else:
        try:
            content = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"guard.text = {text!r} cannot be read as UTF-8 text: {error}") from error
    try:
        return text_ids(policy, content)
    except ValueError as error:
        raise ConfigError(f"guard.text: {error}") from error
