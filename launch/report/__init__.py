"""The report: a run folder told on one self-contained HTML page."""

from launch.report.page import write_report

__all__ = ["write_report"]
