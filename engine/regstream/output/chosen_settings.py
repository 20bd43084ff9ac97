"""The settings that a run with method "auto" has chosen, as its record or its journal has them. Imports no torch."""

from typing import Any

from pydantic import ValidationError

from regstream.manifest.schema import Manifest
from regstream.methods import AUTO, AUTO_METHOD
from regstream.methods.search_space import Settings
from regstream.output.record import published_identity
from regstream.storage.journal import Journal


def chosen_settings(manifest: Manifest) -> Settings | None:
    """The settings that the manifest's finished or unfinished run chose; None where it has not chosen yet, or where the
    manifest says them itself.

    Raises:
        InputError: the record of the result is damaged.
        ResumeError: the journal of the unfinished run is damaged.
    """
    if manifest.merge.method != AUTO:
        return None
    identity = published_identity(manifest.merge.output) or Journal.begun_identity(manifest.workdir)
    recorded: dict[str, Any] = identity.get("manifest", {})
    if (recorded.get("method"), recorded.get("tuned")) != (AUTO, AUTO_METHOD.name):
        return None
    settings = {key: recorded[key] for key in AUTO_METHOD.Options.model_fields if key in recorded}
    try:
        manifest.with_settings(settings)
    except ValidationError:
        return None  # of a version with other options
    return settings


def with_choice(manifest: Manifest) -> Manifest:
    """The manifest with the settings that its run has chosen, if it has; raises as `chosen_settings` does."""
    settings = chosen_settings(manifest)
    return manifest if settings is None else manifest.with_settings(settings)
