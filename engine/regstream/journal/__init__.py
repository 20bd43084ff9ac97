"""What is committed: the record of finished steps, what the run is recognised by, and whether all of it is there."""

from regstream.journal.artifacts import first_damaged
from regstream.journal.identity import Identity, differences, identify
from regstream.journal.inputs import Inputs
from regstream.journal.journal import Committed, Journal

__all__ = ["Committed", "Identity", "Inputs", "Journal", "differences", "first_damaged", "identify"]
