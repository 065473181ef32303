"""How many different things the data holds."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from klimb.experience.audit.evidence import normalised, prompt_text
from klimb.experience.audit.grading import at_least, at_most, both_at_least, counted, percent, unknown
from klimb.experience.audit.minhash import near_duplicates
from klimb.experience.audit.report import Block, Figure, Finding
from klimb.experience.audit.statistics import perplexity
from klimb.experience.audit.thresholds import Thresholds
from klimb.experience.samples import Sample

EFFECTIVE_PROMPTS = "effective prompts"
_MOST_BARS = 20


def redundancy_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Repeated rows, near duplicates, and how evenly rows are spread over prompts and users."""
    prompts = [normalised(prompt_text(sample)) for sample in samples]
    pairs = [f"{prompt}\n{normalised(sample.response)}" for prompt, sample in zip(prompts, samples, strict=True)]
    counts = Counter(prompts)
    return Block(
        name="redundancy",
        title="How many different things the data holds",
        findings=(
            _effective_prompts(counts, thresholds),
            _rows_a_prompt(counts),
            _exact(pairs, thresholds),
            _near("near-duplicate prompts", "different prompt", list(counts), thresholds),
            _near("near-duplicate rows", "different row", list(dict.fromkeys(pairs)), thresholds),
            top_users(samples, thresholds),
        ),
        figures=(_rows(counts),),
        notes=("texts are compared in lower case with white space made even; near means shared character 5-grams",),
    )


def top_users(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    """Share of rows from the most active 1 % of users, at least one user."""
    name = "rows of the most active 1 % of users"
    users = Counter(user for sample in samples if (user := sample.metadata.get("user", "")))
    if not users:
        return unknown(name, "no sample says which user it came from")
    num_top = max(1, round(len(users) / 100))
    share = sum(rows for _, rows in users.most_common(num_top)) / users.total()
    return Finding(
        name=name,
        value=f"{percent(share)} from {num_top} of {counted(len(users), 'user')}",
        status=at_most(share, good=thresholds.max_top_user_share),
        meaning="" if share <= thresholds.max_top_user_share else "the data follows the taste of a few",
        threshold=f"at most {percent(thresholds.max_top_user_share)}",
        source="own choice",
        number=share,
    )


def _effective_prompts(counts: Counter[str], thresholds: Thresholds) -> Finding:
    effective = perplexity(np.array(list(counts.values()), dtype=np.float64))
    return Finding(
        name=EFFECTIVE_PROMPTS,
        value=f"{effective:.1f} of {len(counts):,}",
        status=at_least(effective, good=2 * thresholds.min_effective_prompts, bad=thresholds.min_effective_prompts),
        meaning="exp(entropy) of rows over prompts: as many equally frequent prompts would be as diverse",
        threshold=both_at_least(f"{2 * thresholds.min_effective_prompts:g}", f"{thresholds.min_effective_prompts:g}"),
        source="few clusters make intervals too narrow (Cameron, Gelbach, Miller 2008); own choice of the number",
        number=effective,
    )


def _rows_a_prompt(counts: Counter[str]) -> Finding:
    sizes = list(counts.values())
    mean = sum(sizes) / len(sizes)
    return Finding(
        name="rows a prompt",
        value=f"{min(sizes)} to {max(sizes)}, mean {mean:.1f}",
        status="good",
        meaning="",
        number=mean,
    )


def _exact(pairs: Sequence[str], thresholds: Thresholds) -> Finding:
    share = 1 - len(set(pairs)) / len(pairs)
    return Finding(
        name="repeated rows",
        value=percent(share),
        status=at_most(share, good=thresholds.max_duplicates),
        meaning=(
            "the same prompt and response again; right where short answers were drawn several times, "
            "wrong where a log was read twice"
            if share
            else ""
        ),
        threshold=f"at most {percent(thresholds.max_duplicates)}",
        source="own choice",
        number=share,
    )


def _near(name: str, noun: str, texts: Sequence[str], thresholds: Thresholds) -> Finding:
    found = near_duplicates(texts, similarity=thresholds.near_duplicate)
    share = len(found) / len(texts)
    return Finding(
        name=name,
        value=f"{percent(share)} of {counted(len(texts), noun)}",
        status=at_most(share, good=thresholds.max_duplicates),
        meaning="texts made from one template count as near" if found else "",
        threshold=f"at most {percent(thresholds.max_duplicates)} of Jaccard >= {thresholds.near_duplicate:g}",
        source="similarity: arXiv 2107.06499; share: own choice",
        number=share,
    )


def _rows(counts: Counter[str]) -> Figure:
    largest = [float(rows) for _, rows in counts.most_common(_MOST_BARS)]
    return Figure(
        title=f"Rows of the {len(largest)} most frequent prompts",
        kind="bars",
        x=tuple(float(place) for place in range(len(largest))),
        y=tuple(largest),
        x_label="prompt, most frequent first",
        y_label="rows",
        labels=tuple(str(place + 1) for place in range(len(largest))),
    )
