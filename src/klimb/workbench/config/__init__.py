"""The configuration of a run: the only place that knows TOML."""

from klimb.workbench.config.errors import nearest_keys
from klimb.workbench.config.fields import FieldFacts, known_fields
from klimb.workbench.config.objective import divergence_of
from klimb.workbench.config.reading import (
    build_config,
    is_resolved,
    read_config,
    read_tables,
    save_config,
    with_overrides,
)
from klimb.workbench.config.recipe import DEFAULT_RECIPE, recipe_sections, table_of
from klimb.workbench.config.run import RunConfig
from klimb.workbench.config.sections import (
    CloningConfig,
    EvaluationConfig,
    FeedbackSection,
    SamplingConfig,
    StoreSection,
)

__all__ = [
    "DEFAULT_RECIPE",
    "CloningConfig",
    "EvaluationConfig",
    "FeedbackSection",
    "FieldFacts",
    "RunConfig",
    "SamplingConfig",
    "StoreSection",
    "build_config",
    "divergence_of",
    "is_resolved",
    "known_fields",
    "nearest_keys",
    "read_config",
    "read_tables",
    "recipe_sections",
    "save_config",
    "table_of",
    "with_overrides",
]
