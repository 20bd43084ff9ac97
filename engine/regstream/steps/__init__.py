"""The work of one step: fold or regress what it writes, then push the hidden states through."""

from regstream.steps.run import Artifacts, amount_of_work, run_step
from regstream.steps.workshop import Workshop

__all__ = ["Artifacts", "Workshop", "amount_of_work", "run_step"]
