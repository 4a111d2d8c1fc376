"""Writes what a run came to into a folder: a page, pictures, a table and a summary."""

from hogwild_agents.evaluation.report.write import write_report

__all__ = ["write_report"]
