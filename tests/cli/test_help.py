"""What a person finds who asks for help, and that asking is cheap."""

import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from regstream import __version__
from regstream_cli.app import cli

COMMANDS = sorted(cli.commands)
_HEAVY = """
import sys
from regstream_cli.app import cli
for arguments in {helps!r}:
    cli(arguments, standalone_mode=False)
print(*{{"torch", "transformers", "numpy", "zarr"}} & sys.modules.keys(), file=sys.stderr)
"""


def test_the_commands_are_those_of_the_contract() -> None:
    assert COMMANDS == ["bias", "evaluate", "init", "plan", "push", "report", "run", "status", "tune", "verify"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(invoke: Callable[..., Result], name: str) -> None:
    long, short = invoke(name, "--help"), invoke(name, "-h")
    assert long.exit_code == 0
    assert short.stdout == long.stdout
    assert f"Example:\n    regstream {name} " in long.stdout
    assert long.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    options = [parameter for parameter in cli.commands[name].params if isinstance(parameter, click.Option)]
    assert {"--json", "--debug"} <= {option.opts[0] for option in options}
    assert all(option.help for option in options)


def test_the_overview_shows_every_command_whole(invoke: Callable[..., Result]) -> None:
    overview = invoke("--help").stdout
    assert all(f"\n  {name} " in overview for name in COMMANDS)
    assert all("..." not in line for line in overview.splitlines()[1:])
    assert "130" in overview


def test_the_version(invoke: Callable[..., Result]) -> None:
    assert __version__ in invoke("--version").stdout


def test_help_imports_nothing_heavy(environment: dict[str, str]) -> None:
    script = _HEAVY.format(helps=[["--help"], *([name, "--help"] for name in COMMANDS)])
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("Usage:") == 1 + len(COMMANDS)
    assert done.stderr.strip() == ""
