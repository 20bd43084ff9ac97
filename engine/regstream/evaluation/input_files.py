"""The files of the evaluated models, checked for changes before each commit."""

from regstream.errors import InputError, ResumeError
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.storage.file_status import FileStatus, file_status_if_any
from regstream.storage.identity_differences import differences


class InputFiles:
    """The files of the checkpoints of an evaluation, with their status when this was made."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self._plan = plan
        checkpoints = (checkpoint for layers in plan.passes for checkpoint in layers.checkpoints)
        self._files = sorted({path for checkpoint in checkpoints for _, path in checkpoint.inputs.values()})
        self._before = self._statuses()

    def check(self) -> None:
        """Refuse to continue if a checkpoint has changed; files on the hub that arrive since have not.

        Raises:
            ResumeError: names the checkpoint.
        """
        now = self._statuses()
        if now == self._before:
            return
        try:
            problems = "; ".join(differences(self._plan.identity, self._plan.read_identity()))
        except (InputError, OSError) as error:
            problems = str(error)
        if problems:
            raise ResumeError(f"models changed since the evaluation began: {problems}; rerun the command to start over")
        self._before = now

    def _statuses(self) -> list[FileStatus | None]:
        return list(map(file_status_if_any, self._files))
