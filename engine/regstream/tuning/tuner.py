"""The main loop: runs each remaining round of a tuning and commits it."""

from collections.abc import Sequence

from regstream.errors import SolveError
from regstream.events import Event, Listener, Warned
from regstream.manifest.keys import format_settings
from regstream.methods.search_space import Settings
from regstream.output.publish import result_files
from regstream.storage.leftovers import leftover_message
from regstream.storage.tuning_folder import remove_results, tuning_folder
from regstream.tuning.journal import TuningJournal
from regstream.tuning.scores import score_results
from regstream.tuning.tuning import ScoredRound, Trial, Tuning
from regstream.tuning.tuning_plan import TuningPlan
from regstream.tuning.tuning_warnings import tuning_warnings
from regstream.tuning.turns import merge_in_turns
from regstream.units import format_names


def tune(plan: TuningPlan, listener: Listener) -> Tuning:
    """Tune, from where an interrupted tuning ended. Its state stays, for `remove_tuning`: a rerun is done at once.

    Raises:
        BudgetError: memory or disk space does not suffice; nothing was written.
        InputError: an input is damaged; committed rounds and steps stay.
        ResumeError: an input changed meanwhile, or another process is tuning.
        SolveError: no setting has a trustworthy solution.
    """
    listener = _without_repetitions(listener)
    plan.validate()  # over a budget: refused before any weight is read
    for line in tuning_warnings(plan):
        listener(Warned(message=line))
    with tuning_folder(plan.merge.run_folder, result_files(plan.merge)):
        journal = TuningJournal.open(plan.folder, plan.identity, listener)
        settings: Sequence[Settings] = plan.settings
        for number, planned in enumerate(plan.rounds):
            settings = settings[: planned.num_settings]
            if number == len(journal.rounds):
                journal.commit(_run_round(plan, number, settings, listener))  # the only commit point
            scored = journal.rounds[number]
            if left := remove_results(plan.folder, number):  # only after the commit
                listener(Warned(message=leftover_message(left)))
            settings = [trial.settings for trial in _best(plan, scored, len(settings))]
    return Tuning(
        method=plan.merge.method.name,
        metric=plan.metric.title,
        higher_is_better=plan.metric.higher_is_better,
        datasets=tuple(plan.metric.datasets),
        rounds=tuple(journal.rounds),
        settings=settings[0],
    )


def _run_round(plan: TuningPlan, number: int, settings: Sequence[Settings], listener: Listener) -> ScoredRound:
    """Merge with each of the settings, and score the results."""
    plans = plan.trials(number, settings)
    failures = merge_in_turns(plans, plan.folder, listener)
    for label, problem in failures.items():
        listener(Warned(message=f"{label}: left out: {problem}"))
    named = {format_settings(one): one for one in plan.settings}
    trials = {
        label: Trial(settings=named[label], scores={}, seconds=0.0, failure=failures.get(label, "")) for label in plans
    }
    results = {label: merge.output for label, merge in plans.items() if label not in failures}
    planned = plan.rounds[number]
    scored, seconds = score_results(plan.evaluated(planned.num_scored), trials, results, listener)
    return ScoredRound(
        num_rows=planned.num_rows, num_scored=planned.num_scored, trials=scored, evaluation_seconds=seconds
    )


def _best(plan: TuningPlan, scored: ScoredRound, number: int) -> list[Trial]:
    best = scored.best(number, higher_is_better=plan.metric.higher_is_better)
    if not best:
        problems = [f"{format_settings(trial.settings)}: {trial.failure}" for trial in scored.trials]
        raise SolveError(f"no setting has a result that can be scored: {format_names(problems, 1)}")
    return best


def _without_repetitions(listener: Listener) -> Listener:
    """A listener that is told each warning once: every round opens the same rows and models."""
    told: set[str] = set()

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            if event.message in told:
                return
            told.add(event.message)
        listener(event)

    return listen
