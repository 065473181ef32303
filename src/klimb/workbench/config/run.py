"""The whole run: the section names of the TOML file, and what is kept of a run."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from klimb.declarations import Count, CountOrZero, OneOf, PathText, Seed
from klimb.divergences.names import SlopeAtReference
from klimb.experience.advantages import NEEDS_GROUPS, SOFT_VALUES
from klimb.losses.names import slope_of_penalty
from klimb.training.settings import (
    REFERENCES,
    CheckpointSettings,
    CreditSettings,
    CriticSettings,
    ReferenceSettings,
)
from klimb.training.sources.shares import ReplaySettings
from klimb.workbench.config.bounds import PYTHON_NAME, SECTION, Loggers, OwnFindings, RunName
from klimb.workbench.config.correction import CorrectionSection, NoCorrectionSection, check_correction
from klimb.workbench.config.credit import check_credit
from klimb.workbench.config.experience import SourcesSection, StoreSection
from klimb.workbench.config.guard import GuardSection
from klimb.workbench.config.learning import (
    AdvantagesSection,
    CloningSection,
    ObjectiveSection,
    OptimizerSection,
    TrainingSection,
    check_divergence_acts,
)
from klimb.workbench.config.recipe import check_is_read, with_recipe_defaults
from klimb.workbench.config.world import ArithmeticSection, ModelSection, SamplingSection, ScoringSection, TaskSection


class EvaluationSection(BaseModel):
    """How the held-out problems are answered."""

    model_config = SECTION

    every_steps: CountOrZero = 0
    """Collections between two evaluations during training; 0 means none."""
    every_tokens: Annotated[int, Field(ge=0, le=10**15)] = 0
    """Also evaluate each time that this many more answer tokens were drawn; 0 means not so."""
    every_seconds: Annotated[float, Field(ge=0, le=10_000_000)] = 0.0
    """Also evaluate each time that the steps have taken this much longer; 0 means not so."""
    at_ends: bool = True
    """Evaluate before the first step and after the last one."""
    num_problems: Count = 100
    """Held-out problems at most."""
    num_samples: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Answers per problem at temperature 1, nothing cut off."""
    greedy: bool = True
    """Before and after, also answer each problem once with the likeliest tokens."""
    seed: Seed = 0
    """Of the answers; two evaluations differ by the policy alone."""


class RunSection(BaseModel):
    """Where the results go."""

    model_config = SECTION

    name: RunName = "run"
    """Name of the run; letters, digits, dot, dash and underscore."""
    folder: PathText = "runs"
    """Folder in which the run's own folder is made."""
    save_rollouts: bool = True
    """Keep every sampled answer as Parquet."""
    save_model: bool = True
    """Write the trained model as a Hugging Face folder."""
    report: bool = True
    """Draw the curves and write report.html at the end."""
    loggers: Loggers = ("tensorboard",)
    """Where else each step's metrics go; [] for nowhere."""
    findings: OwnFindings = ()
    """Rules of your own, whose findings stand in the report among the others."""


class RunConfig(BaseModel):
    """One run. Every field has a value once it is built: it can be saved, read back and repeated."""

    model_config = SECTION

    seed: Seed = 0
    """Seed of all random numbers; each purpose draws from its own stream."""
    model: ModelSection = ModelSection()
    """The language model."""
    task: TaskSection = ArithmeticSection()
    """What it is trained on."""
    scoring: ScoringSection = ScoringSection()
    """How answers are scored."""
    sampling: SamplingSection = SamplingSection()
    """How answers are drawn."""
    sources: SourcesSection = SourcesSection()
    """Which experience each batch is made of."""
    replay: ReplaySettings = ReplaySettings()
    """Which earlier rollouts may be used again."""
    log: StoreSection | None = None
    """Logged samples: needed if sources.log is above 0."""
    feedback: StoreSection | None = None
    """Rated samples: needed if sources.feedback is above 0."""
    cloning: CloningSection | None = None
    """Warm-up by behaviour cloning; without this section there is none."""
    objective: ObjectiveSection
    """What is maximised, and by which surrogate."""
    advantages: AdvantagesSection
    """From rewards to advantages."""
    credit: CreditSettings
    """Which token a reward is credited to."""
    correction: CorrectionSection = NoCorrectionSection()
    """What is done about samples that another policy drew."""
    critic: CriticSettings = CriticSettings()
    """The value head, where credit.kind is 'gae'."""
    reference: Annotated[ReferenceSettings, OneOf(REFERENCES)]
    """The anchor of the divergence."""
    optimizer: OptimizerSection = OptimizerSection()
    """How a gradient becomes a step."""
    training: TrainingSection = TrainingSection()
    """How long and in which portions."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When the state is saved."""
    evaluation: EvaluationSection = EvaluationSection()
    """How the held-out problems are answered."""
    guard: GuardSection | None = None
    """Watches what the model could do before; without this section nothing is watched."""
    run: RunSection = RunSection()
    """Where the results go."""

    @model_validator(mode="before")
    @classmethod
    def _take_recipe_defaults(cls, given: Any) -> Any:
        return with_recipe_defaults(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check_what_fits_together(self) -> Self:
        check_is_read(self.objective)
        check_correction(
            self.correction, recipe=self.objective.recipe, loss=self.objective.loss, ratio=self.objective.ratio
        )
        check_credit(self.credit, advantages=self.advantages.kind, reference=self.reference.kind)
        if self.reference.kind == "none" and self.objective.beta > 0 and self.objective.loss == "policy-gradient":
            raise ValueError(
                f"objective.beta is {self.objective.beta:g} but reference.kind is 'none': a divergence needs a "
                "reference; set objective.beta = 0 or another reference.kind"
            )
        if self.sampling.num_samples == 1 and self.advantages.kind in NEEDS_GROUPS:
            raise ValueError(
                f"advantages.kind = {self.advantages.kind!r} compares the answers to one prompt, but "
                "sampling.num_samples is 1; use at least 2, or advantages.kind = 'batch-z-score'"
            )
        if not PYTHON_NAME.match(self.objective.divergence):
            self.check_divergence(slope_of_penalty(self.objective.divergence))
        if self.advantages.kind in SOFT_VALUES and self.objective.beta == 0:
            raise ValueError(
                f"advantages.kind = {self.advantages.kind!r} takes objective.beta as its temperature, and it is 0; set "
                "objective.beta above 0, or another advantages.kind"
            )
        self._check_sources()
        return self

    def check_divergence(self, slope: SlopeAtReference) -> None:
        """Return if this divergence, which objective.divergence names, acts on the data of the run.

        Raises:
            ValueError: it doesn't.
        """
        check_divergence_acts(
            self.objective,
            slope,
            advantages=self.advantages,
            reference=self.reference,
            is_fresh=self.sources.rollout == 1 and self.sampling.lag == 0,
        )

    def _check_sources(self) -> None:
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
        if self.sources.replay > 0 and self.sources.rollout == 0:
            raise ValueError("sources.replay needs a share of sources.rollout: without it there is nothing to replay")
        if self.sampling.lag and self.sources.rollout < 1:
            raise ValueError("sampling.lag delays every batch as a whole; use it with sources.rollout = 1")
        if not self.run.save_rollouts and (self.sources.replay > 0 or self.sampling.lag):
            raise ValueError("run.save_rollouts is off, and a run that replays or delays rollouts reads them back")
