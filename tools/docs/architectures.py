"""The table of architectures: each is planned, on tiny checkpoints, and is merged or says why it is not.

`tests/tiny_models` holds the models; `tests/e2e/test_every_architecture.py` holds what is merged against a reference.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers.utils import logging

from docs.keys import cell
from regstream.errors import RegstreamError
from regstream.planning.plan import Plan
from tiny_merge import make_tiny_merge
from tiny_models.model import TinyModel
from tiny_models.registry import TINY_MODELS

#: What a message says before its sentence: which checkpoint, and where it lies.
_PLACE = re.compile(r"^(?:base: |base(?:/config\.json)?: |manifest\.toml: )+")


def architectures() -> str:
    """How many architectures are merged, and a row for each."""
    quiet: Any = logging  # untyped
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    rows = [_row(model) for model in TINY_MODELS.values()]
    merged = sum(is_merged for is_merged, _ in rows)
    lines = [
        f"{merged} of these {len(rows)} are merged.",
        "",
        "| architecture | class | regressed, or why it is refused |",
        "|---|---|---|",
    ]
    return "\n".join(lines + [row for _, row in rows])


def _row(model: TinyModel) -> tuple[bool, str]:
    """Whether a model is merged, and its row of the table."""
    is_merged, outcome = _outcome(model)
    return is_merged, f"| {model.name} | `{model.model_class}` | {cell(outcome)} |"


def _outcome(model: TinyModel) -> tuple[bool, str]:
    if model.needs_package:
        return False, f"not tried: transformers needs the package {model.needs_package} for it"
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            plan = make_tiny_merge(folder, model).plan()
        except RegstreamError as error:
            message = str(error).replace(f"{folder}/", "").replace("\n", "; ")
            return False, f"refused: {_PLACE.sub('', message)}"
    averaged = [f"; averaged: {pattern.removeprefix('*.')} ({why})" for pattern, why in model.averaged.items()]
    return True, _count(plan) + "".join(averaged)


def _count(plan: Plan) -> str:
    """How many linears of a block are regressed, from the fewest to the most."""
    counts = sorted({step.num_regressed for step in plan.steps if step.kind == "block"})
    return f"{' or '.join(map(str, counts))} linears of a block"
