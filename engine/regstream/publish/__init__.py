"""From shards to a model: everything that stands beside them, and what is said of how it was made."""

from regstream.publish.files import clear, is_published, publish
from regstream.publish.provenance import PROVENANCE, read_provenance, record_files, self_digest

__all__ = ["PROVENANCE", "clear", "is_published", "publish", "read_provenance", "record_files", "self_digest"]
