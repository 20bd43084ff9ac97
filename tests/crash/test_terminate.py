"""SIGTERM and Ctrl-C within every kind of step: stopped at a safe point, exit 130, and the same command goes on."""

import os
import signal
import threading

import pytest
from click.testing import CliRunner

from crash.faults import in_child
from crash.resuming import Resuming
from parametrize import slow
from regstream.planning.step import Step
from regstream.runtime import scheduler
from regstream.runtime.step import Artifacts, run_step
from regstream.runtime.step_context import StepContext
from regstream_cli.app import cli
from regstream_cli.progress_lines import ProgressLines


def signalled_in(resuming: Resuming, name: str, number: int) -> None:
    """Run the command, and be sent a signal as a step sets to work."""

    noticed, notice = threading.Event(), ProgressLines.show_message

    def notice_and_tell(lines: ProgressLines, text: str) -> None:
        notice(lines, text)
        noticed.set()

    def signal_and_run(step: Step, context: StepContext) -> Artifacts:
        if step.name == name:
            os.kill(os.getpid(), number)
            assert noticed.wait(60)  # a thread takes the signal; a step of this size would be over before it has
        return run_step(step, context)

    setattr(ProgressLines, "show_message", notice_and_tell)  # noqa: B010  in a process of its own
    setattr(scheduler, "run_step", signal_and_run)  # noqa: B010  a name the module imports for itself
    result = CliRunner().invoke(cli, ["run", str(resuming.merge.manifest)])
    assert "rerun the command to resume" in result.stderr, result.stderr
    raise SystemExit(result.exit_code)


@pytest.mark.parametrize("kind", ["regmean++"], indirect=True)
@pytest.mark.parametrize(
    ("step", "number"), [slow("stem", signal.SIGTERM), ("block 0", signal.SIGINT), slow("head", signal.SIGTERM)]
)
def test_within_every_kind_of_step(resuming: Resuming, step: str, number: int) -> None:
    assert in_child(lambda: signalled_in(resuming, step, number)) == 130
    assert not (resuming.merge.output / "config.json").exists()
    resuming.check(step)
