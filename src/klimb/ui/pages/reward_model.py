"""A reward model's page: what held-out judgements say of it, from the report and the facts of its training."""

from collections.abc import Sequence

from klimb.findings.finding import Status
from klimb.findings.reward_model import RewardModelReport
from klimb.ui.pages.audit import block_values
from klimb.ui.pages.frame import html_page

GENERATOR = "klimb reward-model"


SENTENCES: dict[Status, str] = {
    "good": "It tells answers apart better than their length does.",
    "bad": "It is worse than the length of an answer alone.",
    "warning": "It is no better than the length of an answer alone, as far as this can tell.",
    "unknown": "Whether it is better than the length of an answer alone cannot be told.",
}


def sentence_of(report: RewardModelReport) -> str:
    """Return the verdict in one sentence."""
    return SENTENCES[report.verdict.status]


def reward_model_page(report: RewardModelReport, *, name: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return the whole page.

    Args:
        report: what is shown.
        name: of the reward model.
        facts: label and value of how it was made.
    """
    return html_page(
        "reward_model.html",
        title=f"Reward model {name}",
        generator=GENERATOR,
        sentence=sentence_of(report),
        verdict=report.verdict,
        blocks=[block_values(block, decided_by=report.verdict.name) for block in report.blocks],
        facts=facts,
    )
