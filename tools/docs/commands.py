"""The commands as sections in Markdown, from click: what `--help` shows, with the options in a table."""

import inspect

import click

from regstream_cli.app import cli

_EXAMPLE = "\b\nExample:\n"


def commands() -> str:
    """The overview and a section for each command, in the overview's order."""
    context = click.Context(cli, info_name="regstream", **cli.context_settings)
    sections = ["```text", context.get_help().strip(), "```"]
    return "\n".join(sections) + "".join(f"\n\n{_section(name, context)}" for name in cli.commands)


def _section(name: str, parent: click.Context) -> str:
    command = cli.commands[name]
    context = click.Context(command, info_name=name, parent=parent)
    text, _, example = inspect.cleandoc(command.help or "").partition(_EXAMPLE)
    usage = " ".join(command.collect_usage_pieces(context))
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    lines = [f"### `regstream {name} {usage}`", "", text.strip(), "", "| option | |", "|---|---|"]
    lines += [f"| `{_spelling(option)}` | {_help(option)} |" for option in options]
    return "\n".join([*lines, "", "```sh", inspect.cleandoc(example), "```"])


def _spelling(option: click.Option) -> str:
    names = ", ".join(option.opts)
    return names if option.is_flag else f"{names} {option.metavar}"


def _help(option: click.Option) -> str:
    return f"{option.help} Required." if option.required else f"{option.help}"
