"""Every chart of a report, by the section it stands in: what the page and the exported figures share."""

from collections.abc import Sequence

from klimb.workbench.report.charts import Chart
from klimb.workbench.report.drawing import panel_chart, points_a_curve, remaining_panels
from klimb.workbench.report.grouping import Group
from klimb.workbench.report.held_out import held_out_charts
from klimb.workbench.report.panels import LEARNING, SECTIONS

OTHER = "other"
"""The section of the numbers that no panel names."""


def charts_of(groups: Sequence[Group]) -> dict[str, list[Chart]]:
    """Section key -> its charts; those without anything to show are left out."""
    rest = remaining_panels(groups)
    panels = {section.key: list(section.panels) for section in SECTIONS} | {OTHER: rest}
    most = points_a_curve(groups, sum(map(len, panels.values())))
    drawn = {
        key: [chart for panel in listed if (chart := panel_chart(panel, groups, most_points=most)) is not None]
        for key, listed in panels.items()
    }
    return drawn | {LEARNING.key: [*held_out_charts(groups), *drawn[LEARNING.key]]}
