"""Conversations of the tiny model: two turns of its own with the result of a tool between them."""

from dataclasses import replace

import torch

from klimb.experience import Sample, SamplingSettings, ToolCall, Turn

QUESTION = ({"role": "user", "content": "look it up"},)
TOOLS = '[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]'


def ids_of(policy, text):
    """Token ids of a text that may spell control tokens; the tiny tokenizer has one token a character."""
    vocabulary = policy.tokenizer.get_vocab()
    found, rest = [], text
    while rest:
        token = next((name for name in ("<|im_start|>", "<|im_end|>") if rest.startswith(name)), rest[0])
        found.append(vocabulary[token])
        rest = rest[len(token) :]
    return tuple(found)


def talk(policy, *, number=0, group="g", first="call", result="42", last="it is 42", reward=1.0, question=QUESTION):
    """A sample of two drawn turns, with what the policy gives its drawn tokens as log_mu where it has the room."""
    spans = (
        Turn(
            role="assistant",
            text=first,
            num_tokens=len(first) + 1,
            finish_reason="stop",
            seconds=0.25,
            calls=(ToolCall(name="look", arguments='{"what": "it"}'),),
        ),
        Turn(role="tool", text=result, num_tokens=0, name="look", seconds=0.5),
        Turn(role="assistant", text=last, num_tokens=len(last) + 1, finish_reason="stop", reward=0.5),
    )
    between = f"\n<|im_start|>tool\n{result}<|im_end|>\n<|im_start|>assistant\n"
    parts = (ids_of(policy, f"{first}<|im_end|>"), ids_of(policy, between), ids_of(policy, f"{last}<|im_end|>"))
    spans = (spans[0], replace(spans[1], num_tokens=len(parts[1])), spans[2])
    sample = Sample(
        sample_id=f"talk-{number}",
        group_id=group,
        prompt=question,
        prompt_ids=policy.render(question),
        response=f"{first}\n\n{last}",
        response_ids=tuple(token for part in parts for token in part),
        finish_reason="stop",
        reward=reward,
        sampling=SamplingSettings(max_new_tokens=20),
        model=policy.name,
        tokenizer=policy.fingerprint,
        turns=spans,
        tools=TOOLS,
        metadata={"ended": "over", "correct": "yes" if reward > 0.5 else "no"},
    )
    if len(sample.prompt_ids) + len(sample.response_ids) > policy.max_positions:
        return sample
    return replace(sample, log_mu=log_probs_of_drawn(policy, sample), log_mu_provenance="sampler")


@torch.no_grad()
def log_probs_of_drawn(policy, sample):
    """Log-probability of each drawn token, out of one pass over prompt and response, without the policy's own code."""
    ids = torch.tensor([[*sample.prompt_ids, *sample.response_ids]])
    log_pi = policy.model(ids).logits[0].float().log_softmax(-1)
    start = len(sample.prompt_ids)
    return tuple(
        float(log_pi[start + place - 1, token])
        for place, (token, drawn) in enumerate(zip(sample.response_ids, sample.is_drawn, strict=True))
        if drawn
    )
