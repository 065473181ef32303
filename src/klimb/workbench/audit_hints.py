"""What to type for a check that lacked a piece. Findings know no command line; this does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from klimb.experience import Sample
from klimb.experience.audit import AuditReport, Finding

EVALUATION = "--eval TASK, one of arithmetic, reasoning-gym:NAME and file:PATH"
MODEL = "--model MODEL"
LOGGING_MODEL = "--model MODEL --is-logging-model, with the model that drew the data"
NEEDS_EVALUATION = (
    "evaluation prompts not in the data",
    "evaluation prompts in the data",
    "evaluation prompts in part in the data",
)
NEEDS_TOKENIZER = ("token ids decode to the text",)
NEEDS_SCORES = (
    "log-probabilities moved by one place",
    "effective share of token weights",
    "tokens outside the band",
)
NEEDS_LOGGING_MODEL = ("k3 against the logging model",)
NEEDS_FRESH = ("the policy's own answers look like logged ones",)


def hints(
    samples: Sequence[Sample], *, has_model: bool, has_questions: bool, is_logging_model: bool, num_fresh: int
) -> Mapping[str, str]:
    """Name of a finding -> the option that gives it what it lacks; only options that were not given and would help."""
    found: dict[str, str] = {}
    has_ids = any(sample.response_ids for sample in samples)
    has_log_mu = any(sample.log_mu is not None and sample.response_ids for sample in samples)
    if not has_questions:
        found |= dict.fromkeys(NEEDS_EVALUATION, EVALUATION)
    if not has_model and has_ids:
        found |= dict.fromkeys(NEEDS_TOKENIZER, MODEL)
    if not has_model and has_log_mu:
        found |= dict.fromkeys(NEEDS_SCORES, MODEL)
    if not is_logging_model and has_log_mu:
        found |= dict.fromkeys(NEEDS_LOGGING_MODEL, LOGGING_MODEL)
    if not num_fresh:
        found |= dict.fromkeys(NEEDS_FRESH, "--fresh 100" if has_model else f"{MODEL} --fresh 100")
    return found


def with_hints(report: AuditReport, options: Mapping[str, str]) -> AuditReport:
    """The report whose unknown findings say what to type."""
    blocks = tuple(
        replace(block, findings=tuple(_with_hint(finding, options) for finding in block.findings))
        for block in report.blocks
    )
    return replace(report, blocks=blocks)


def _with_hint(finding: Finding, options: Mapping[str, str]) -> Finding:
    option = options.get(finding.name)
    if option is None or finding.status != "unknown":
        return finding
    return replace(finding, meaning=f"{finding.meaning} (type {option})")
