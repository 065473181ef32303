"""The rows that show what decided, for the audit's page: text, reward, and token by token log μ beside log π."""

import math
from collections.abc import Sequence

from klimb.experience.audit.report import Example
from klimb.workbench.audit_escaping import escaped, escaped_part, escaped_token

MOST_CHARACTERS = 4000
MOST_TOKENS = 400
APART = math.log(2)
"""Nats. Rows in which w = π/μ is outside [0.5, 2], the usual mask band, are marked."""
NO_TEXT = "[no text]"
"""A control token, such as the one that ends a response, decodes to nothing."""
APART_CLASS = ' class="apart"'


def examples_section(examples: Sequence[Example]) -> str:
    """All examples; empty without any."""
    if not examples:
        return ""
    shown = "".join(_example(number, example) for number, example in enumerate(examples, start=1))
    return f'<section aria-labelledby="examples"><h2 id="examples">Rows that show it</h2>{shown}</section>'


def _example(number: int, example: Example) -> str:
    reward = "no reward" if example.reward is None else f"reward {example.reward:g}"
    return (
        f"<article><h3>{number}. {escaped_part(example.sample_id, limit=120)}</h3>"
        f'<p>{escaped(example.note)} <span class="quiet">({reward})</span></p>'
        f'<p class="quiet">prompt</p><pre dir="auto">{escaped_part(example.prompt, limit=MOST_CHARACTERS)}</pre>'
        f'<p class="quiet">response</p><pre dir="auto">{escaped_part(example.response, limit=MOST_CHARACTERS)}</pre>'
        f"{_tokens(example)}</article>"
    )


def _tokens(example: Example) -> str:
    length = max(len(example.tokens), len(example.log_mu), len(example.log_pi))
    if length == 0:
        return '<p class="quiet">No tokens were recorded.</p>'
    rows = "".join(_token_row(example, index) for index in range(min(length, MOST_TOKENS)))
    more = f" The first {MOST_TOKENS} of {length:,}." if length > MOST_TOKENS else ""
    heads = (
        '<th scope="col">token</th><th scope="col" class="number">log μ</th><th scope="col" class="number">log π</th>'
    )
    return (
        f"<details><summary>{length:,} tokens with log μ and log π</summary>"
        f'<table class="tokens"><caption>Nats. Marked * where π/μ is outside [0.5, 2].{more}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _token_row(example: Example, index: int) -> str:
    token = (escaped_token(example.tokens[index]) or NO_TEXT) if index < len(example.tokens) else "–"
    mu, pi = _at(example.log_mu, index), _at(example.log_pi, index)
    is_apart = mu is not None and pi is not None and not abs(pi - mu) <= APART
    return (
        f"<tr{APART_CLASS if is_apart else ''}><td>{token}{' *' if is_apart else ''}</td>"
        f'<td class="number">{_nats(mu)}</td><td class="number">{_nats(pi)}</td></tr>'
    )


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".replace("-", "−")
