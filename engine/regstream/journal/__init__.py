"""What is committed: the record of finished steps, what the run is recognised by, and who is at work on it."""

from regstream.journal.identity import Identity, differences, identify
from regstream.journal.journal import Committed, Journal
from regstream.journal.lock import run_lock

__all__ = ["Committed", "Identity", "Journal", "differences", "identify", "run_lock"]
