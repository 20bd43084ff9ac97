"""Scores the results of a round on the held-out rows, all in one evaluation, which decodes every row once."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from regstream.evaluation.evaluation import evaluate
from regstream.events import Event, Listener, RunFinished, StepCommitted, StepStarted
from regstream.output.record import MEASURED
from regstream.planning.plan import Plan
from regstream.storage.json_file import read_json_object
from regstream.tuning.tuning import Trial


def score_results(
    plan: Plan, trials: Mapping[str, Trial], results: Mapping[str, Path], listener: Listener
) -> tuple[tuple[Trial, ...], float]:
    """The trials with their scores and times, and the time of the evaluation. `plan` names the held-out rows.

    `trials` and the folders of their `results` are by label; a trial without a result stays as it is.
    """
    started = time.monotonic()
    rows = evaluate(plan, also=results, only=results.keys(), listener=_as_evaluation(listener)).rows if results else ()
    scores = {row.model: row.scores for row in rows}
    scored = (_scored(trial, scores[n], results[n]) if n in results else trial for n, trial in trials.items())
    return tuple(scored), round(time.monotonic() - started, 3)


def _scored(trial: Trial, scores: Mapping[str, float], result: Path) -> Trial:
    failure = "" if all(map(math.isfinite, scores.values())) else "its scores are not finite"
    return replace(trial, scores={} if failure else scores, seconds=_merge_seconds(result), failure=failure)


def _merge_seconds(result: Path) -> float:
    measured = read_json_object(result / MEASURED, "the measurements of a result")
    seconds: list[float] = [step["seconds"] for step in measured["steps"]]
    return round(sum(seconds), 3)


def _as_evaluation(listener: Listener) -> Listener:
    """A listener to which steps are named as the evaluation's, and which is not told of its end: the tuning goes on."""

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted | StepCommitted):
            listener(replace(event, name=f"{event.name} of the evaluation"))
        elif not isinstance(event, RunFinished):
            listener(event)

    return listen
