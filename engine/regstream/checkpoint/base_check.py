"""Whether a base can be merged, as far as its config tells, before there is a manifest."""

from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING

from regstream.errors import InputError, label_boundary
from regstream.hub.errors import HubError
from regstream.hub.repository import open_repository
from regstream.manifest.references import ModelRef
from regstream.models.config.config_file import CONFIG, read_config
from regstream.models.derivation.derive import derive_architecture

_LABEL = "base"


@dataclass(frozen=True, kw_only=True)
class BaseCheck:
    """What a base's config tells. `note` says what is still to be done, or why it told nothing; "" where all is well.

    `num_blocks` is None where it told nothing. `has_towers` and `reads_images` are of models that also read something
    else than their rows of text.
    """

    num_blocks: int | None = None
    has_towers: bool = False
    reads_images: bool = False
    note: str = ""


def check_base_config(base: ModelRef) -> BaseCheck:
    """Derive the architecture of a base from its config, of a folder or of the hub.

    Raises:
        InputError: in the words of a run, if it cannot be merged.
    """
    try:
        folder = _fetch_config(base)
    except HubError as error:
        return BaseCheck(note=f"{_LABEL}: {error}; whether it can be merged is not known yet")
    with label_boundary(_LABEL):
        config = read_config(folder)
        try:
            architecture = derive_architecture(config, folder / CONFIG)
        except InputError as error:
            if str(config.get("model_type")) in CONFIG_MAPPING:
                raise
            return BaseCheck(note=f"{_LABEL}: {error}")  # a table in the manifest that is to be written may help
    arguments = signature(getattr(transformers, architecture.model_class).forward).parameters
    reads_images = architecture.reads_tokens and "pixel_values" in arguments
    return BaseCheck(
        num_blocks=len(architecture.groups),
        has_towers=bool(architecture.parts["towers"]),
        reads_images=reads_images,
    )


def _fetch_config(base: ModelRef) -> Path:
    """The folder with a base's config, downloaded if it is on the hub."""
    if base.folder is not None:
        return base.folder
    assert base.hub_id is not None
    repository = open_repository(base.hub_id, base.revision)
    repository.fetch(CONFIG)
    return repository.folder
