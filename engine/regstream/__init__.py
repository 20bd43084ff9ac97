"""regstream: a streaming, memory-bounded engine that merges fine-tuned checkpoints.

    import regstream

    plan = regstream.plan(regstream.load_manifest("merge.toml"))
    output = regstream.merge(plan, listener=print)
    assert not regstream.verify(output).problems

`regstream.api` documents the functions, `errors` and `events` what they raise and report. Importing this package
imports neither torch nor transformers: what needs the engine is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

from regstream.errors import BudgetError as BudgetError
from regstream.errors import InputError as InputError
from regstream.errors import Interrupted as Interrupted
from regstream.errors import ManifestError as ManifestError
from regstream.errors import NonFiniteError as NonFiniteError
from regstream.errors import RankError as RankError
from regstream.errors import RegstreamError as RegstreamError
from regstream.errors import ResumeError as ResumeError
from regstream.errors import SolveError as SolveError
from regstream.events import Event as Event
from regstream.events import Fetching as Fetching
from regstream.events import Listener as Listener
from regstream.events import Progressed as Progressed
from regstream.events import RankProgress as RankProgress
from regstream.events import RanksProgressed as RanksProgressed
from regstream.events import RunFinished as RunFinished
from regstream.events import RunStarted as RunStarted
from regstream.events import SettingsChosen as SettingsChosen
from regstream.events import StepCommitted as StepCommitted
from regstream.events import StepStarted as StepStarted
from regstream.events import Warned as Warned

if TYPE_CHECKING:  # for type checkers, what `_LAZY` says
    from regstream.api import add_results as add_results
    from regstream.api import bias as bias
    from regstream.api import check as check
    from regstream.api import evaluate as evaluate
    from regstream.api import is_finished as is_finished
    from regstream.api import load_manifest as load_manifest
    from regstream.api import make_manifest as make_manifest
    from regstream.api import merge as merge
    from regstream.api import plan as plan
    from regstream.api import push as push
    from regstream.api import report as report
    from regstream.api import tune as tune
    from regstream.api import verify as verify
    from regstream.evaluation.evaluation import Evaluation as Evaluation
    from regstream.evaluation.representation_bias import RepresentationBias as RepresentationBias
    from regstream.hub.upload import UploadResult as UploadResult
    from regstream.manifest.schema import Manifest as Manifest
    from regstream.output.verify import Verification as Verification
    from regstream.planning.plan import Plan as Plan
    from regstream.reporting.report import Report as Report
    from regstream.tuning.tuning import Tuning as Tuning

# Large tensors on huge pages: a fresh one is ready five times sooner. torch reads this when it first allocates.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

#: How many products, by their shapes, oneDNN keeps the code of. Each takes about 1 MiB and 4 ms to compile; its own
#: limit is 1,024, which rows of many lengths would fill.
COMPILED_PRODUCTS = 256
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(COMPILED_PRODUCTS))

__version__ = "0.1.0"

_FUNCTIONS = (
    "add_results", "bias", "check", "evaluate", "is_finished", "load_manifest", "make_manifest", "merge", "plan",
    "push", "report", "tune", "verify",
)  # fmt: skip
#: What is imported when it is first used, and the module that has it.
_LAZY = dict.fromkeys(_FUNCTIONS, "regstream.api") | {
    "Evaluation": "regstream.evaluation.evaluation",
    "RepresentationBias": "regstream.evaluation.representation_bias",
    "UploadResult": "regstream.hub.upload",
    "Manifest": "regstream.manifest.schema",
    "Verification": "regstream.output.verify",
    "Plan": "regstream.planning.plan",
    "Report": "regstream.reporting.report",
    "Tuning": "regstream.tuning.tuning",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
