"""SVG files of matplotlib as elements of an HTML page: its style sheet's colours, identifiers that are unique in it."""

import re
from xml.etree import ElementTree

from regstream.reporting.palette import css_colors

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COLOR = re.compile("|".join(css_colors()))
_FONT = re.compile(r"font: ([^;']*?)'[^;]*")  # the family at the end of a shorthand


def inline_svg(content: bytes, *, prefix: str) -> str:
    """The SVG element in a file, without declarations, metadata and namespaces; `prefix` begins its identifiers."""
    root = ElementTree.fromstring(content)  # noqa: S314  what matplotlib has just written
    for parent in root.iter():
        for child in [child for child in parent if _local(child.tag) in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(name): _adapt(_local(name), value, prefix) for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(attributes)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    # Readers of screens are told the finding by the element around it.
    root.attrib |= {"aria-hidden": "true", "focusable": "false"}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _adapt(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if name == "href":
        return value
    value = _REFERENCE.sub(lambda match: f"url(#{prefix}{match[1]})", value)
    value = _COLOR.sub(lambda match: css_colors()[match[0]], value)
    if name == "style":
        value = _FONT.sub(lambda match: f"font: {match[1]}var(--sans)", value)
    return value
