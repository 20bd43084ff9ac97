"""An architecture that the manifest describes, held against the model of transformers before any work."""

from regstream.architecture.family import family_from
from regstream.architecture.modules import describe, unregressed
from regstream.architecture.passes import check_passes
from regstream.architecture.reads import ModelReads, model_reads
from regstream.architecture.state import same_state

__all__ = [
    "ModelReads",
    "check_passes",
    "describe",
    "family_from",
    "model_reads",
    "same_state",
    "unregressed",
]
