"""A study of a random model of two layers, whose runs take a second."""

import io
import tomllib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from klimb.workbench.study.config import StudyConfig
from klimb.workbench.study.plan import Cell, StudyPlan, make_plan
from klimb.workbench.study.progress import StudyView
from klimb.workbench.study.runner import Slot, run_study

STUDY = """
[study]
name = "tiny"
seeds = 2
baseline = "grpo"
budget = {{kind = "tokens", amount = {amount}}}
evaluations = 2

[base.model]
path = {model!r}
dtype = "float32"
device = "cpu"

[base.sampling]
num_prompts = 2
num_samples = 2
max_new_tokens = 6

[base.advantages]
group_filter = false

[base.evaluation]
num_problems = 2
num_samples = 2

[tasks.sums.task]
kind = "arithmetic"

[methods.grpo]
[methods.rloo]
"""


def tiny_plan(folder: Path, model: Path, *, amount: int = 60, more: str = "", change: tuple[str, str] = ("", "")):
    """The plan of the tiny study, with more tables or a change of its text."""
    text = STUDY.format(model=str(model), amount=amount).replace(*change) + more
    return make_plan(StudyConfig.model_validate(tomllib.loads(text)), folder, source="tiny", text=text)


class ActingView(StudyView):
    """Shows the study in a text and does something at each look."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=300), title="tiny")
        self._act = act

    def look(self) -> None:
        super().look()
        self._act()


def run_tiny(
    plan: StudyPlan,
    *,
    act: Callable[[], None] = lambda: None,
    cells: tuple[Cell, ...] | None = None,
    num_slots: int = 2,
    retry_failed: bool = False,
) -> str:
    """Runs the study and returns what was printed."""
    view = ActingView(act)
    slots = [Slot(number=number) for number in range(num_slots)]
    with view:
        run_study(plan, plan.cells if cells is None else cells, slots, view, retry_failed=retry_failed)
    return view.text.getvalue()


def cell_named(plan: StudyPlan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.name == name)
