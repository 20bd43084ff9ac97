"""From shards to a model: everything that stands beside them, what is said of how it was made, and whose it is."""

from regstream.publish.damage import check_file, strangers
from regstream.publish.files import add_results, copied_files, publish, published_commits
from regstream.publish.finished import check_result, refuse_other
from regstream.publish.loadable import is_loaded
from regstream.publish.ownership import check_output, claim, clear, has_state, release
from regstream.publish.provenance import PROVENANCE, is_published, read_provenance

__all__ = [
    "PROVENANCE",
    "add_results",
    "check_file",
    "check_output",
    "check_result",
    "claim",
    "clear",
    "copied_files",
    "has_state",
    "is_loaded",
    "is_published",
    "publish",
    "published_commits",
    "read_provenance",
    "refuse_other",
    "release",
    "strangers",
]
