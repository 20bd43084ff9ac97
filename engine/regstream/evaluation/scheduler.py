"""The main loop: runs each remaining step of an evaluation and commits it."""

import time
import traceback
from collections.abc import Mapping
from typing import Any

from regstream.device.matmul_precision import float32_products
from regstream.device.memory import StepMeasurement, measured_peak
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.input_files import InputFiles
from regstream.evaluation.journal import EvaluatedStep, EvaluationJournal
from regstream.evaluation.layerwise_forward import LayerwiseForward, open_forwards
from regstream.evaluation.rank_share import check_same_inputs, rank_folder
from regstream.evaluation.step import EvaluationStep
from regstream.evaluation.sums import Place, Sums, add_up
from regstream.events import Listener, RunFinished, RunStarted, StepStarted, Warned
from regstream.planning.budget import limit_device_memory
from regstream.planning.memory_terms import allocated_bytes
from regstream.ranks.group import ranks_of
from regstream.storage.hidden_states import CorruptActivations

Forwards = Mapping[str, LayerwiseForward]


def run_evaluation(plan: EvaluationPlan, listener: Listener) -> Mapping[Place, Sums]:
    """Evaluate, from where an interrupted evaluation ended; what all ranks summed up.

    Raises:
        BudgetError: memory or disk space does not suffice; nothing was written.
        InputError: an input is damaged, or that of another rank differs; committed steps stay.
        ResumeError: a model changed since the evaluation began.
    """
    started, output, ranks = time.monotonic(), str(plan.merge.output), ranks_of(plan.merge.rank_id)
    plan.validate()  # over a budget: refused before any weight is read
    inputs = InputFiles(plan)  # before the identity, so that a change in between is seen
    check_same_inputs(plan.common_identity, ranks)
    limit_device_memory(plan.merge.device, plan.budgets)
    with float32_products(plan.merge.device), rank_folder(plan.merge.run_folder, plan.key, ranks) as folder:
        journal = EvaluationJournal.open(folder, plan.identity, [step.name for step in plan.steps], listener)
        seconds = plan.step_seconds
        listener(RunStarted(done=len(journal.committed), total=len(seconds), output=output, step_seconds=seconds))
        forwards = open_forwards(plan.passes, folder, listener)
        for step in plan.steps[len(journal.committed) :]:  # the steps that the journal lacks
            listener(StepStarted(index=step.index, name=step.name, work=step.work))
            _reset_step(forwards, step)
            with measured_peak(plan.merge.device) as peak:
                found = _run_step(plan, step, forwards, listener)  # stem | block | head, of every model
            inputs.check()  # the models are still those of the identity
            committed = _evaluated_step(plan, step, peak, found)
            journal.commit(committed)  # the only commit point
            forwards[step.layers.prefix].drop_before(step.depth + 1)  # only after the commit
            listener(committed.event)
        # While the journal is there: a rank may have been stopped, and all resume.
        sums = add_up((record for step in journal.committed for record in step.found), ranks)
    peak_bytes = max((step.peak_bytes for step in journal.committed), default=0)
    listener(RunFinished(output=output, seconds=time.monotonic() - started, peak_bytes=peak_bytes))
    return sums


def _evaluated_step(
    plan: EvaluationPlan, step: EvaluationStep, peak: StepMeasurement, found: list[dict[str, Any]]
) -> EvaluatedStep:
    return EvaluatedStep(
        index=step.index,
        name=step.name,
        seconds=round(peak.seconds, 3),
        peak_bytes=peak.num_bytes,
        projected_bytes=plan.projected_bytes(step),
        device_peak_bytes=peak.device_bytes,
        device_projected_bytes=allocated_bytes(plan.projected_bytes(step, "device")),
        found=found,
    )


def _reset_step(forwards: Forwards, step: EvaluationStep) -> None:
    for prefix, forward in forwards.items():
        forward.reset_step(step if prefix == step.layers.prefix else None)


def _run_step(
    plan: EvaluationPlan, step: EvaluationStep, forwards: Forwards, listener: Listener
) -> list[dict[str, Any]]:
    """Run a step; where hidden states that enter it turn out to be damaged, make them again first."""

    def run(step: EvaluationStep) -> list[dict[str, Any]]:
        return forwards[step.layers.prefix].run(step, plan.projections[step.index])

    try:
        return run(step)
    except CorruptActivations as damage:
        traceback.clear_frames(damage.__traceback__)  # what the attempt holds
        listener(Warned(message=f"{damage}; recomputing what enters {step.name} from the stem on"))
        for earlier in plan.steps[: step.index]:
            _reset_step(forwards, earlier)
            run(earlier)
            forwards[earlier.layers.prefix].drop_before(earlier.depth + 1)
        _reset_step(forwards, step)
        return run(step)
