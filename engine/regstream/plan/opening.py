"""The checkpoints that a manifest names, opened: folders of this machine, and repositories of the hub."""

from collections.abc import Mapping
from pathlib import Path

from regstream.checkpoint import Checkpoint, Remote, open_checkpoint
from regstream.errors import InputError, ManifestError
from regstream.events import Listener, Warned
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
        self._repositories: dict[str, Repository] = {}

    def base(self, reference: ModelRef) -> Checkpoint:
        """Open the base.

        Raises:
            InputError: it cannot be used, or the hub does not give it.
        """
        return self._open("base", reference, _COMPANIONS)

    def candidate(self, index: int, candidate: Candidate) -> Checkpoint:
        """Open a candidate; raises as `base` does.

        Raises:
            ManifestError: it is an adapter.
        """
        if candidate.adapter is not None:
            where = f'candidates[{index}] "{candidate.name}"'
            raise ManifestError(f"{where}: adapter: adapters are not applied yet; merge it into its model first")
        assert candidate.model is not None
        return self._open(f'candidate "{candidate.name}"', candidate.model, _DESCRIPTION)

    def _open(self, label: str, reference: ModelRef, patterns: tuple[str, ...]) -> Checkpoint:
        if reference.folder is not None:
            return open_checkpoint(label, reference.folder)
        try:
            repository = self._repository(reference)
            repository.fetch(*patterns)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        return open_checkpoint(label, repository.folder, Remote(repository, self.depot))

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
