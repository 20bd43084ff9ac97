"""The mean of the candidates, by their weights."""

from typing import ClassVar

from regstream.methods.method import Method, Use


class Average(Method):
    """Every parameter is the candidates' mean."""

    name: ClassVar[str] = "average"

    def use(self, *, regressable: bool) -> Use:
        """The mean, always."""
        del regressable
        return "average"
