"""regstream: a streaming, memory-bounded engine that merges fine-tuned checkpoints.

Importing this package imports neither torch nor transformers; the modules that need them do.
"""

__version__ = "0.1.0"
