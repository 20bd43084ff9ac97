"""The `regstream` command group. Every exception of a command becomes messages on stderr and an exit code here."""

import sys
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from regstream import __version__
from regstream.device import garbage_collector, malloc
from regstream.errors import BudgetError, Interrupted, ManifestError
from regstream_cli.bias import bias
from regstream_cli.evaluate import evaluate
from regstream_cli.init import init
from regstream_cli.logging_setup import silence_libraries
from regstream_cli.options import DEBUG_KEY
from regstream_cli.plan import plan
from regstream_cli.push import push
from regstream_cli.ranks import begin, begin_command, finish, report_failure
from regstream_cli.report import report
from regstream_cli.run import run
from regstream_cli.status import status
from regstream_cli.streams import discard_stdout, open_closed_streams
from regstream_cli.tune import tune
from regstream_cli.usage_errors import report_usage
from regstream_cli.verify import verify


class _ErrorReportingGroup(click.Group):
    """Reports every exception of a command. Lists commands in the order in which a person needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **settings)
        except NoArgsIsHelpError as error:
            click.echo(error.message)
            raise click.exceptions.Exit(0) from error
        except click.UsageError as error:
            raise click.exceptions.Exit(report_usage(error)) from error
        except BrokenPipeError as error:
            raise click.exceptions.Exit(_report_broken_pipe()) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            value = super().invoke(ctx)
            finish()
            return value
        except (click.exceptions.Exit, click.Abort):
            raise
        except click.UsageError as error:
            ctx.exit(report_usage(error))
        except BrokenPipeError:
            ctx.exit(_report_broken_pipe())
        except (Exception, KeyboardInterrupt) as error:
            ctx.exit(report_failure(error, debug=bool(ctx.meta.get(DEBUG_KEY))))


def _report_broken_pipe() -> int:
    """Report that the reader of stdout, such as `head`, has closed it; click itself would exit with 1."""
    discard_stdout()
    return report_failure(Interrupted("the reader of standard output has closed it"), debug=False)


@click.group("regstream", cls=_ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="regstream")
@click.pass_context
def cli(context: click.Context) -> None:
    """Merge fine-tuned checkpoints that are too large for the machine at hand.

    A manifest describes the merge. A run stays within the memory that its plan shows. Rerun an interrupted run to
    resume it.

    \b
    Example:
      regstream init --help                  how to write a manifest
      regstream init --from-mergekit r.yml   write the manifest of a recipe of mergekit
      regstream plan merge.toml              show the steps, and the memory and disk that they need
      regstream tune merge.toml              find the settings of its method; not needed
      regstream run merge.toml               merge; rerun to resume
      regstream report merged/llama          show what the merge did, on a page
      regstream verify merged/llama          check that a result is complete and unchanged
      regstream push merged/llama me/llama   publish a result on the hub

    \b
    Exit codes:
      0    success
      1    unexpected error
      2    invalid usage or manifest
      3    over the budget of memory or disk
      4    a checkpoint, calibration set or result cannot be used, or the hub cannot be reached
      5    cannot resume: inputs or settings changed since the run began
      6    a regression has no trustworthy solution
      130  interrupted, or the reader of standard output is gone; rerun to resume
    """
    malloc.single_arena()  # before any library starts threads
    garbage_collector.exempt_imports()
    silence_libraries()
    begin_command(context.invoked_subcommand)


for command in (init, plan, run, status, tune, evaluate, bias, report, verify, push):
    cli.add_command(command)


def main() -> None:
    """Run the `regstream` command."""
    open_closed_streams()
    try:
        begin(sys.argv)
        cli(prog_name="regstream")
    except ManifestError as error:  # from the variables of a launcher
        sys.exit(report_failure(error, debug=False))
    except OSError as error:  # from writing a help text; errors of commands are already reported
        discard_stdout()  # its buffer would fail once more at the exit
        sys.exit(report_failure(BudgetError(f"standard output: {error.strerror}"), debug=False))
