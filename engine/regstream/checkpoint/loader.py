"""The checkpoints that a manifest names, opened: folders of this machine, and repositories of the hub."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.adapter import open_adapter
from regstream.checkpoint.auxiliary_names import AUXILIARY_PATTERNS
from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.shared import LastReadCache, SharedCheckpoint
from regstream.checkpoint.source import LOCAL, Remote, Source
from regstream.errors import InputError
from regstream.events import Listener
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import Repository, keep_to, open_repository
from regstream.manifest.redaction import base_name, is_local_path
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate, Manifest
from regstream.models.config.config_file import ADAPTER_CONFIG
from regstream.models.family import Family
from regstream.storage.run_folder import BROUGHT

#: What describes a checkpoint, and of the base also what goes into the result as it is.
_DESCRIPTION = ("config.json", "model.safetensors.index.json")
_OF_BASE = ("*.json", "*.txt", *AUXILIARY_PATTERNS, "README.md")


def _told(model: str) -> str:
    """A model's name, of which a path tells more than anyone should read in a published record."""
    return base_name(model) if is_local_path(model) else model


class CheckpointLoader:
    """Opens a manifest's checkpoints, each repository once, and each model that adapters are put on.

    `commits` holds those that are settled, and in the end all.
    """

    def __init__(self, manifest: Manifest, commits: Mapping[str, str], listener: Listener) -> None:
        self.commits: dict[str, str] = {}
        self.prefetcher = ShardPrefetcher(manifest.workdir / BROUGHT)
        self._base = manifest.merge.base
        self._adapted = Counter(c.model or self._base for c in manifest.candidates if c.adapter is not None)
        self._shelf = LastReadCache()
        self._models: dict[ModelRef, Checkpoint] = {}
        self._settled = commits
        self._listener = listener
        self._described: Family | None = None
        self._repositories: dict[str, Repository] = {}
        self._adapters = {candidate.adapter for candidate in manifest.candidates}

    def base(self, describe: Callable[[Path], Family] | None = None) -> Checkpoint:
        """Open the base; `describe` gives the family of all checkpoints from its folder, where that is not known.

        Raises:
            InputError: it cannot be used, or the hub does not give it.
        """
        folder, source = self._located("base", self._base, _OF_BASE)
        self._described = None if describe is None else describe(folder)
        opened = self._opened("base", self._base, folder, source)
        return self._known(self._base, opened)

    def beside(self, label: str, reference: ModelRef) -> Checkpoint:
        """Open a model that is not merged, with its tokenizer; raises as `base` does."""
        return open_checkpoint(label, *self._located(label, reference, _OF_BASE))

    def candidate(self, candidate: Candidate) -> Checkpoint:
        """Open a candidate, after the base; raises as `base` does."""
        label = f'candidate "{candidate.name}"'
        if candidate.adapter is None:
            assert candidate.model is not None
            folder, source = self._located(label, candidate.model, _DESCRIPTION)
            return self._opened(label, candidate.model, folder, source)
        reference = candidate.model or self._base
        model = self._models.get(reference) or self._known(reference, self._model(label, reference))
        folder, source = self._located(label, candidate.adapter, (ADAPTER_CONFIG,), config=ADAPTER_CONFIG)
        adapter = open_adapter(label, folder, model, source)
        made_for = _told(adapter.config.base_model_name_or_path or "")
        notes = []
        if made_for and made_for.rstrip("/").rpartition("/")[2].lower() != (found := reference.name).lower():
            notes = [f"{label}: {ADAPTER_CONFIG} says that the adapter was made for {made_for}; it is put on {found}"]
        notes += [f"{label}: its adapter: {note}" for note in adapter.notes]
        return AdaptedCheckpoint(label, model, adapter, notes)

    def _model(self, label: str, reference: ModelRef) -> Checkpoint:
        folder, source = self._located(label, reference, _DESCRIPTION)
        return self._opened(f"model {reference.name}", reference, folder, source)

    def _opened(self, label: str, reference: ModelRef, folder: Path, source: Source) -> Checkpoint:
        opened = open_checkpoint(label, folder, source, described=self._described)
        names = source.names(folder)
        lies_beside = ADAPTER_CONFIG in names or any(name.startswith("adapter_model.") for name in names)
        if lies_beside and reference not in self._adapters:
            opened.notes += (
                f"{label}: an adapter lies beside the model, and is left out; to put it on, as libraries do that load"
                " the folder, name it as `adapter` too",
            )
        return opened

    def _known(self, reference: ModelRef, opened: Checkpoint) -> Checkpoint:
        """Remember a model; where several adapters are put on it, what is read of it for one is kept for the next."""
        self._models[reference] = SharedCheckpoint(opened, self._shelf) if self._adapted[reference] > 1 else opened
        return self._models[reference]

    def _located(
        self, label: str, reference: ModelRef, patterns: tuple[str, ...], *, config: str = "config.json"
    ) -> tuple[Path, Source]:
        """Where a checkpoint lies or will lie, its small files fetched."""
        if reference.folder is not None:
            return reference.folder, LOCAL
        try:
            repository = self._repository(reference, config)
            repository.fetch(*patterns)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        return repository.folder, Remote(repository, self.prefetcher)

    def _repository(self, reference: ModelRef, config: str) -> Repository:
        name = str(reference)
        if name not in self._repositories:
            assert reference.hub_id is not None
            settled = self._settled.get(name)
            if settled:
                keep_to(settled, name, reference.hub_id, reference.revision, self._listener)
            self._repositories[name] = open_repository(
                reference.hub_id, reference.revision, commit=settled, config=config
            )
            self.commits[name] = self._repositories[name].commit
        return self._repositories[name]
