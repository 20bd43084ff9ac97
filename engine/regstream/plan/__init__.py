"""What will be done, in which order, and what it takes: everything is decided here, before any work."""

from regstream.plan.companions import companions, published_config
from regstream.plan.job import PlannedCandidate
from regstream.plan.plan import Plan
from regstream.plan.planning import make_plan
from regstream.plan.step import Step, TensorPlan
from regstream.plan.terms import Place
from regstream.plan.ties import check_tie

__all__ = [
    "Place",
    "Plan",
    "PlannedCandidate",
    "Step",
    "TensorPlan",
    "check_tie",
    "companions",
    "make_plan",
    "published_config",
]
