"""Ids and text of a sample are one response, or the sample is refused; token bytes of a log become their ids."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from klimb.experience import Sample, SamplingSettings
from klimb.policies import TokenMismatch, ids_of_tokens, load_policy, with_token_ids
from klimb.policies.tokenizer import fingerprint_of, vocabulary_of
from klimb.samplers import LocalSampler
from klimb.training import score_samples

END, START, UNKNOWN = 2, 1, 0
PROMPT = ({"role": "user", "content": "What is 2+3?"},)


def ids_of(policy, text):
    """The tiny tokenizer has one token a character."""
    return tuple(policy.tokenizer.get_vocab()[character] for character in text)


def text_only(response, *, finish_reason="stop", **fields):
    return Sample(
        **{
            "sample_id": "s1",
            "group_id": "g1",
            "prompt": PROMPT,
            "prompt_ids": (),
            "response": response,
            "response_ids": (),
            "finish_reason": finish_reason,
            **fields,
        }
    )


def with_ids(policy, response, response_ids, **fields):
    return text_only(response, **{"prompt_ids": policy.render(PROMPT), "response_ids": tuple(response_ids), **fields})


def byte_level(vocabulary, **special):
    """A tokenizer of byte-level tokens (GPT-2's characters) without merges, and its added tokens."""
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.mark.parametrize(("finish_reason", "end"), [("stop", (END,)), ("unknown", (END,)), ("length", ())])
def test_a_text_gets_the_rendered_prompt_its_own_ids_and_the_end_unless_it_was_cut(tiny_policy, finish_reason, end):
    sample = with_token_ids(tiny_policy, text_only("5 .", finish_reason=finish_reason))
    assert sample.prompt_ids == tiny_policy.render(PROMPT)
    assert sample.response_ids == ids_of(tiny_policy, "5 .") + end
    assert sample.tokenizer == tiny_policy.fingerprint
    assert with_token_ids(tiny_policy, sample) is sample


def test_text_that_spells_the_end_token_does_not_end_the_response(tiny_policy):
    sample = with_token_ids(tiny_policy, text_only("a<|im_end|>b"))
    assert sample.response_ids.count(END) == 1
    assert sample.response_ids == (*ids_of(tiny_policy, "a<|im_end|>b"), END)


def test_a_text_that_the_tokenizer_cannot_write_is_refused(tiny_policy):
    with pytest.raises(TokenMismatch, match=r"sample s1.*cannot write this text"):
        with_token_ids(tiny_policy, text_only("café"))


def test_an_empty_answer_that_ended_is_its_end_token_and_one_that_was_cut_is_nothing(tiny_policy):
    assert with_token_ids(tiny_policy, text_only("")).response_ids == (END,)
    with pytest.raises(TokenMismatch, match="holds no token"):
        with_token_ids(tiny_policy, text_only("", finish_reason="length"))


def test_log_probabilities_do_not_survive_new_ids(tiny_policy):
    old = text_only("5", log_mu=(), log_mu_provenance="sampler", log_ref=())
    sample = with_token_ids(tiny_policy, old)
    assert (sample.log_mu, sample.log_mu_provenance, sample.log_ref) == (None, "absent", None)


def test_response_ids_of_a_log_without_prompt_ids_keep_their_log_mu(tiny_policy):
    old = text_only("5", response_ids=(*ids_of(tiny_policy, "5"), END))
    old = replace(old, log_mu=(-1.0, -2.0), log_mu_provenance="sampler")
    sample = with_token_ids(tiny_policy, old)
    assert sample.prompt_ids == tiny_policy.render(PROMPT)
    assert sample.log_mu == (-1.0, -2.0)


@pytest.mark.parametrize(
    ("response", "end"),
    [("5 .", (END,)), ("5 .", ()), ("5 .<|im_end|>", (END, END)), ("", (END,))],
    ids=["with-end", "without-end", "control-tokens-written", "only-the-end"],
)
def test_ids_that_are_the_text_pass_with_or_without_the_end_token(tiny_policy, response, end):
    text = response.removesuffix("<|im_end|>")
    sample = with_ids(tiny_policy, response, ids_of(tiny_policy, text) + end)
    assert with_token_ids(tiny_policy, sample) is sample


def test_ids_of_another_text_are_refused_and_the_place_is_shown(tiny_policy):
    sample = with_ids(tiny_policy, "5 + 3 = 8", ids_of(tiny_policy, "5 + 3 = 9"))
    with pytest.raises(TokenMismatch, match="the first difference is at 8"):
        with_token_ids(tiny_policy, sample)


def test_ids_shifted_by_one_token_are_refused(tiny_policy):
    with pytest.raises(TokenMismatch, match="not the same response"):
        with_token_ids(tiny_policy, with_ids(tiny_policy, "abc", (*ids_of(tiny_policy, "bc"), END)))


def test_a_known_fingerprint_must_be_the_policys(tiny_policy):
    sample = with_ids(tiny_policy, "5", ids_of(tiny_policy, "5"))
    assert with_token_ids(tiny_policy, replace(sample, tokenizer=tiny_policy.fingerprint)).response == "5"
    with pytest.raises(TokenMismatch, match="tokenizer 0123456789abcdef"):
        with_token_ids(tiny_policy, replace(sample, tokenizer="0123456789abcdef"))


@pytest.mark.parametrize("wrong", [-1, 10_000])
@pytest.mark.parametrize("name", ["prompt_ids", "response_ids"])
def test_ids_outside_the_vocabulary_are_refused(tiny_policy, name, wrong):
    sample = with_ids(tiny_policy, "5", ids_of(tiny_policy, "5"))
    with pytest.raises(TokenMismatch, match=rf"{name}\[1\] is {wrong}"):
        with_token_ids(tiny_policy, replace(sample, **{name: (END, wrong)}))


@pytest.fixture
def padded(tiny_policy):
    """The tiny model with eight rows more than its tokenizer has tokens, as Qwen's models have some."""
    tiny_policy.causal_lm.resize_token_embeddings(len(tiny_policy.tokenizer) + 8)
    return tiny_policy


def test_ids_of_the_models_padding_rows_are_actions_without_a_text(padded):
    first, last = len(padded.tokenizer), padded.num_vocab - 1
    assert last == first + 7
    (five,) = ids_of(padded, "5")
    sample = with_ids(padded, "5", (first, five, last, END), prompt_ids=(3, last))
    assert with_token_ids(padded, sample) is sample
    assert padded.decode((first, five, last)) == "5" and padded.decode((last,)) == ""
    assert padded.has_token(five) and not padded.has_token(first)


@pytest.mark.parametrize("name", ["prompt_ids", "response_ids"])
def test_ids_beyond_the_model_are_refused(padded, name):
    sample = with_ids(padded, "", (END, END), prompt_ids=(3, 3))
    with pytest.raises(TokenMismatch, match=rf"{name}\[1\] is {padded.num_vocab}, which is no token .*to 106\)"):
        with_token_ids(padded, replace(sample, **{name: (END, padded.num_vocab)}))


def test_what_a_padded_model_draws_is_read_again_and_scored_as_it_was_drawn(padded):
    sampler, settings = LocalSampler(padded), SamplingSettings(max_new_tokens=24)
    prompt = padded.render(({"role": "user", "content": "Say 5"},))
    (answers,) = sampler.sample([prompt], num_samples=32, settings=settings, generator=torch.Generator().manual_seed(0))
    assert sum(not all(map(padded.has_token, answer.response_ids)) for answer in answers) >= 8
    for answer in answers:
        text = padded.decode(answer.response_ids)
        sample = with_ids(
            padded, text, answer.response_ids, prompt_ids=tuple(prompt), finish_reason=answer.finish_reason
        )
        read = with_token_ids(padded, replace(sample, log_mu=tuple(answer.log_mu), log_mu_provenance="sampler"))
        (log_pi,) = score_samples(padded, [read], max_tokens=256)
        assert log_pi == pytest.approx(answer.log_mu, abs=1e-4)


@pytest.fixture
def byte_policy(tiny_policy):
    """The tiny model with byte-level tokens; é is two of them."""
    template = tiny_policy.tokenizer.chat_template
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())[: tiny_policy.num_vocab - 4]
    tiny_policy.tokenizer = byte_level(["<|x|>", "<|im_start|>", "<|im_end|>", *symbols, "Ã", "©", "Ġ"])
    tiny_policy.tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})
    tiny_policy.tokenizer.chat_template = template
    return tiny_policy


@pytest.mark.parametrize("recorded", ["caf", "caf\N{REPLACEMENT CHARACTER}"])
def test_a_response_cut_inside_a_character_passes_however_its_rest_was_written(byte_policy, recorded):
    ids = ids_of(byte_policy, "cafÃ")
    sample = with_ids(byte_policy, recorded, ids, finish_reason="length", prompt_ids=(3,))
    assert with_token_ids(byte_policy, sample) is sample
    if recorded == "caf":
        with pytest.raises(TokenMismatch):
            with_token_ids(byte_policy, replace(sample, finish_reason="stop"))


def test_a_text_cut_inside_a_character_is_refused(byte_policy):
    cut = text_only("caf\N{REPLACEMENT CHARACTER}", finish_reason="length", prompt_ids=(3,))
    with pytest.raises(TokenMismatch, match="cut inside a character"):
        with_token_ids(byte_policy, cut)


def test_the_fingerprint_survives_saving_and_sees_every_change(tiny_policy, tmp_path):
    before = tiny_policy.fingerprint
    assert len(before) == 16
    tiny_policy.save(tmp_path)
    assert load_policy(str(tmp_path), dtype="float32", device="cpu").fingerprint == before
    seen = {before}
    tiny_policy.tokenizer.chat_template += " "
    seen.add(tiny_policy.fingerprint)
    tiny_policy.tokenizer.add_tokens(["<tool>"])
    seen.add(tiny_policy.fingerprint)
    tiny_policy.tokenizer.pad_token = "<unk>"
    seen.add(fingerprint_of(load_with(tiny_policy.tokenizer, tmp_path / "pad")))
    assert len(seen) == 4


def load_with(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_two_vocabularies_with_the_same_tokens_in_another_order_differ():
    assert fingerprint_of(byte_level(["a", "b", "Ġ"])) != fingerprint_of(byte_level(["b", "a", "Ġ"]))


def test_bytes_of_a_byte_level_vocabulary_become_their_ids():
    tokenizer = byte_level(["a", "Ġ", "Ġa", "Ã", "Ã©", "Ċ", "<|end|>"], eos_token="<|end|>")
    tokens = [b" a", b"\xc3\xa9", b"\xc3", b"\n", b" ", b"<|end|>"]
    assert ids_of_tokens(tokenizer, tokens) == (2, 4, 3, 5, 1, 6)


def test_bytes_of_a_sentencepiece_vocabulary_become_their_ids_and_ordinary_pieces_go_before_byte_pieces():
    pieces = ["<unk>", "<0x41>", "<0xC3>", "A", "▁A", "é", "▁"]
    model = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], byte_fallback=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")
    assert ids_of_tokens(tokenizer, [b"A", b" A", b"\xc3", "é".encode(), b" "]) == (3, 4, 2, 5, 6)


def test_the_first_token_that_is_none_of_this_vocabulary_is_named(tiny_policy):
    assert ids_of_tokens(tiny_policy, [b"5", b"<|im_end|>"]) == (*ids_of(tiny_policy, "5"), END)
    with pytest.raises(TokenMismatch, match=r"token 1 of the log, b'55', is no token"):
        ids_of_tokens(tiny_policy, [b"5", b"55", b"66"])


def test_bytes_that_two_tokens_stand_for_are_refused():
    tokenizer = byte_level(["Ġ", "a", " "])  # a literal space beside the byte-level one
    with pytest.raises(TokenMismatch, match="is each of the tokens 0, 2"):
        ids_of_tokens(tokenizer, [b"a", b" "])


def test_a_replacement_character_in_a_log_is_refused_though_it_is_a_token():
    tokenizer = byte_level(["ï¿½", "Ġ"])  # the three bytes of U+FFFD, as in GPT-2's vocabulary
    assert vocabulary_of(tokenizer).ids_of_bytes["\N{REPLACEMENT CHARACTER}".encode()] == (0,)
    with pytest.raises(TokenMismatch, match="its own bytes were lost"):
        ids_of_tokens(tokenizer, ["\N{REPLACEMENT CHARACTER}".encode()])


@pytest.mark.slow
def test_the_embedded_models_tokens_come_back_from_their_bytes():
    policy = load_policy("smollm2-135m", dtype="float32", device="cpu")
    sample = with_token_ids(policy, text_only("Hé 🙂 <|im_end|> there\n\n  x = 12"))
    spelled = {i: token for token, ids in vocabulary_of(policy.tokenizer).ids_of_bytes.items() for i in ids}
    tokens = [spelled[i] for i in sample.response_ids]
    assert b"".join(tokens).decode() == sample.response + "<|im_end|>"
    assert ids_of_tokens(policy, tokens) == sample.response_ids
