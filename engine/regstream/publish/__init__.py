"""From shards to a model: everything that stands beside them, and what is said of how it was made."""

from regstream.publish.damage import check_file, strangers
from regstream.publish.files import add_results, clear, is_published, publish, published_commits
from regstream.publish.provenance import PROVENANCE, read_provenance

__all__ = [
    "PROVENANCE",
    "add_results",
    "check_file",
    "clear",
    "is_published",
    "publish",
    "published_commits",
    "read_provenance",
    "strangers",
]
