"""Reports of a run: a web page, charts as SVG, a CSV table and a Markdown summary."""

from hogwild_agents.evaluation.report.write import write_report

__all__ = ["write_report"]
