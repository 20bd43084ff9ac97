"""Candidates' weights on an accelerator, the next ones on their way while it computes with these."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from regstream.device.accelerator import Accelerator, Mark
from regstream.planning.opened_merge import PlannedCandidate
from regstream.storage.background_io import read_ahead

Weights = dict[str, Tensor]


def load_ahead(
    candidates: Sequence[PlannedCandidate], buffers: Sequence[Weights], accelerator: Accelerator
) -> Iterator[Weights]:
    """Fill the buffers in turns, in a thread and a queue of their own; each is valid until the next one is taken."""
    copies, used = accelerator.copies("weights"), [accelerator.mark()]  # what the buffers were used for before

    def loaded() -> Iterator[tuple[Weights, Mark]]:
        for index, candidate in enumerate(candidates):
            weights = buffers[index % len(buffers)]
            with copies.active():
                accelerator.wait_for(used[max(0, index - len(buffers) + 1)])
                candidate.checkpoint.read(weights)
            yield weights, copies.mark()

    for weights, mark in read_ahead(loaded()):
        accelerator.wait_for(mark)
        yield weights
        used.append(accelerator.mark())
