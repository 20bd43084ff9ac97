"""Reads what a finished merge left beside its weights into a report."""

import os
from pathlib import Path

from regstream.output.merge_summary import MergeSummary
from regstream.output.record import read_record
from regstream.reporting.measurements import read_measurements
from regstream.reporting.report import Report
from regstream.reporting.scores import compare_scores


def read_report(folder: Path) -> Report:
    """The report of the result in a folder.

    Raises:
        InputError: the folder holds no record of a result, or a file is damaged.
    """
    record = read_record(folder)
    evaluation = record.evaluation if record.evaluation and record.evaluation.datasets else None
    return Report(
        name=os.fsencode(folder.resolve().name).decode(errors="replace"),  # a name may be no text
        record=record,
        summary=MergeSummary.of(record.steps),
        scores=None if evaluation is None else compare_scores(evaluation, record.method),
        measurements=read_measurements(folder),
    )
