"""The check, once at loading, that klimb's way of scoring gives the model's own log-probabilities."""

import torch
from torch import Tensor, nn

from klimb.policies.policy import Policy

TOLERANCE = 1e-2
"""In nats, for float32; sharing done wrong, a wrong position or a wrong scale changes log-probabilities by far more."""


SCALE_FIELDS = ("logit_scale", "logits_scaling", "lm_head_multiplier", "logits_scale")
"""Names that architectures give to a factor on (or a divisor of) their logits."""


@torch.no_grad()
def find_exact_scoring(policy: Policy) -> None:
    """Set `packs_rows`, `shares_prompts` and `logit_scale` so that a few tokens get the model's log-probabilities.

    Architectures differ in what happens to logits, in positions and in how a cache is continued. Rather than trust
    names of fields, the ways that exist are tried on a few tokens, and the first that agrees is taken.

    Raises:
        ValueError: none agrees; training such a model would follow wrong gradients.
    """
    probe = _Probe.of(policy)
    expected = probe.expected(policy)
    compute_dtype, policy.compute_dtype = policy.compute_dtype, torch.float32
    try:
        gaps = []
        for packs_rows, shares_prompts in _possible_passes(policy):
            for scale in _possible_scales(policy):
                policy.packs_rows, policy.shares_prompts, policy.logit_scale = packs_rows, shares_prompts, scale
                gaps.append(probe.gap(policy, expected))
                if gaps[-1] <= TOLERANCE:
                    return
    finally:
        policy.compute_dtype = compute_dtype
    raise ValueError(
        f"the log-probabilities of {type(policy.causal_lm).__name__} computed from its hidden states differ from its "
        f"own by {min(gaps):.2g} nats or more (allowed {TOLERANCE}); this architecture is not supported"
    )


def _possible_passes(policy: Policy) -> list[tuple[bool, bool]]:
    """Pairs of `packs_rows` and `shares_prompts`, the fastest first."""
    passes = [(True, policy.shares_prompts)] if policy.packs_rows else []
    return passes + [(False, shares) for shares in ((True, False) if policy.shares_prompts else (False,))]


def _possible_scales(policy: Policy) -> list[float]:
    config = policy.causal_lm.config.get_text_config()
    named = [getattr(config, field, None) for field in SCALE_FIELDS]
    scales = [1.0]
    for value in named:
        if isinstance(value, int | float) and value not in (0, 1):
            scales += [float(value), 1 / value]
    return scales


class _Probe:
    """Two prompts of different lengths and three responses to them, of arbitrary tokens."""

    def __init__(self, prompts: list[list[int]], response_ids: Tensor):
        self.prompts = prompts
        self.prompt_index = torch.tensor([1, 0, 1])
        self.response_ids = response_ids

    @classmethod
    def of(cls, policy: Policy) -> "_Probe":
        ids = [(7 + 31 * i) % policy.num_vocab for i in range(17)]
        return cls([ids[:3], ids[3:8]], torch.tensor(ids[8:]).view(3, 3))

    def expected(self, policy: Policy) -> Tensor:
        """From full logits of one row after the other, without padding or cache."""
        rows = []
        for index, response in zip(self.prompt_index.tolist(), self.response_ids, strict=True):
            prompt = torch.tensor(self.prompts[index])
            ids = torch.cat([prompt, response])[None].to(policy.device)
            logits = policy.causal_lm(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            log_p = logits.float().log_softmax(-1)
            rows.append(nn.functional.nll_loss(log_p, response.to(policy.device), reduction="none").neg())
        return torch.stack(rows)

    def gap(self, policy: Policy, expected: Tensor) -> float:
        """Largest difference in nats; infinite if a value is not a number."""
        mask = torch.ones_like(self.response_ids, dtype=torch.bool)
        log_pi = policy.log_probs(self.prompts, self.prompt_index, self.response_ids, mask, temperature=1.0).log_pi
        gap = (log_pi - expected).abs().max()
        return float(gap.nan_to_num(nan=torch.inf))
