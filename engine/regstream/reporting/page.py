"""The page: the template in `templates/`, filled with a report's words, tables and pictures."""

import re
from typing import TYPE_CHECKING, Any

from regstream.reporting import findings, fit_tables, run_tables, table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from regstream.reporting.report import Report

_TEMPLATE, _STYLE = "report.html.jinja", "report.css"
#: What a page that regstream has written begins with, so that it may replace it.
PAGE_START = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="generator" content="regstream '


def render_page(report: "Report") -> str:
    """The page of a report, on its own: styles and pictures are within it."""
    environment = _environment()
    assert environment.loader is not None
    style, _, _ = environment.loader.get_source(environment, _STYLE)
    text = environment.get_template(_TEMPLATE).render(
        page_start=PAGE_START,
        style=style,
        report=report,
        record=report.record,
        pictures=report.pictures,
        lead=findings.lead(report),
        key_numbers=list(findings.key_numbers(report)),
        grave_losses=findings.grave_losses(report),
        small_losses=findings.small_losses(report),
        worst_groups=list(findings.worst_groups(report)),
        solves_in_words=findings.solves_in_words(report),
        memory_in_words=findings.memory_in_words(report),
        tables=_tables(report),
    )
    return text if text.endswith("\n") else f"{text}\n"


def _tables(report: "Report") -> dict[str, Any]:
    """The tables of what was measured, by the names that the template gives them."""
    record, summary = report.record, report.summary
    tables: dict[str, Any] = {"files": run_tables.file_table(record), "inputs": run_tables.input_table(record)}
    if report.scores is not None:
        tables["scores"] = fit_tables.score_table(report.scores)
    if summary.residuals:
        tables["residual_totals"] = fit_tables.residual_totals(summary)
        tables["residuals"] = fit_tables.residual_table(record.steps, summary)
    if summary.changes:
        tables["change_totals"] = fit_tables.change_totals(summary)
        tables["parameters"] = fit_tables.parameter_table(record.steps, summary)
    if record.bias:
        tables["hidden_states"] = fit_tables.hidden_state_table(record.bias)
    if any(step.solves for step in record.steps):
        tables["solves"] = run_tables.solve_table(record)
    if report.measurements is not None:
        tables["work"] = run_tables.work_table(report.measurements)
        tables["steps"] = run_tables.step_table(report.measurements)
    return tables


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("regstream.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": table.share, "together": _together, "breakable": _breakable}
    return environment


def _together(text: str) -> str:
    """The text with its percentages whole at the end of a line."""
    return text.replace(" %", "\u00a0%")


def _breakable(name: str) -> "Markup":
    """The name, which may be parted at the end of a line after its dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._])(?=.)", r"\1<wbr>", str(escape(name))))  # noqa: S704  escaped before
