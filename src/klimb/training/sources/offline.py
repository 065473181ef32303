"""Groups of logged samples: experience that this run did not draw, in a new order each epoch."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

from klimb.experience import NEEDS_BATCH, NEEDS_GROUPS, Message, Sample
from klimb.experience.content import hash_content
from klimb.experience.held_out import HeldOutGroups, hold_out
from klimb.experience.samples import MOST_REWARD
from klimb.policies import Policy
from klimb.policies.tokenizing import UnusableSample, fit_sample
from klimb.training.prompts import PromptStream
from klimb.training.recipes import RECIPES
from klimb.training.settings import SourceSettings
from klimb.training.several_rewards import ADVICE, NO_REWARDS, PREFIX, Rewards, is_scaled
from klimb.training.sources.feedback import FeedbackStore

logger = logging.getLogger(__name__)


USABLE_FOR_RATIOS = ("sampler", "recomputed")
"""Where log_mu must come from for a ratio: recorded while drawing, or scored again by the weights that drew."""


GROUPS_AT_ONCE = 256
"""Groups in memory while the contents of a source are hashed."""


@runtime_checkable
class GroupStore(Protocol):
    """What training needs of `klimb.experience.store.Store`."""

    def count(self, where: str = "") -> int:
        """How many samples there are."""
        ...

    def group_ids(self, *, where: str = "") -> list[str]:
        """Every group's id once, sorted."""
        ...

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        """Return the samples of these groups, in that order."""
        ...


class OfflineSource:
    """A source of logged groups.

    Text-only samples get token ids from the policy's tokenizer as they are taken; a sample whose ids do not fit the
    policy, that is longer than its positions, whose prompt its chat template refuses, or whose reward is beyond ±1e15
    or no number, is refused and counted, and the first is named in the log.

    Attributes:
        source: `log` or `feedback`: what its samples are called in a batch.
        num_refused: samples refused so far.
        held_out: the groups that are not trained on; None without any.
        in_words: what of people's feedback is used beside ratings, and what is not; empty where there is nothing else.
    """

    def __init__(
        self,
        store: GroupStore,
        policy: Policy,
        *,
        source: Literal["log", "feedback"],
        where: str = "",
        held_out_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.source: Literal["log", "feedback"] = source
        self.num_refused = 0
        self.in_words = store.in_words() if isinstance(store, FeedbackStore) else ""
        self._store = store
        self._policy = policy
        self._where = where
        self._group_ids = store.group_ids(where=where)
        if not self._group_ids:
            condition = f" where {where}" if where else ""
            raise ValueError(f"the {source} holds no sample{condition}; import some, or widen the condition")
        self.held_out: HeldOutGroups | None = None
        if held_out_fraction:
            self.held_out = self._hold_out(held_out_fraction, seed)
            aside = set(self.held_out.group_ids)
            self._group_ids = [group_id for group_id in self._group_ids if group_id not in aside]
        self._stream = PromptStream(len(self._group_ids), seed=seed, purpose=source)

    @property
    def num_groups(self) -> int:
        """Groups in the source."""
        return len(self._group_ids)

    @property
    def epoch(self) -> int:
        """Passes over the source so far."""
        return self._stream.epoch

    def count(self, condition: str) -> int:
        """Return how many samples of the source there are for which the condition holds."""
        return self._store.count(f"({self._where}) and {condition}" if self._where else condition)

    def check_usable(self, *, needs_log_mu: bool, usable_recipes: Sequence[str]) -> None:
        """Return if the loss can use every sample of the source.

        Raises:
            ValueError: the loss forms w = π/μ, and some samples have no log_mu that it could take.
        """
        if not needs_log_mu:
            return
        known = ", ".join(f"'{name}'" for name in USABLE_FOR_RATIOS)
        condition = f"log_mu_provenance not in ({known})"
        if self._where:
            condition = f"({self._where}) and {condition}"
        num_unusable = self._store.count(condition)
        if num_unusable:
            raise ValueError(
                f"{num_unusable} of {self._store.count(self._where)} samples of the {self.source} have no log_mu that "
                "a ratio can be formed with (it is absent or estimated). Use a recipe that needs none: "
                f"{', '.join(usable_recipes)}; or score them with the model that wrote them: klimb experience score "
                "STORE --model MODEL --into NEW; or leave them out with where = \"log_mu_provenance = 'sampler'\""
                + ("; nobody drew what people wrote: feedback.corrections = 'off'" if self._has_corrections else "")
            )

    @property
    def _has_corrections(self) -> bool:
        return isinstance(self._store, FeedbackStore) and any("corrections" in what for what in self._store.used)

    def check_comparable(self, advantages: str, *, num_groups: int, needs_pairs: bool = False) -> None:
        """Return if a batch with so many groups of the source can have two samples that the baseline compares.

        Raises:
            ValueError: every group holds one sample, and one is not enough for the baseline or, with `needs_pairs`, for
                the loss.
        """
        if self._store.count(self._where) > self.num_groups:
            return
        if needs_pairs:
            raise ValueError(
                f"every group of the {self.source} holds one sample, and the loss compares two answers to one prompt; "
                "single answers are learnt from with objective.recipe = 'kto' or 'dro'"
            )
        what = f"every group of the {self.source} holds one sample, and advantages.kind = {advantages!r} compares"
        if advantages in NEEDS_GROUPS:
            raise ValueError(f"{what} those of a group; use advantages.kind = 'batch-z-score' or 'no-baseline'")
        if advantages in NEEDS_BATCH and min(num_groups, self.num_groups) == 1:
            raise ValueError(
                f"{what} those of a batch, of which sources.{self.source} is one group; raise the share or "
                "sampling.num_prompts, or use advantages.kind = 'no-baseline'"
            )

    def check_scalable(self, rewards: Rewards) -> None:
        """Return if every sample with a reward says what its rewards were, where one of them is scaled.

        Raises:
            ValueError: some do not, or have another reward than their parts make: people rated them.
        """
        if not is_scaled(rewards):
            return
        unsaid = " and ".join(f"metadata['{PREFIX}{name}'] is null" for name in rewards)
        parts = "coalesce(list_sum(map_values(reward_parts)), 0)"
        rated = f"abs(reward - {parts}) > 1e-6 * greatest(1, abs(reward))"
        condition = f"reward is not null and (({unsaid}) or {rated})"
        number = self._store.count(f"({self._where}) and {condition}" if self._where else condition)
        if number:
            names = ", ".join(f"rewards.{name}" for name in rewards)
            raise ValueError(
                f"{number} samples of the {self.source} say nothing of {names}, or were rated otherwise by people: "
                f"{ADVICE}"
            )

    def take(self, count: int) -> list[list[Sample]]:
        """Return the next groups; an epoch that ends in between is followed by the next, but no group comes twice."""
        numbers = list(dict.fromkeys(self._stream.take(min(count, self.num_groups))))
        groups = self._store.groups([self._group_ids[number] for number in numbers], where=self._where)
        return [[fitting for sample in group if (fitting := self._fitted(sample)) is not None] for group in groups]

    def temperatures(self) -> set[float | None]:
        """Return the temperatures that the samples were drawn at; None stands for those that do not say."""
        within = f"({self._where}) and " if self._where else ""
        found: set[float | None] = {None} if self._store.count(f"{within}sampling.temperature is null") else set()
        condition = f"{within}sampling.temperature is not null"
        while ids := self._store.group_ids(where=condition):
            group = self._store.groups(ids[:1], where=condition)[0]
            others = {sample.sampling.temperature for sample in group if sample.sampling is not None} - found
            if not others:
                break
            found |= others
            known = ", ".join(f"{temperature!r}::double" for temperature in found if temperature is not None)
            condition = f"{within}sampling.temperature not in ({known})"
        return found

    def prompts(self, count: int) -> list[tuple[Message, ...]]:
        """Return the prompts of the first groups; what the source gives next stays the same."""
        groups = self._store.groups(self._group_ids[:count], where=self._where)
        return [group[0].prompt for group in groups if group]

    def fingerprint(self) -> str:
        """Return what changes with anything that training reads of the source: all of it is read once."""
        return f"{self.num_groups} groups, SHA-256 {hash_content(self._samples(self._group_ids))}"

    def state(self) -> dict[str, Any]:
        """Numbers that `load_state` takes back."""
        return {"stream": self._stream.state(), "num_refused": self.num_refused}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues where the saved source stood."""
        self._stream.load_state(state["stream"])
        self.num_refused = int(state["num_refused"])

    def held_out_samples(self) -> Iterator[tuple[Sample, str]]:
        """Yield the held-out samples that the policy can be given, each with what was held out whole with it."""
        if self.held_out is None:
            return
        for sample in self._samples(self.held_out.group_ids):
            if (fitting := self._fitted(sample)) is not None:
                yield fitting, self.held_out.unit_of[sample.group_id]

    def _samples(self, group_ids: Sequence[str]) -> Iterator[Sample]:
        for start in range(0, len(group_ids), GROUPS_AT_ONCE):
            for group in self._store.groups(group_ids[start : start + GROUPS_AT_ONCE], where=self._where):
                yield from group

    def _hold_out(self, fraction: float, seed: int) -> HeldOutGroups:
        prompts: dict[str, str] = {}
        users: dict[str, set[str]] = {}
        for sample in self._samples(self._group_ids):
            # Without messages the ids are the prompt.
            asked = json.dumps(sample.prompt or sample.prompt_ids, sort_keys=True)
            prompts.setdefault(sample.group_id, asked)
            if user := sample.metadata.get("user"):
                users.setdefault(sample.group_id, set()).add(user)
        return hold_out(prompts, users, fraction=fraction, seed=seed)

    def _fitted(self, sample: Sample) -> Sample | None:
        try:
            _check_reward(sample)
            return replace(fit_sample(self._policy, sample), source=self.source, log_ref=None)
        except (UnusableSample, UnusableReward) as error:
            self.num_refused += 1
            if self.num_refused == 1:
                logger.warning("%s: refused (counted in %s/num_refused from here on)", error, self.source)
            return None


class UnusableReward(ValueError):
    """A logged reward that no number can be made of."""


def _check_reward(sample: Sample) -> None:
    # Not "larger": what is no number is not within either.
    if sample.reward is not None and not abs(sample.reward) <= MOST_REWARD:
        raise UnusableReward(f"sample {sample.sample_id}: its reward {sample.reward:g} is not within ±{MOST_REWARD:g}")


def check_logs(
    logs: Sequence[OfflineSource],
    sources: SourceSettings,
    *,
    needs_log_mu: bool,
    advantages: str = "no-baseline",
    num_prompts: int = 0,
    rewards: Rewards = NO_REWARDS,
    needs_both_sides: bool = False,
    needs_pairs: bool = False,
) -> None:
    """Return if every source with a share is there, and the loss and the baseline can use what it holds.

    Args:
        logs: what there is.
        sources: the shares.
        needs_log_mu: the loss forms w = π/μ.
        advantages: the kind of the baseline.
        num_prompts: groups of a batch, of which the sources have their shares.
        rewards: several, of which some may be scaled.
        needs_both_sides: the loss compares good answers with bad ones, as KTO does.
        needs_pairs: the loss compares the answers of a group two by two.

    Raises:
        ValueError: a source has a share and is not there, is there and has none, its samples lack log_mu or the values
            of the rewards, no batch of it has two samples to compare, or all ratings are good, or bad.
    """
    given = {logged.source: logged for logged in logs}
    for name in ("log", "feedback"):
        if sources.share(name) and name not in given:
            raise ValueError(f"the share of {name} is {sources.share(name):g}, and no {name} is given")
        if name in given and not sources.share(name):
            raise ValueError(f"a {name} is given, and its share is 0; set the share, or leave the {name} out")
    usable = [recipe.name for recipe in RECIPES.values() if not recipe.needs_log_mu]
    for logged in logs:
        logged.check_usable(needs_log_mu=needs_log_mu, usable_recipes=usable)
        num_groups = sources.num_groups(num_prompts)[logged.source]
        logged.check_comparable(advantages, num_groups=num_groups, needs_pairs=needs_pairs)
        logged.check_scalable(rewards)
    if needs_both_sides and logs and not sources.share("rollout"):
        _check_sides(logs)


def _check_sides(logs: Sequence[OfflineSource]) -> None:
    """Raise ValueError where all that was rated is on one side of 0.5."""
    num_good, num_bad = (sum(each.count(condition) for each in logs) for condition in ("reward > 0.5", "reward <= 0.5"))
    if bool(num_good) == bool(num_bad):
        return
    side = f"good (all {num_good} above 0.5)" if num_good else f"bad (all {num_bad} at most 0.5)"
    advice = ": clone them with objective.recipe = 'bc', or" if num_good else ":"
    raise ValueError(
        f"every rating of the {' and the '.join(each.source for each in logs)} is {side}, and KTO learns from good "
        f"answers against bad ones{advice} add answers of the other side"
    )
