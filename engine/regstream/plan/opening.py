"""The checkpoints that a manifest names, opened: folders of this machine, and repositories of the hub."""

from collections.abc import Callable, Mapping
from pathlib import Path

from regstream.checkpoint import LOCAL, Checkpoint, Remote, Source, open_checkpoint
from regstream.errors import InputError, ManifestError
from regstream.events import Listener, Warned
from regstream.families import Family
from regstream.hub import Depot, Repository, moved_to, open_repository
from regstream.manifest import Candidate, ModelRef

#: In the work folder: which files of the hub were brought into its cache.
BROUGHT = "brought"
#: What describes a checkpoint, and of the base also what goes into the result as it is.
_DESCRIPTION = ("config.json", "model.safetensors.index.json")
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja", "README.md")


class Opening:
    """Opens checkpoints, each repository once. `commits` holds those that are settled, and in the end all."""

    def __init__(self, commits: Mapping[str, str], workdir: Path, listener: Listener) -> None:
        self.commits: dict[str, str] = {}
        self.depot = Depot(workdir / BROUGHT)
        self._settled = commits
        self._listener = listener
        self._described: Family | None = None
        self._repositories: dict[str, Repository] = {}

    def base(self, reference: ModelRef, describe: Callable[[Path], Family] | None = None) -> Checkpoint:
        """Open the base; `describe` gives the family of all checkpoints from its folder, where that is not known.

        Raises:
            InputError: it cannot be used, or the hub does not give it.
        """
        folder, source = self._located("base", reference, _COMPANIONS)
        self._described = None if describe is None else describe(folder)
        return open_checkpoint("base", folder, source, described=self._described)

    def beside(self, label: str, reference: ModelRef) -> Checkpoint:
        """Open a model that is not merged, with its tokenizer; raises as `base` does."""
        return open_checkpoint(label, *self._located(label, reference, _COMPANIONS))

    def candidate(self, index: int, candidate: Candidate) -> Checkpoint:
        """Open a candidate; raises as `base` does.

        Raises:
            ManifestError: it is an adapter.
        """
        if candidate.adapter is not None:
            where = f'candidates[{index}] "{candidate.name}"'
            raise ManifestError(f"{where}: adapter: adapters are not applied yet; merge it into its model first")
        assert candidate.model is not None
        label = f'candidate "{candidate.name}"'
        folder, source = self._located(label, candidate.model, _DESCRIPTION)
        return open_checkpoint(label, folder, source, described=self._described)

    def _located(self, label: str, reference: ModelRef, patterns: tuple[str, ...]) -> tuple[Path, Source]:
        """Where a checkpoint lies or will lie, its small files fetched."""
        if reference.folder is not None:
            return reference.folder, LOCAL
        try:
            repository = self._repository(reference)
            repository.fetch(*patterns)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        return repository.folder, Remote(repository, self.depot)

    def _repository(self, reference: ModelRef) -> Repository:
        name = str(reference)
        if name not in self._repositories:
            assert reference.hub_id is not None
            settled = self._settled.get(name)
            if settled and (moved := moved_to(reference.hub_id, reference.revision, settled)):
                # Not among the plan's warnings: an interruption must not show in the result.
                self._listener(Warned(message=f"{name} is {moved} now; going on with {settled}, as begun"))
            self._repositories[name] = open_repository(reference.hub_id, reference.revision, commit=settled)
            self.commits[name] = self._repositories[name].commit
        return self._repositories[name]
