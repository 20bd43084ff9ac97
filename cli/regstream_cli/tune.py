"""`regstream tune`: finds a method's settings by small merges, and writes them into the manifest."""

from typing import TYPE_CHECKING, Any

import click

from regstream import api
from regstream.device.garbage_collector import importing
from regstream.errors import ManifestError, RegstreamError
from regstream.events import Warned
from regstream.manifest.keys import format_settings
from regstream.manifest.overrides import parse_setting
from regstream.manifest.schema import Manifest
from regstream.manifest.write_settings import check_can_be_written, write_settings, written_settings
from regstream.storage.tuning_folder import remove_tuning
from regstream.tuning.journal import begun_tuning
from regstream.units import format_seconds
from regstream_cli.error_reporting import disk_full_boundary
from regstream_cli.manifest_source import ManifestSource, manifest_argument
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, device_option, json_option, quiet_option
from regstream_cli.run_status import read_run_status
from regstream_cli.streams import stdout_boundary, stdout_console, write_json, write_note

if TYPE_CHECKING:
    from regstream.tuning.tuning import Tuning
    from regstream.tuning.tuning_plan import TuningPlan


@click.command()
@manifest_argument
@device_option
@click.option("--dry-run", is_flag=True, help="Show the settings and the cost; merge and write nothing.")
@json_option
@quiet_option
@debug_option
def tune(*, source: ManifestSource, device: str | None, dry_run: bool, as_json: bool) -> None:
    """Find a method's settings.

    Merges with each setting of MANIFEST's method and an eighth of the calibration rows, evaluates all results at once
    on a quarter of the held-out rows, and goes on with the best quarter, half of the rows and all held-out ones. The
    scores are those of `evaluate`, on the rows of [candidates.evaluation]; a candidate without this table is scored on
    a fifth of its calibration rows, which then do not calibrate. Shows a table of all scores, and writes the best
    setting into [merge]; comments and layout stay. Results are removed as soon as they are scored. Ctrl-C stops at the
    next safe point; the same command resumes.

    \b
    Example:
      regstream tune merge.toml
      regstream tune merge.toml --dry-run
      regstream tune merge.toml --json | jq .settings
    """
    manifest = source.read()
    is_resumed = bool(begun_tuning(manifest.workdir))
    if not dry_run:
        check_can_be_written(source.path)
        _check_overrides(source, manifest)
    with observe_progress() as listener:
        plan = api.plan(manifest, device=device, listener=listener)
        with importing():
            from regstream.tuning import tuner
            from regstream.tuning.tuning_plan import TuningPlan
            from regstream.tuning.tuning_warnings import tuning_warnings

        tuning_plan = TuningPlan.of(plan)
        if dry_run:
            tuning_plan.validate()
            for line in tuning_warnings(tuning_plan):
                listener(Warned(message=line))
            _show_plan(tuning_plan, as_json=as_json)
            return
        with disk_full_boundary(lambda: plan.disks):
            tuning = tuner.tune(tuning_plan, listener)
    write_settings(
        source.path, manifest, tuning.settings, source.settings
    )  # before anything is shown: whoever reads it may be gone
    _show(tuning_plan, tuning, as_json=as_json)
    remove_tuning(plan.workdir)
    write_note(_summary(source, tuning_plan, tuning, is_resumed=is_resumed))
    write_note(_next_step(source))


def _check_overrides(source: ManifestSource, manifest: Manifest) -> None:
    """Refuse --set for the method and its options: what is written is the best beside those in the file.

    Raises:
        ManifestError: names the setting.
    """
    written = {"method", *manifest.merge.options.model_fields}
    for setting in source.settings:
        (table, key, *_), _ = parse_setting(setting)
        if table == "merge" and key in written:
            raise ManifestError(
                f"--set {setting}: settings are tuned for the file's method and options, and written beside them;"
                f" change {key} in {source}, or use --dry-run"
            )


def _show_plan(tuning_plan: "TuningPlan", *, as_json: bool) -> None:
    if as_json:
        write_json(_plan_record(tuning_plan))
        return
    from regstream_cli.tuning_tables import tuning_plan_lines, tuning_plan_table

    console = stdout_console()
    with stdout_boundary():
        console.print(tuning_plan_table(tuning_plan))
        for line in tuning_plan_lines(tuning_plan):
            console.print(line, soft_wrap=not console.is_terminal)


def _show(tuning_plan: "TuningPlan", tuning: "Tuning", *, as_json: bool) -> None:
    if as_json:
        write_json(_record(tuning_plan, tuning))
        return
    from regstream_cli.tuning_tables import fixed_options_lines, tuning_table

    console = stdout_console()
    with stdout_boundary():
        console.print(tuning_table(tuning_plan, tuning))
        for line in fixed_options_lines(tuning_plan):
            console.print(line, soft_wrap=not console.is_terminal)


def _summary(source: ManifestSource, tuning_plan: "TuningPlan", tuning: "Tuning", *, is_resumed: bool) -> str:
    written = format_settings(written_settings(tuning_plan.merge.manifest, tuning.settings))
    summary = f"{source}: wrote {written}; took {format_seconds(tuning.seconds)}"
    if is_resumed:  # with what was done before, maybe at another pace
        return f"{summary} in all"
    if tuning_plan.sweep_seconds is None:
        return summary
    pace = tuning.seconds / sum(tuning_plan.round_seconds)
    sweep = format_seconds(pace * tuning_plan.sweep_seconds)
    return f"{summary}; merging with every setting and all rows instead would have taken about {sweep}"


def _next_step(source: ManifestSource) -> str:
    """How to merge with the settings that were written, beside what is in the output already."""
    run, restart = (f"`regstream run {option}{source.arguments}`" for option in ("", "--restart "))
    try:
        found = read_run_status(source.read())
    except RegstreamError as error:
        return f"{run} cannot resume what is in the output: {error}"
    what = "the result" if found.state == "finished" else "an unfinished run"
    if found.state == "not begun":
        return f"{run} merges with them"
    if found.changed:
        return f"{found.output} holds {what} of other settings ({'; '.join(found.changed)}); {restart} replaces it"
    return f"{found.output} holds {what} of these settings; {run} " + (
        "checks it" if found.state == "finished" else "resumes it"
    )


def _plan_record(tuning_plan: "TuningPlan") -> dict[str, Any]:
    return {
        "method": tuning_plan.merge.method.name,
        "writes_method": tuning_plan.writes_method,
        "fixed_options": dict(tuning_plan.fixed_options),
        "manifest_settings": _own_record(tuning_plan),
        "settings": [dict(settings) for settings in tuning_plan.settings],
        "held_out_rows": tuning_plan.num_held_out,
        "rounds": [
            {
                "settings": planned.num_settings,
                "rows": tuning_plan.rows_by_name(planned.num_rows),
                "scored_rows": tuning_plan.rows_by_name(planned.num_scored),
                "seconds": seconds,
            }
            for planned, seconds in zip(tuning_plan.rounds, tuning_plan.round_seconds, strict=True)
        ],
        "seconds": sum(tuning_plan.round_seconds),
        "sweep_seconds": tuning_plan.sweep_seconds,
        "warnings": _warnings(tuning_plan),
    }


def _record(tuning_plan: "TuningPlan", tuning: "Tuning") -> dict[str, Any]:
    return {
        "method": tuning.method,
        "writes_method": tuning_plan.writes_method,
        "fixed_options": dict(tuning_plan.fixed_options),
        "manifest_settings": _own_record(tuning_plan),
        "metric": tuning.metric,
        "higher_is_better": tuning.higher_is_better,
        "datasets": list(tuning.datasets),
        "rounds": [
            {
                "rows": tuning_plan.rows_by_name(scored.num_rows),
                "scored_rows": tuning_plan.rows_by_name(scored.num_scored),
                "seconds": scored.seconds,
                "trials": [
                    {
                        "settings": dict(trial.settings),
                        "scores": dict(trial.scores),
                        "mean": trial.mean,
                        "seconds": trial.seconds,
                        "failure": trial.failure or None,
                    }
                    for trial in scored.trials
                ],
            }
            for scored in tuning.rounds
        ],
        "settings": dict(tuning.settings),
        "seconds": tuning.seconds,
        "sweep_seconds": tuning_plan.sweep_seconds,
        "warnings": _warnings(tuning_plan),
    }


def _own_record(tuning_plan: "TuningPlan") -> dict[str, Any] | None:
    return None if tuning_plan.own_settings is None else dict(tuning_plan.own_settings)


def _warnings(tuning_plan: "TuningPlan") -> list[str]:
    from regstream.tuning.tuning_warnings import tuning_warnings

    return [*tuning_plan.merge.warnings, *tuning_warnings(tuning_plan)]
