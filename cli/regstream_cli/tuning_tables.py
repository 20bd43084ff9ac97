"""The table of a tuning, and what one will take, for people."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from regstream.manifest.keys import format_settings, toml
from regstream.manifest.write_settings import written_settings
from regstream.methods import AUTO
from regstream.units import format_seconds
from regstream_cli.tables import make_table

if TYPE_CHECKING:
    from regstream.methods.search_space import Settings
    from regstream.tuning.tuning import Trial, Tuning
    from regstream.tuning.tuning_plan import TuningPlan


def tuning_table(plan: "TuningPlan", tuning: "Tuning") -> Table:
    """A row per setting and round, a column per data set; the best mean of each round is bold."""
    table = make_table("round", "rows", "held out", "settings", *tuning.datasets, "mean", "time")
    table.columns[3].justify = "left"
    for number, scored in enumerate(tuning.rounds, start=1):
        best = scored.best(1, higher_is_better=tuning.higher_is_better)
        for trial in scored.trials:
            cells = _cells(tuning, trial, is_best=trial in best)
            rows = (rows_text(scored.num_rows), rows_text(scored.num_scored))
            table.add_row(str(number), *rows, _label(plan, trial.settings), *cells)
        table.add_row(
            "", "", "", "evaluation", *[""] * len(tuning.datasets), "", format_seconds(scored.evaluation_seconds)
        )
        table.add_section()
    return table


def tuning_plan_table(plan: "TuningPlan") -> Table:
    """A row per round."""
    table = make_table("round", "settings", "rows", "held out", "time")
    for number, (planned, seconds) in enumerate(zip(plan.rounds, plan.round_seconds, strict=True), start=1):
        rows = (rows_text(planned.num_rows), rows_text(planned.num_scored))
        table.add_row(str(number), str(planned.num_settings), *rows, f"about {format_seconds(seconds)}")
    return table


def tuning_plan_lines(plan: "TuningPlan") -> Iterator[str]:
    """The settings, what is written, the held-out rows, and the cost beside that of a whole sweep."""
    yield f"{plan.merge.method.name} with {' | '.join(_label(plan, settings) for settings in plan.settings)}"
    yield from fixed_options_lines(plan)
    if plan.writes_method:
        method = format_settings(written_settings(plan.merge.manifest, {}))
        yield f"the manifest's method is {toml(AUTO)}: {method} is written in its place, with the best settings"
    for name, num_rows in plan.num_held_out.items():
        source = "split off its calibration set" if name in plan.split.split_off else "of its [candidates.evaluation]"
        yield f"{name}: scored on {num_rows} rows {source}"
    yield f"takes about {format_seconds(sum(plan.round_seconds))}"
    if plan.sweep_seconds is not None:
        yield f"merging with every setting and all rows instead would take about {format_seconds(plan.sweep_seconds)}"


def fixed_options_lines(plan: "TuningPlan") -> Iterator[str]:
    """The options of the method that are the same in every row."""
    if plan.fixed_options:
        yield f"the manifest's, in every merge: {format_settings(plan.fixed_options)}"


def rows_text(num_rows: Sequence[int]) -> str:
    """The numbers of rows of the candidates: one number where they are equal, nothing where none are used."""
    counts = sorted(set(num_rows))
    if counts == [0]:
        return ""
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _label(plan: "TuningPlan", settings: "Settings") -> str:
    return format_settings(settings) + " (the manifest's)" * (settings == plan.own_settings)


def _cells(tuning: "Tuning", trial: "Trial", *, is_best: bool) -> list[Text]:
    scores = [trial.scores.get(dataset) for dataset in tuning.datasets]
    cells = [Text("" if score is None else f"{score:.4f}") for score in scores]
    mean = Text("none" if trial.mean is None else f"{trial.mean:.4f}", style="bold" if is_best else "")
    return [*cells, mean, Text(format_seconds(trial.seconds))]
