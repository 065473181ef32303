"""Comments as advantages of tokens: what they mean by enumeration, and where they change nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.losses.enumerated import POLICY, log_of, log_probs
from tests.oracle import world

from klimb.experience import Sample, SamplingSettings, collate
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.findings.metrics.of_data import COMMENTS
from klimb.losses import Inputs, NoClip, Objective, PairwiseLoss
from klimb.training import OfflineSource, SourceSettings, read_metrics, score_samples
from klimb.training.comments import blend, blend_comments, show_comment, with_comment
from klimb.training.settings import FeedbackSettings, check_loss_fits, reference_named
from klimb.training.settings.feedback import COMMENT_TEMPLATE
from klimb.training.sources.feedback import COMMENT, FeedbackStore

TEACHER = world.conditionals(world.logits(21))


def test_on_policy_the_gradient_is_that_of_the_reverse_kl_to_the_teacher_of_each_next_token():
    """Σ_y π(y)·Σ_t A_t·∇log π(y_t) = −Σ_prefix π(prefix)·∇KL(π(·|prefix)‖q(·|prefix)), the prefixes' weights fixed."""
    student = world.conditionals(POLICY)
    log_student, log_teacher = (np.log(world.token_probabilities(each)) for each in (student, TEACHER))
    table = torch.from_numpy(POLICY).requires_grad_()
    mask = torch.from_numpy(world.MASK)
    shown = torch.ones(len(mask), dtype=torch.bool)
    by_comment = torch.from_numpy(np.where(world.MASK, log_teacher - log_student, 0.0))
    advantages = blend(torch.ones(len(mask), dtype=torch.float64), by_comment, shown, weight=1.0)
    objective = Objective(beta=0.0, level="token", clip=NoClip(), estimator="reinforce")
    out = objective(Inputs(log_probs(table), log_of(student), None, advantages, mask))
    mass = torch.from_numpy(world.token_probabilities(student).prod(1))
    (actual,) = torch.autograd.grad((mass * out.terms.sum(1)).sum(), table)

    reach = np.array([np.prod([student[world.ROW[p[:t]], p[t]] for t in range(len(p))]) for p in world.PREFIXES])

    def distance(theta):
        pi = world.conditionals(theta)
        return (reach[:, None] * pi * (np.log(pi) - np.log(TEACHER))).sum()

    np.testing.assert_allclose(actual.numpy(), world.gradient(distance, POLICY), atol=1e-12)


def test_the_weight_is_the_share_of_the_comment_and_rows_without_one_keep_their_advantages():
    by_comment = torch.tensor([[0.5, -1.0], [9.0, 9.0]])
    shown = torch.tensor([True, False])
    of_reward = torch.tensor([2.0, -3.0])
    mixed = blend(of_reward, by_comment, shown, weight=0.25)
    torch.testing.assert_close(mixed, torch.tensor([[1.625, 1.25], [-3.0, -3.0]]))
    torch.testing.assert_close(blend(of_reward, by_comment, shown, weight=0.0), of_reward[:, None].expand(2, 2))
    by_token = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(blend(by_token, by_comment, shown, weight=1.0)[1], by_token[1])


def test_a_comment_stands_in_the_last_message_of_the_user_and_slots_in_it_stay_text():
    prompt = (
        {"role": "system", "content": "S"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "say {comment}"},
    )
    told = with_comment(prompt, "{question} {x}", "Q: {question}\nC: {comment}")
    assert told is not None and told[:3] == prompt[:3]
    assert told[3]["content"] == "Q: say {comment}\nC: {question} {x}"
    assert with_comment(prompt[:1], "c", COMMENT_TEMPLATE) is None


@pytest.fixture
def samples(tiny_policy) -> list[Sample]:
    """Two answers of the policy to one question, rated."""
    prompt = ({"role": "user", "content": "Say a"},)
    ids = tiny_policy.render(prompt)
    made = []
    for number, response_ids in enumerate(((5, 6, 7), (8, 9))):
        sample = Sample(
            sample_id=f"s{number}",
            group_id=f"g{number}",
            prompt=prompt,
            prompt_ids=ids,
            response=tiny_policy.decode(response_ids),
            response_ids=response_ids,
            finish_reason="length",
            reward=float(number),
            tokenizer=tiny_policy.fingerprint,
            sampling=SamplingSettings(),
        )
        (log_mu,) = score_samples(tiny_policy, [sample], max_tokens=512)
        made.append(replace(sample, log_mu=log_mu, log_mu_provenance="sampler"))
    return made


def blended(policy, samples, settings, *, score_teacher=None):
    batch = collate(samples, torch.tensor([1.0, -1.0]))

    def score(given):
        return score_samples(policy, given, max_tokens=512)

    return batch, *blend_comments(policy, batch, settings, score_policy=score, score_teacher=score_teacher or score)


def test_without_a_comment_nothing_changes(tiny_policy, samples):
    empty = [replace(sample, metadata={COMMENT: ""}) for sample in samples]
    for given in (samples, empty):
        batch, after, metrics = blended(tiny_policy, given, FeedbackSettings(comment_weight=0.5))
        assert after is batch and metrics == {"num_comments": 0, "num_comments_unused": 0}


def test_a_teacher_that_says_what_the_policy_says_gives_no_signal(tiny_policy, samples):
    told = [replace(samples[0], metadata={COMMENT: "too long"}), samples[1]]

    def deaf(given):
        return score_samples(tiny_policy, [samples[0]], max_tokens=512)

    _, after, metrics = blended(tiny_policy, told, FeedbackSettings(comment_weight=1.0), score_teacher=deaf)
    assert after.advantages.tolist() == [[0.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]
    assert metrics["comment_advantage_rms"] == 0 and metrics["num_comments"] == 1


def test_the_advantage_of_a_token_is_what_the_comment_in_the_prompt_changes(tiny_policy, samples):
    told = [replace(samples[0], metadata={COMMENT: "aaa"}), samples[1]]
    settings = FeedbackSettings(comment_weight=0.4)
    _, after, metrics = blended(tiny_policy, told, settings)
    shown = show_comment(tiny_policy, told[0], settings)
    assert shown is not None and len(shown.prompt_ids) > len(told[0].prompt_ids)
    ((teacher,), (student,)) = (score_samples(tiny_policy, [each], max_tokens=512) for each in (shown, told[0]))
    gained = torch.tensor(teacher) - torch.tensor(student)
    assert bool((gained != 0).all())
    torch.testing.assert_close(after.advantages[0], 0.6 * 1.0 + 0.4 * gained)
    assert after.advantages[1].tolist() == [-1.0, -1.0, 0.0]
    assert metrics["comment_advantage_mean"] == pytest.approx(float(gained.mean()))
    assert set(metrics) == {metric.name for metric in COMMENTS}


def test_a_comment_that_does_not_fit_beside_the_answer_is_counted_and_changes_nothing(tiny_policy, samples):
    assert tiny_policy.max_positions is not None
    told = [replace(samples[0], metadata={COMMENT: "a " * tiny_policy.max_positions}), samples[1]]
    batch, after, metrics = blended(tiny_policy, told, FeedbackSettings(comment_weight=0.5))
    assert after is batch and metrics == {"num_comments": 0, "num_comments_unused": 1}
    nobody = [replace(each, prompt=(), metadata={COMMENT: "x"}) for each in samples]
    assert blended(tiny_policy, nobody, FeedbackSettings(comment_weight=0.5))[2]["num_comments_unused"] == 2


@pytest.mark.parametrize("teacher", ["policy", pytest.param("reference", marks=pytest.mark.slow)])
def test_a_run_on_people_s_feedback_learns_from_their_comments(tiny_run, tiny_policy, samples, tmp_path: Path, teacher):
    store = Store(tmp_path / "store")
    store.append(samples)
    store.append_feedback(
        [
            Feedback(feedback_id="1", sample_id="s0", value=0.0, comment="aaaa"),
            Feedback(feedback_id="2", sample_id="s1", value=1.0),
        ]
    )
    told = FeedbackSettings(comment_weight=0.5, comment_teacher=teacher)
    logs = [OfflineSource(FeedbackStore(store, told), tiny_policy, source="feedback")]
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=2, num_epochs=1, num_minibatches=1),
        sampling=replace(tiny_run.BASE.sampling, num_prompts=2),
        sources=SourceSettings(feedback=1.0),
        advantages=replace(tiny_run.BASE.advantages, kind="batch-z-score"),
        reference=reference_named("fixed"),
        feedback=told,
    )
    tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs)
    for line in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        assert line["num_comments"] == 1 and line["comment_advantage_rms"] > 0 and line["num_optimizer_steps"] == 1


def test_a_loss_of_whole_responses_and_a_reference_that_is_not_there_are_refused(tiny_run):
    told = replace(tiny_run.BASE, feedback=FeedbackSettings(comment_weight=0.5))
    check_loss_fits(told, Objective(beta=0.01), None)
    with pytest.raises(
        ValueError, match=r"comment_weight = 0\.5 gives the tokens of one response different advantages"
    ):
        check_loss_fits(replace(told, advantages=replace(told.advantages, kind="no-baseline")), PairwiseLoss(), None)
    with pytest.raises(ValueError, match=r"objective\.level = 'token'"):
        check_loss_fits(told, Objective(level="sequence", beta=0.01), None)
    alone = replace(
        told,
        feedback=replace(told.feedback, comment_teacher="reference"),
        reference=reference_named("none"),
    )
    with pytest.raises(ValueError, match="there is no model to show the comment to"):
        check_loss_fits(alone, Objective(beta=0.0), None)
