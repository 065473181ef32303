"""Conversations of a run's newest rollouts, as the page shows them; long ones are bounded."""

from typing import Any

from klimb.experience.samples import Sample
from klimb.findings.conversations import ENDED, ENVIRONMENT_ERROR
from klimb.ui.conversation import asked_in, counted, facts_of, said_in

MOST_TURNS = 40


def talk(sample: Sample) -> dict[str, Any]:
    """Return a conversation for the template."""
    turns = said_in(sample)
    reasons = [(name, sample.metadata.get(name, "")) for name in (ENDED, ENVIRONMENT_ERROR)]
    return {
        "name": sample.sample_id,
        "reward": "no reward" if sample.reward is None else f"reward {sample.reward:g}",
        "facts": [
            (name.replace("_", " "), text)
            for name, text in (*facts_of(sample), *reasons, ("reason", sample.reward_reason))
            if text
        ],
        "prompt": counted(len(sample.prompt), "message"),
        "asked": asked_in(sample),
        "turns": turns[:MOST_TURNS],
        "num_hidden": max(0, len(turns) - MOST_TURNS),
    }
