"""The settings of a merge whose manifest has method "auto": found before its first step, and recorded with it."""

from regstream.events import Listener, SettingsChosen
from regstream.manifest.keys import format_settings
from regstream.methods import AUTO
from regstream.output.ownership import check_output
from regstream.output.record import is_published
from regstream.planning.plan import Plan
from regstream.planning.planning import replan
from regstream.storage.journal import Journal
from regstream.storage.tuning_folder import remove_tuning
from regstream.tuning.tuner import tune
from regstream.tuning.tuning_plan import TuningPlan


def has_to_choose(plan: Plan) -> bool:
    """Whether the settings of a plan's merge are still to be found: no run has begun with any."""
    is_begun = is_published(plan.output) or bool(Journal.begun_identity(plan.workdir))
    return plan.manifest.merge.method == AUTO and not is_begun


def check_choice(plan: Plan) -> None:
    """Refuse a merge whose settings are still to be found and cannot be; raises as `tune` does before it begins."""
    if has_to_choose(plan):
        TuningPlan.of(plan).validate()


def choose_settings(plan: Plan, *, restart: bool, listener: Listener) -> Plan:
    """The plan with the best settings, where they are still to be found or `restart` is set; raises as `tune` does.

    The tuning's state stays until the merge is finished: killed before the merge's journal has the settings, a rerun
    reads them from there.
    """
    if restart and plan.manifest.merge.method == AUTO:
        remove_tuning(plan.workdir)
    elif not has_to_choose(plan):
        return plan
    check_output(plan)  # files of others are refused before any merge
    tuning = tune(TuningPlan.of(plan), listener)
    listener(SettingsChosen(method=tuning.method, settings=format_settings(tuning.settings)))
    return replan(plan, plan.manifest.with_settings(tuning.settings))
