"""The table of architectures: each is planned, on tiny checkpoints, and is merged or says why it is not.

`tests/tiny_models` holds the models; `tests/e2e/test_every_architecture.py` holds what is merged against a reference.
"""

import re
from collections.abc import Sequence
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
_NOT_MERGED = re.compile(r"\| (?:refused|not tried): ")


def architectures() -> str:
    """How many architectures are merged, and a row for each."""
    quiet: Any = logging  # untyped
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    rows = [row(model, _planned(model)) for model in TINY_MODELS.values()]
    lines = [
        count(rows),
        "",
        "| architecture | class | regressed, or why it is refused |",
        "|---|---|---|",
    ]
    return "\n".join(lines + rows)


def count(rows: Sequence[str]) -> str:
    """How many of these rows are of what is merged."""
    merged = sum(_NOT_MERGED.search(row) is None for row in rows)
    return f"{merged} of these {len(rows)} are merged."


def row(model: TinyModel, outcome: str) -> str:
    """A model's row of the table."""
    return f"| {model.name} | `{model.model_class}` | {cell(outcome)} |"


def outcome(model: TinyModel, planned: Plan | str, folder: Path) -> str:
    """What becomes of a model's merge in a folder: of its plan, or of the message with which it is refused."""
    if isinstance(planned, str):
        message = planned.replace(f"{folder}/", "").replace("\n", "; ")
        return f"refused: {_PLACE.sub('', message)}"
    averaged = [f"; averaged: {pattern.removeprefix('*.')} ({why})" for pattern, why in model.averaged.items()]
    return _num_regressed(planned) + "".join(averaged)


def _planned(model: TinyModel) -> str:
    if model.needs_package:
        return f"not tried: transformers needs the package {model.needs_package} for it"
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            return outcome(model, make_tiny_merge(folder, model).plan(), folder)
        except RegstreamError as error:
            return outcome(model, str(error), folder)


def _num_regressed(plan: Plan) -> str:
    """How many linears of a block are regressed, from the fewest to the most."""
    counts = sorted({step.num_regressed for step in plan.steps if step.kind == "block"})
    return f"{' or '.join(map(str, counts))} linears of a block"
