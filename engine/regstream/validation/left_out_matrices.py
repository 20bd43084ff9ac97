"""Names the matrices of blocks that are not regressed, with the reason."""

from collections import defaultdict
from collections.abc import Iterator

from regstream.models.layered_model import LayeredModel
from regstream.validation.summaries import summarize_names


def left_out_matrices(model: LayeredModel) -> Iterator[str]:
    """Yield a line for each reason for which matrices of blocks are averaged rather than regressed."""
    names: dict[str, list[str]] = defaultdict(list)
    architecture = model.architecture
    for block, reasons in enumerate(architecture.not_regressed):
        for name, reason in reasons.items():
            if (full := f"{architecture.block_prefix(block)}{name}") in model.shapes:
                names[reason].append(full)
    for reason, matrices in names.items():
        yield f"not regressed, so averaged: {summarize_names(matrices)}: {reason}"
