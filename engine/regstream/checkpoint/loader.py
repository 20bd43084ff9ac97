"""Opens the checkpoints that a manifest names, in folders of this machine or in repositories of the hub."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.adapter import open_adapter
from regstream.checkpoint.auxiliary_names import (
    AUXILIARY_PATTERNS,
    GENERATION_CONFIG,
    TEMPLATE_PATTERNS,
    TOKENIZER_PATTERNS,
)
from regstream.checkpoint.checkpoint import Checkpoint, Derive, open_checkpoint
from regstream.checkpoint.shared_checkpoint import LastReadCache, SharedCheckpoint
from regstream.checkpoint.source import LOCAL, HubSource, Source
from regstream.errors import InputError, label_boundary
from regstream.events import Listener
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import Repository, open_repository, warn_if_moved
from regstream.manifest.named_models import model_of, template_label, template_model
from regstream.manifest.redaction import base_name, is_local_path
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate, Manifest
from regstream.manifest.tokenizer_keys import reads_tokenizers
from regstream.models.architecture.architecture import Architecture
from regstream.models.config.config_file import ADAPTER_CONFIG
from regstream.models.derivation.derive import derive_architecture
from regstream.storage.run_folder import DOWNLOADS, workdir_of_rank

#: The small files that describe a checkpoint.
_DESCRIPTION = ("config.json", "model.safetensors.index.json")
#: Of candidates, too, where the manifest names more of them than the base.
_TOKENIZER_FILES = (GENERATION_CONFIG, *TOKENIZER_PATTERNS, *TEMPLATE_PATTERNS)
#: Of the base also the files that the result copies.
_BASE_FILES = ("*.json", "*.txt", *AUXILIARY_PATTERNS, "README.md")


class CheckpointLoader:
    """Opens a manifest's checkpoints; each repository once, and each model under adapters once.

    `pinned_commits` has the hub commits of an unfinished run. `commits` has those of all repositories opened.
    """

    def __init__(
        self, manifest: Manifest, pinned_commits: Mapping[str, str], listener: Listener, *, rank: int = 0
    ) -> None:
        self.commits: dict[str, str] = {}
        self.prefetcher = ShardPrefetcher(workdir_of_rank(manifest.workdir, rank) / DOWNLOADS)
        self._manifest, self._base = manifest, template_model(manifest)
        self._num_adapters = Counter(model_of(manifest, c) for c in manifest.candidates if c.adapter is not None)
        self._cache = LastReadCache()
        self._models: dict[ModelRef, Checkpoint] = {}
        self._pinned_commits = pinned_commits
        self._listener = listener
        self._architecture: Architecture | None = None
        self._repositories: dict[str, Repository] = {}
        is_read = reads_tokenizers(manifest.merge) or isinstance(manifest.merge.chat_template, str)
        self._tokenizer_files = _TOKENIZER_FILES if is_read else ()
        self._adapters = {candidate.adapter for candidate in manifest.candidates}

    def open_base(self, derive: Derive) -> Checkpoint:
        """Open the base, or without one the first candidate's model.

        `derive` gives the architecture of all checkpoints from its config.

        Raises:
            InputError: it is not usable, or the hub does not provide it.
        """
        label = template_label(self._manifest)
        folder, source = self._locate(label, self._base, _BASE_FILES)
        base = self._open(label, self._base, folder, source, derive)
        self._architecture = base.architecture
        return self._share(self._base, base)

    def open_auxiliary(self, label: str, reference: ModelRef, derive: Derive) -> Checkpoint:
        """Open a model that is not merged, with its tokenizer; raises as `open_base` does."""
        return open_checkpoint(label, *self._locate(label, reference, _BASE_FILES), derive=derive)

    def open_prior_model(self, reference: ModelRef) -> Checkpoint:
        """Open the model that is a prior, after the base; raises as `open_base` does."""
        label = "prior model"
        folder, source = self._locate(label, reference, _DESCRIPTION)
        if _has_adapter(source.list_files(folder)):
            raise InputError(f"{label}: {folder}: holds an adapter; merge it into its model first, and name the result")
        return open_checkpoint(label, folder, source, architecture=self._architecture)

    def open_candidate(self, candidate: Candidate) -> Checkpoint:
        """Open a candidate, after the base; raises as `open_base` does."""
        label = f'candidate "{candidate.name}"'
        if candidate.adapter is None:
            assert candidate.model is not None
            if self._manifest.merge.base is None and candidate is self._manifest.candidates[0]:
                return self._models[candidate.model]  # open as the one in place of a base
            return self._open(label, candidate.model, *self._locate_candidate(label, candidate.model))
        reference = model_of(self._manifest, candidate)
        if reference not in self._models:
            folder, source = self._locate_candidate(label, reference)
            self._share(reference, self._open(f"model {reference.name}", reference, folder, source))
        model = self._models[reference]
        folder, source = self._locate(
            label, candidate.adapter, (ADAPTER_CONFIG, *self._tokenizer_files), config=ADAPTER_CONFIG
        )
        adapter = open_adapter(label, folder, model, source)
        made_for = adapter.config.base_model_name_or_path or ""
        if is_local_path(made_for):  # a published record shows no path of anyone's machine
            made_for = base_name(made_for)
        notes = [f"{label}: its adapter: {note}" for note in adapter.notes]
        if made_for and made_for.rstrip("/").rpartition("/")[2].lower() != reference.name.lower():
            purpose = f"{ADAPTER_CONFIG} says that the adapter was made for {made_for}"
            notes.insert(0, f"{label}: {purpose}; it is merged into {reference.name}")
        return AdaptedCheckpoint(label, model, adapter, notes)

    def _open(
        self, label: str, reference: ModelRef, folder: Path, source: Source, derive: Derive = derive_architecture
    ) -> Checkpoint:
        checkpoint = open_checkpoint(label, folder, source, architecture=self._architecture, derive=derive)
        if _has_adapter(source.list_files(folder)) and reference not in self._adapters:
            checkpoint.notes += (
                f"{label}: the folder also has an adapter, which is left out; libraries that load the folder apply it;"
                " to merge it too, name it as `adapter`",
            )
        return checkpoint

    def _share(self, reference: ModelRef, checkpoint: Checkpoint) -> Checkpoint:
        """Register a model for adapters; under several, what is read of it for one stays in a cache for the next."""
        is_shared = self._num_adapters[reference] > 1
        self._models[reference] = SharedCheckpoint(checkpoint, self._cache) if is_shared else checkpoint
        return self._models[reference]

    def _locate_candidate(self, label: str, reference: ModelRef) -> tuple[Path, Source]:
        return self._locate(label, reference, (*_DESCRIPTION, *self._tokenizer_files))

    def _locate(
        self, label: str, reference: ModelRef, patterns: tuple[str, ...], *, config: str = "config.json"
    ) -> tuple[Path, Source]:
        """The folder and the source of a checkpoint; downloads its small files."""
        if reference.folder is not None:
            return reference.folder, LOCAL
        assert reference.hub_id is not None
        name, repo, revision = str(reference), reference.hub_id, reference.revision
        with label_boundary(label):
            if name not in self._repositories:
                pinned = self._pinned_commits.get(name)
                if pinned:
                    warn_if_moved(pinned, name, repo, revision, self._listener)
                self._repositories[name] = open_repository(repo, revision, commit=pinned, config=config)
                self.commits[name] = self._repositories[name].commit
            repository = self._repositories[name]
            repository.fetch(*patterns)
        return repository.folder, HubSource(repository, self.prefetcher)


def _has_adapter(names: Collection[str]) -> bool:
    """Whether files of these names are an adapter's."""
    return ADAPTER_CONFIG in names or any(name.startswith("adapter_model.") for name in names)
