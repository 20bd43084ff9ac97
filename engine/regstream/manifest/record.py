"""A manifest's text as it may be published: it tells nothing of the machine that it was written for."""

from regstream.manifest.redaction import redact_paths


def for_the_record(text: str) -> str:
    """The text with every path of a machine in it, be it in a comment, cut down to the name at its end."""
    return redact_paths(text)
