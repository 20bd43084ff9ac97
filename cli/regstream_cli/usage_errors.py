"""Errors of usage, in the style of all others: one line that says what is wrong and what to write."""

from pathlib import Path

import click
from click.exceptions import NoSuchCommand

from regstream_cli.streams import write_message


def report_usage(error: click.UsageError) -> int:
    """Write an error of usage to stderr; return its exit code."""
    context = error.ctx
    command = "regstream" if context is None else context.command_path
    write_message(f"error: {_describe(error)}; `{command} --help` shows what it takes")
    return error.exit_code


def _describe(error: click.UsageError) -> str:
    match error:
        case NoSuchCommand():
            name = error.command_name
            if Path(name).suffix == ".toml":
                return f'no command "{name}"; to merge, write `regstream run {name}`'
            return f'no command "{name}"{_suggestion(error.possibilities)}'
        case click.NoSuchOption():
            return f"no option {error.option_name}{_suggestion(error.possibilities)}"
        case click.MissingParameter() if error.param is not None:
            shown = error.param.opts[0] if isinstance(error.param, click.Option) else error.param.human_readable_name
            value = f" {error.param.metavar}" if isinstance(error.param, click.Option) else ""
            return f"{shown}{value} is missing"
        case click.BadParameter():
            hint = error.param_hint or (error.param.opts[0] if isinstance(error.param, click.Option) else None)
            if hint is None and error.param is not None:
                hint = error.param.human_readable_name
            return f"{hint}: {_plain(error.message)}" if hint else _plain(error.message)
        case _:
            return _plain(error.format_message())


def _suggestion(possibilities: list[str] | None) -> str:
    return f"; did you mean {' or '.join(possibilities)}?" if possibilities else ""


def _plain(text: str) -> str:
    """A sentence of click's as a part of a line."""
    return f"{text[:1].lower()}{text[1:]}".rstrip(".")
