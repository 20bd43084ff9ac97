"""The `regstream` command group. Every exception of a command becomes messages on stderr and an exit code here."""

import sys
from typing import Any

import click

from regstream import __version__
from regstream.device import malloc
from regstream.errors import BudgetError, Interrupted
from regstream_cli.bias import bias
from regstream_cli.error_reporting import report_error
from regstream_cli.evaluate import evaluate
from regstream_cli.init import init
from regstream_cli.logging_setup import silence_libraries
from regstream_cli.options import DEBUG_KEY
from regstream_cli.plan import plan
from regstream_cli.push import push
from regstream_cli.run import run
from regstream_cli.status import status
from regstream_cli.streams import discard_stdout, open_closed_streams
from regstream_cli.verify import verify


class _ErrorReportingGroup(click.Group):
    """Reports every exception of a command, except usage errors, which click reports."""

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **settings)
        except BrokenPipeError as error:
            raise click.exceptions.Exit(_report_broken_pipe()) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            ctx.exit(_report_broken_pipe())
        except (Exception, KeyboardInterrupt) as error:
            ctx.exit(report_error(error, debug=bool(ctx.meta.get(DEBUG_KEY))))


def _report_broken_pipe() -> int:
    """Report that the reader of stdout, such as `head`, has closed it; click itself would exit with 1."""
    discard_stdout()
    return report_error(Interrupted("the reader of standard output has closed it"), debug=False)


@click.group(cls=_ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="regstream")
def cli() -> None:
    """Merge fine-tuned checkpoints that are too large for the machine at hand.

    A manifest says what is merged, and how; a run goes on where it was stopped, and takes no more memory than was
    announced.

    \b
    Example:
      regstream init --help           how to get a manifest to begin with
      regstream plan merge.toml       what will be done, and what it takes
      regstream run merge.toml        do it; the same command goes on after a stop
      regstream verify merged/llama   whether a result is whole
      regstream push merged/llama me/llama   onto the hub

    \b
    Exit codes:
      0  done                                4  a checkpoint or calibration set cannot be used
      1  something unexpected                5  cannot go on: inputs changed since the run began
      2  wrong usage or manifest             6  a regression has no trustworthy solution
      3  over the budget of memory or disk   130  interrupted; the same command goes on
    """
    malloc.single_arena()  # before any library starts threads
    silence_libraries()


for command in (init, run, plan, status, verify, evaluate, bias, push):
    cli.add_command(command)


def main() -> None:
    """Run the `regstream` command."""
    open_closed_streams()
    try:
        cli(prog_name="regstream")
    except OSError as error:  # from writing a help text; errors of commands are already reported
        sys.exit(report_error(BudgetError(f"standard output: {error.strerror}"), debug=False))
