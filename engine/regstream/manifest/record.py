"""A manifest's text as it may be published: it tells nothing of the machine that it was written for."""

import re

#: An absolute place, or one in a home folder: in quotes to their end, elsewhere, as in comments, to the next space.
_PLACE = re.compile(r"""(?<=")[/~][^"\n]*(?=")|(?<=')[/~][^'\n]*(?=')|(?<![^\s(=,;#])~?/[^\s"',;)]+""")


def for_the_record(text: str) -> str:
    """The text with every absolute place in it, be it in a comment, cut down to the name at its end."""
    return _PLACE.sub(lambda match: match[0].rstrip("/").rpartition("/")[2], text)
