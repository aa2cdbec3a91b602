"""report.html: one self-contained page that shows what a run measured and what it answered."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.report.arms import draw_arms
    from mmavlm.report.bars import Bar, draw_bars
    from mmavlm.report.contact_sheet import ContactSheet, SheetFrame, SheetQuestion
    from mmavlm.report.contents import (
        Confusion,
        Curve,
        Moment,
        Report,
        SampleAnswer,
        Similarity,
        Table,
        Timeline,
    )
    from mmavlm.report.curves import read_csv_curves
    from mmavlm.report.explanation import draw_explanation, save_explanation
    from mmavlm.report.films import PlayedFilm
    from mmavlm.report.timeline import draw_timeline, save_timeline
    from mmavlm.report.write import write_report

__all__ = [
    "Bar",
    "Confusion",
    "ContactSheet",
    "Curve",
    "Moment",
    "PlayedFilm",
    "Report",
    "SampleAnswer",
    "SheetFrame",
    "SheetQuestion",
    "Similarity",
    "Table",
    "Timeline",
    "draw_arms",
    "draw_bars",
    "draw_explanation",
    "draw_timeline",
    "read_csv_curves",
    "save_explanation",
    "save_timeline",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__)
