"""The documents that rows come from, as plain text, out of unpacked packages (see README.md)."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

Document = tuple[str, list[str]]  # its name, and its lines or paragraphs, which a row never cuts


def python(_: Path) -> Iterator[Document]:
    """The standard library of the running Python: a document is a module."""
    library = Path(sysconfig.get_paths()["stdlib"])
    apart = {"site-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data", "encodings", "__pycache__"}
    for file in sorted(library.rglob("*.py")):
        name = file.relative_to(library)
        lines = file.read_text("utf-8", errors="replace").splitlines(keepends=True)
        if lines and apart.isdisjoint(name.parts):
            yield name.as_posix(), lines


def mathematics(packages: Path) -> Iterator[Document]:
    """set.mm, statements without their compressed proofs: a document is a section."""
    database = (packages / "usr/share/metamath/databases/set.mm").read_text("utf-8")
    sections = re.split(r"\$\(\s*(?:#\*|=-|-\.|#{4})[^\n]*\n\s*(.*?)\n", database)
    theorem = re.compile(r"\$\(((?:(?!\$\)).)*)\$\)\s+(\S+)\s+\$p\s(.*?)\$=", re.DOTALL)
    credit = re.compile(r"\((?:Contributed|Proof shortened|Revised|Proposed|New usage)\b.*?\)")
    for i, section in enumerate(sections[2::2]):
        lines = []
        for comment, label, statement in theorem.findall(section):
            words = credit.sub("", " ".join(comment.split())).strip()
            lines.append(f"{words}\n{label}: {' '.join(statement.split())}\n")
        if lines:
            yield f"section {i}", lines


class _Paragraphs(HTMLParser):
    """The running paragraphs of a page of LibreOffice's help, leaving out those embedded from other pages."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p" and ("class", "paragraph") in attrs:
            self._inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


def _help_pages(packages: Path, language: str, letters: str) -> Iterator[Document]:
    """LibreOffice's help: a document is a page. A paragraph counts once, and only where it has been translated.

    `letters` are some that texts of the language have and English ones lack.
    """
    seen = set()
    for file in sorted((packages / f"usr/share/libreoffice/help/{language}/text").rglob("*.html")):
        page = _Paragraphs()
        page.feed(file.read_text("utf-8"))
        lines = []
        for paragraph in page.found:
            line = " ".join(paragraph.split()) + "\n"
            if line not in seen and re.search(f"[{letters}]", line) and not re.search(r"\b(the|of|is|and)\b", line):
                seen.add(line)
                lines.append(line)
        if lines:
            yield file.name, lines


def finnish(packages: Path) -> Iterator[Document]:
    """LibreOffice's help in Finnish."""
    return _help_pages(packages, "fi", "äö")


def german(packages: Path) -> Iterator[Document]:
    """LibreOffice's help in German."""
    return _help_pages(packages, "de", "äöüß")


TASKS: dict[str, Callable[[Path], Iterator[Document]]] = {
    "python": python,
    "mathematics": mathematics,
    "finnish": finnish,
    "german": german,
}
