"""What a recipe of mergekit says, its models in one form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from regstream.errors import ManifestError
from regstream.manifest.messages import escape_unprintable

#: Values of parameters by name, as YAML gives them.
Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A model, and an adapter on it if there is one; both a folder or a hub id."""

    model: str
    adapter: str | None = None

    def __str__(self) -> str:
        return self.model if self.adapter is None else f"{self.model}+{self.adapter}"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Parameters of one place of a recipe, and what messages call the place."""

    place: str
    parameters: Parameters


@dataclass(frozen=True, kw_only=True)
class Input:
    """A model to merge, with its own parameters."""

    reference: Reference
    scope: Scope


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe. `shared` are the parameters of all models, those first that go before."""

    file: str
    method: str
    base: Reference | None
    inputs: tuple[Input, ...]
    shared: tuple[Scope, ...]
    num_layers: int | None  # that all of its slices name; None where it has none
    settings: Mapping[str, Any]  # the other keys at the top
    ignored: tuple[str, ...]  # keys that mean nothing to a merge, and that mergekit ignores
    unknown: tuple[str, ...]  # keys that mergekit ignores, whatever they were to mean

    def refuse(self, place: str, text: str) -> NoReturn:
        """Refuse what no manifest can say.

        Raises:
            ManifestError: always.
        """
        raise ManifestError(escape_unprintable(f"{self.file}: {place}: {text}"))
