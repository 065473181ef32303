"""`klimb config`: every setting with what it takes, its default and its meaning."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klimb.workbench.config.fields import FieldFacts


def config(key: str = "", /) -> None:
    """Print every setting with what it takes, its default and its meaning; or those of one section, or one key.

    Args:
        key: A section such as `sampling` or `objective.clip`, or a key such as `objective.beta` or just `beta`.
    """
    from klimb.workbench.config.document import fields_of

    sys.stdout.write("\n".join(_entry(facts) for facts in fields_of(key)) + "\n")


def _entry(facts: "FieldFacts") -> str:
    from klimb.workbench.config.document import default_in_words

    kind = f"   ({facts.kinds[-1]})" if facts.kinds and not facts.path.endswith(".kind") else ""
    default = default_in_words(facts)
    takes = facts.allowed + (f"; default {default}" if default else "")
    return f"{facts.path}{kind}\n    {takes}\n    {facts.meaning}"
