"""The mean of the candidates, by their weights."""

from typing import ClassVar

from regstream.methods.method import Method


class Average(Method):
    """Every parameter is the candidates' mean."""

    name: ClassVar[str] = "average"
