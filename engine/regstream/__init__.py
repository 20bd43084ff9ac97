"""regstream: a streaming, memory-bounded engine that merges fine-tuned checkpoints.

Importing this package imports neither torch nor transformers; the modules that need them do.
"""

import os

# Large tensors on huge pages: a fresh one is ready five times sooner. torch reads this when it first allocates.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
