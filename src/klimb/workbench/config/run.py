"""The whole run: the section names of the TOML file, and whether the sections fit together."""

from typing import Annotated, Any, Self

from annotated_types import MaxLen
from pydantic import BaseModel, model_validator

from klimb.declarations import OneOf, Seed, narrow
from klimb.divergences.names import SlopeAtReference
from klimb.losses.names import slope_of_penalty
from klimb.losses.settings import (
    CORRECTION_CHOICES,
    AnyCorrection,
    AutomaticCorrection,
    Correction,
    NoCorrection,
    ObjectiveSettings,
)
from klimb.own_parts import is_own
from klimb.policies.settings import ModelSettings
from klimb.tasks.arithmetic import ArithmeticSettings
from klimb.tasks.catalogue import TASKS, OwnTask, TaskSettings
from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.tasks.file import NO_REWARD
from klimb.tasks.patterns import check_is_quick
from klimb.tasks.python_rewards import TASKS_OWN
from klimb.tasks.rewards import RewardName, RewardSettings
from klimb.tasks.settings import ScoringSettings
from klimb.training.guard.checks import patterns_of
from klimb.training.guard.settings import GuardSettings
from klimb.training.recipes import RECIPES
from klimb.training.settings import (
    REFERENCES,
    AdvantageSettings,
    CheckpointSettings,
    CreditSettings,
    CriticSettings,
    EarlyStoppingSettings,
    EvaluationSettings,
    FeedbackSettings,
    LoopSettings,
    OptimizerSettings,
    OwnReference,
    ReferenceSettings,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    TrainingSettings,
    check_loss_fits,
    choose_correction,
)
from klimb.workbench.config.objective import AnyLoss
from klimb.workbench.config.recipe import with_recipe_defaults
from klimb.workbench.config.sections import (
    SECTION,
    CloningConfig,
    EvaluationConfig,
    FeedbackSection,
    RunSection,
    SamplingConfig,
    StoreSection,
    TrainingConfig,
)


class RunConfig(BaseModel):
    """One run. Every field has a value once it is built: it can be saved, read back and repeated."""

    model_config = SECTION

    seed: Seed = 0
    """Seed of all random numbers; each purpose draws from its own stream."""
    model: ModelSettings = ModelSettings()
    """The language model."""
    task: Annotated[TaskSettings, OneOf(TASKS, own=OwnTask)] = ArithmeticSettings()
    """What it is trained on."""
    scoring: ScoringSettings = ScoringSettings()
    """How answers are scored."""
    rewards: Annotated[dict[RewardName, RewardSettings], MaxLen(50)] = {}
    """Several rewards by name, each a table; without one the reward is the task's."""
    environment: EnvironmentSettings | None = None
    """What the policy talks to; without this section each answer is one turn, unless the task has an environment."""
    sampling: SamplingConfig = SamplingConfig()
    """How answers are drawn."""
    sources: SourceSettings = SourceSettings()
    """Which experience each batch is made of."""
    replay: ReplaySettings = ReplaySettings()
    """Which earlier rollouts may be used again."""
    log: StoreSection | None = None
    """Logged samples: needed if sources.log is above 0."""
    feedback: FeedbackSection | None = None
    """Rated samples: needed if sources.feedback is above 0."""
    cloning: CloningConfig | None = None
    """Warm-up by behaviour cloning; without this section there is none."""
    objective: AnyLoss
    """What is maximised, and by which surrogate."""
    advantages: AdvantageSettings
    """From rewards to advantages."""
    credit: CreditSettings
    """Which token a reward is credited to."""
    correction: Annotated[AnyCorrection, OneOf(CORRECTION_CHOICES)] = AutomaticCorrection()
    """What is done about samples that another policy drew."""
    critic: CriticSettings = CriticSettings()
    """The value head, where credit.kind is 'gae'."""
    reference: Annotated[ReferenceSettings, OneOf(REFERENCES, own=OwnReference)]
    """The anchor of the divergence."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How a gradient becomes a step."""
    training: TrainingConfig = TrainingConfig()
    """How long and in which portions."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When the state is saved."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the held-out problems are answered."""
    guard: GuardSettings | None = None
    """Watches what the model could do before; without this section nothing is watched."""
    early_stopping: EarlyStoppingSettings | None = None
    """Ends the run once a metric has stopped getting better; without this section nothing does."""
    run: RunSection = RunSection()
    """Where the results go."""

    @model_validator(mode="before")
    @classmethod
    def _take_recipe_defaults(cls, given: Any) -> Any:
        return with_recipe_defaults(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check_what_fits_together(self) -> Self:
        self._check_correction()
        self._check_stores()
        self._check_critic()
        self._check_patterns()
        self._check_rewards()
        self._check_environment()
        objective = self.objective
        slope = None
        if isinstance(objective, ObjectiveSettings) and not is_own(str(objective.divergence)):
            slope = slope_of_penalty(str(objective.divergence))
        self.check_objective(slope)
        return self

    def check_objective(self, slope: SlopeAtReference | None) -> None:
        """Return if the objective acts on the data of the run; `slope` is that of the user's own divergence.

        Raises:
            ValueError: it doesn't, or two sections do not fit together.
        """
        check_loss_fits(self.loop_settings(), self.objective, slope)

    def loop_settings(self) -> LoopSettings:
        """Return what the training loop is told.

        Raises:
            ValueError: two sections do not fit together.
        """
        return LoopSettings(
            seed=self.seed,
            temperature=self.model.temperature,
            sampling=narrow(self.sampling, RolloutSettings),
            advantages=self.advantages,
            credit=self.credit,
            critic=self.critic,
            sources=self.sources,
            replay=self.replay,
            training=narrow(self.training, TrainingSettings),
            optimizer=self.optimizer,
            reference=self.reference,
            environment=self.environment,
            rewards=self.rewards,
            feedback=FeedbackSettings() if self.feedback is None else narrow(self.feedback, FeedbackSettings),
            checkpoints=self.checkpoints,
            evaluation=narrow(self.evaluation, EvaluationSettings),
            save_rollouts=self.run.save_rollouts,
            guard=self.guard,
            early_stopping=self.early_stopping,
        )

    def chosen_correction(self) -> Correction:
        """Return the correction of the run: what `auto` stands for, or what was asked for."""
        if not isinstance(self.correction, AutomaticCorrection):
            return self.correction
        return choose_correction(self.correction, self.loop_settings(), self.objective)

    def _check_correction(self) -> None:
        objective, kind = self.objective, self.correction.kind
        if self.correction in (NoCorrection(), AutomaticCorrection()):
            return
        if not isinstance(objective, ObjectiveSettings):
            raise ValueError(
                f"correction.kind = {kind!r} weighs the terms of a policy gradient, and the loss {objective.loss} of "
                f"recipe {objective.recipe} is none; leave [correction] out, or take another recipe"
            )
        if kind not in ("none", "auto") and objective.ratio == "none":
            raise ValueError(
                f"correction.kind = {kind!r} splits the ratio pi/mu, and objective.ratio = 'none' (recipe "
                f"{objective.recipe}) forms none; leave [correction] out, or set objective.ratio = 'recorded'"
            )

    def _check_critic(self) -> None:
        recipe, kind = RECIPES[self.objective.recipe], self.credit.kind
        if recipe.family == "with a critic" and kind != recipe.credit.kind:
            raise ValueError(
                f"objective.recipe = {recipe.name!r} learns a value, and credit.kind = {kind!r} trains without one: "
                f"leave credit.kind out, or take a recipe without a critic, such as 'reinforce++' (credit.kind = "
                "'reward-to-go') or 'rloo' (credit.kind = 'response')"
            )

    def _check_patterns(self) -> None:
        if self.scoring.format is not None:
            check_is_quick("scoring.format.pattern =", self.scoring.format.pattern)
        if self.guard is not None and self.guard.format:
            check_is_quick("guard.format =", self.guard.format)
        for pattern in () if self.guard is None else patterns_of(self.guard.checks):
            check_is_quick("guard.checks:", pattern)

    def _check_rewards(self) -> None:
        for name in ("overlong", "format"):
            if name in self.rewards and getattr(self.scoring, name) is not None:
                raise ValueError(
                    f"rewards.{name}: [scoring.{name}] adds a part of that name to the reward; give this one another"
                )
        is_read = any(each.reward == TASKS_OWN for each in self.rewards.values())
        if self.rewards and is_own(self.task.reward) and not is_read:
            raise ValueError(
                f"task.reward = {self.task.reward!r} does nothing: no reward of [rewards] is {TASKS_OWN!r}; leave it "
                f"out, or add rewards.NAME.reward = {TASKS_OWN!r}"
            )
        has_other = bool(self.rewards) or self.environment is not None
        if self.task.reward == NO_REWARD and (is_read or not has_other):
            raise ValueError(
                f"task.reward = {NO_REWARD!r}: the run has no reward; name one, or others in [rewards], or take an "
                "[environment] that gives one"
            )

    def _check_environment(self) -> None:
        environment = self.environment
        if self.task.kind == "environment" and (environment is None or not environment.factory):
            raise ValueError(
                "task.kind = 'environment' asks what an environment makes in `reset`, and there is none: set "
                "environment.factory, e.g. 'python:my_environments.Guess'"
            )
        asked = self.evaluation
        if environment is not None and self.sources.share("rollout") == 0 and not (asked.at_ends or asked.is_on):
            shares = " and ".join(f"sources.{name} = {getattr(self.sources, name):g}" for name in self._others())
            raise ValueError(
                f"[environment] does nothing: with {shares} no answer is drawn, and nothing is evaluated; leave it "
                "out, or set evaluation.at_ends = true"
            )

    def _others(self) -> list[str]:
        return [name for name in ("log", "feedback") if getattr(self.sources, name) > 0]

    def _check_stores(self) -> None:
        for name, share, section in (
            ("log", self.sources.log, self.log),
            ("feedback", self.sources.feedback, self.feedback),
        ):
            if share > 0 and section is None:
                raise ValueError(
                    f"sources.{name} is {share:g}, and there is no section [{name}] with the path of a store"
                )
            if share == 0 and section is not None:
                raise ValueError(
                    f"[{name}] is given and its share is 0: set sources.{name}, e.g. 1.0 to train on it alone"
                )
