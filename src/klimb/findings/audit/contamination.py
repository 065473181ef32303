"""Evaluation prompts that the data already holds: their scores would measure memory."""

from collections import Counter
from collections.abc import Sequence

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import at_most, counted, normalised, percent, prompt_text, unknown
from klimb.findings.audit.report import Block
from klimb.findings.finding import Finding

NUM_WORDS = 8
"""Words of an n-gram; a shorter prompt can only be found whole."""


TEMPLATE_SHARE = 0.1
"""An n-gram of more than this share of the evaluation prompts, and of 3 at least, is their template."""


def contamination_block(samples: Sequence[Sample], evaluation_prompts: Sequence[str]) -> Block:
    """Return evaluation prompts found whole among the data's messages, or in part by shared runs of 8 words."""
    title = "Whether the evaluation prompts are in the data"
    names = ("evaluation prompts in the data", "evaluation prompts in part in the data")
    if not evaluation_prompts:
        why = "no evaluation prompts were given"
        return Block(name="contamination", title=title, findings=(unknown(names[0], why), unknown(names[1], why)))
    whole = found_whole(samples, evaluation_prompts)
    partly, num_long = found_in_part(samples, evaluation_prompts)
    return Block(
        name="contamination",
        title=title,
        findings=(
            _finding(names[0], len(whole), len(evaluation_prompts), "their scores measure memory; take them out"),
            unknown(names[1], f"no evaluation prompt has {NUM_WORDS} words beside its template")
            if not num_long
            else _finding(names[1], len(partly), num_long, f"a run of {NUM_WORDS} words is shared; look at them"),
        ),
        notes=(f"runs of {NUM_WORDS} words that many evaluation prompts share are their template and not counted",),
    )


def found_whole(samples: Sequence[Sample], evaluation_prompts: Sequence[str]) -> list[int]:
    """Numbers of the evaluation prompts equal to a message or to a whole prompt, case and white space aside."""
    messages = {message["content"] for sample in samples for message in sample.prompt}
    known = {normalised(text) for text in messages | {prompt_text(sample) for sample in samples}}
    return [number for number, prompt in enumerate(evaluation_prompts) if normalised(prompt) in known]


def found_in_part(samples: Sequence[Sample], evaluation_prompts: Sequence[str]) -> tuple[list[int], int]:
    """Numbers of the evaluation prompts that share a run of 8 words with some text of a sample, and how many could.

    What was put into a conversation, as the results of tools, is text of a sample too.
    """
    wanted = [word_runs(prompt) for prompt in evaluation_prompts]
    frequency = Counter(run for runs in wanted for run in runs)
    most = max(2.0, TEMPLATE_SHARE * len(wanted))
    wanted = [{run for run in runs if frequency[run] <= most} for runs in wanted]
    searched = {run for runs in wanted for run in runs}
    hits: set[str] = set()
    if searched:
        texts = {prompt_text(sample) for sample in samples} | {sample.response for sample in samples}
        texts |= {turn.text for sample in samples for turn in sample.turns if not turn.is_drawn}
        for text in texts:
            hits |= searched & word_runs(text)
    found = [number for number, runs in enumerate(wanted) if runs & hits]
    return found, sum(bool(runs) for runs in wanted)


def word_runs(text: str) -> set[str]:
    """Every run of 8 words of the text in lower case; none for a shorter one."""
    words = text.casefold().split()
    return {" ".join(words[start : start + NUM_WORDS]) for start in range(len(words) - NUM_WORDS + 1)}


def _finding(name: str, found: int, total: int, meaning: str) -> Finding:
    share = found / total
    return Finding(
        name=name,
        evidence=f"{found:,} of {counted(total, 'prompt')} ({percent(share)})",
        status=at_most(share, good=0.0, bad=0.0),
        title=meaning if found else "none",
        threshold="none",
        source="8-grams: arXiv 2005.14165 used 13 words, shorter prompts need fewer; own choice",
        number=share,
    )
