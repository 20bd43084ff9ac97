"""An architecture that the manifest describes, held against the model of transformers before any work."""

from regstream.architecture.family import family_from
from regstream.architecture.modules import describe, unregressed
from regstream.architecture.passes import check_passes

__all__ = ["check_passes", "describe", "family_from", "unregressed"]
