"""The configuration of a run: the only place that knows TOML."""

from klimb.workbench.config.errors import nearest_keys
from klimb.workbench.config.fields import FieldFacts, known_fields
from klimb.workbench.config.learning import CloningSection, ObjectiveSection, OptimizerSection
from klimb.workbench.config.reading import build_config, read_config, read_tables, save_config, with_overrides
from klimb.workbench.config.recipe import DEFAULT_RECIPE, recipe_sections
from klimb.workbench.config.run import EvaluationSection, RunConfig
from klimb.workbench.config.world import SamplingSection

__all__ = [
    "DEFAULT_RECIPE",
    "CloningSection",
    "EvaluationSection",
    "FieldFacts",
    "ObjectiveSection",
    "OptimizerSection",
    "RunConfig",
    "SamplingSection",
    "build_config",
    "known_fields",
    "nearest_keys",
    "read_config",
    "read_tables",
    "recipe_sections",
    "save_config",
    "with_overrides",
]
