"""What a run says at its end: where the result is, how well it fits, what it took, and what to do next."""

from collections.abc import Iterator
from operator import itemgetter

from regstream.events import RunFinished
from regstream.manifest.schema import Manifest
from regstream.output.merge_summary import ChangeTotal, MergeSummary, ResidualTotal, percent
from regstream.output.record import read_record
from regstream.units import format_bytes, format_seconds
from regstream_cli.manifest_source import ManifestSource
from regstream_cli.next_command import command_after_run
from regstream_cli.run_status import RunStatus, read_run_status


def summary_lines(source: ManifestSource, manifest: Manifest, finished: RunFinished) -> Iterator[str]:
    """Lines of a name and what is to be said of it, aligned; one line for a result that was finished before.

    Raises:
        InputError: the record of the result is damaged.
    """
    if finished.was_finished_before:
        yield f"{finished.output}: already finished; nothing to do"
        return
    summary = MergeSummary.of(read_record(manifest.merge.output).steps)
    entries = {
        "result": finished.output,
        **_fit(summary),
        "cost": _cost(finished, read_run_status(manifest)),
        "next": command_after_run(source, manifest),
    }
    width = max(map(len, entries))
    yield from (f"{name:{width}}  {text}" for name, text in entries.items())


def _fit(summary: MergeSummary) -> dict[str, str]:
    """How near the merged model is to each candidate, and where it is furthest from one; nothing if nobody measured."""
    if summary.residuals:
        first, *others = map(_residual, summary.residuals)
        fit = ", ".join([f"{first} of the mean's", *others])
        return {"fit": f"residual on calibration rows: {fit}", "worst": summary.residuals_by_group[0].describe()}
    shares = [f"{total.candidate} {percent(total.kept)}" for total in summary.changes if total.kept is not None]
    blocks = [(total.kept, total) for total in summary.changes_by_step if total.kept is not None and _is_block(total)]
    found = {"kept": f"of the candidates' changes: {', '.join(shares)}"} if shares else {}
    return found | ({"worst": min(blocks, key=itemgetter(0))[1].describe()} if blocks else {})


def _is_block(total: ChangeTotal) -> bool:
    return total.step is not None and total.step.startswith("block ")


def _residual(total: ResidualTotal) -> str:
    """That of the merged weights relative to that of the mean, which is zero where all candidates are equal."""
    return f"{total.candidate} {percent(total.merged / total.mean if total.mean else 1.0)}"


def _cost(finished: RunFinished, status: RunStatus) -> str:
    memory = f"peak memory {format_bytes(finished.peak_bytes)}"
    if status.steps:
        memory += f" of {format_bytes(status.projected_bytes)} projected"
    if status.device_projected_bytes:
        device, projected = format_bytes(status.device_peak_bytes), format_bytes(status.device_projected_bytes)
        memory += f", on the device {device} of {projected} projected"
    return f"{format_seconds(finished.seconds)}, {memory}"
