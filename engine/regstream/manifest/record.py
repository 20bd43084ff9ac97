"""A manifest's text for publication, without the paths of this machine."""

from regstream.manifest.redaction import redact_paths


def for_the_record(text: str) -> str:
    """The text with every path of this machine, also in comments, cut to the name at its end."""
    return redact_paths(text)
