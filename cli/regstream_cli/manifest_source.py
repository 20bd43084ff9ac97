"""The manifest that a command is given: a file or standard input, and the settings of --set beside it."""

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import click

from regstream.errors import ManifestError
from regstream.manifest.overrides import parse_setting
from regstream.manifest.read_manifest import decode_manifest, parse_manifest, read_manifest
from regstream.manifest.schema import Manifest
from regstream_cli.ranks import on_several_ranks

_STDIN = Path("-")
_STDIN_NAME = "standard input"


class ManifestSource:
    """Where a manifest is read from. `settings` take the place of what it says."""

    def __init__(self, path: Path, settings: Sequence[str] = ()) -> None:
        self.path, self.settings = path, tuple(settings)

    def __str__(self) -> str:
        return _STDIN_NAME if self._is_stdin else str(self.path)

    @property
    def arguments(self) -> str:
        """What names it on a command line, for a shell."""
        settings = [f"--set {shlex.quote(setting)}" for setting in self.settings]
        return " ".join([shlex.quote(str(self.path)), *settings])

    @property
    def can_change(self) -> bool:
        """Whether another reading may give another manifest: a pipe is read once."""
        return not self._is_stdin and self.path.is_file()

    def read(self) -> Manifest:
        """Read and validate the manifest; paths of one on standard input are relative to the current folder.

        Raises:
            ManifestError: it cannot be read, or is invalid; one line for each problem.
        """
        if self._is_stdin:
            return parse_manifest(self._stdin_text, _STDIN_NAME, self.settings)
        return read_manifest(self.path, self.settings)

    @property
    def _is_stdin(self) -> bool:
        return self.path == _STDIN

    @cached_property
    def _stdin_text(self) -> str:
        if on_several_ranks():
            raise ManifestError(f"{_STDIN_NAME}: several ranks cannot share it; write the manifest to a file")
        return decode_manifest(sys.stdin.buffer.read(), _STDIN_NAME)


def _check_settings(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for setting in values:
        parse_setting(setting)
    return values


def manifest_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument MANIFEST and the option --set, as one parameter `source`."""

    @wraps(command)
    def with_source(*arguments: Any, path: Path, settings: tuple[str, ...], **options: Any) -> Any:
        return command(*arguments, source=ManifestSource(path, settings), **options)

    option = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_check_settings,
        help="Set a key of the manifest for this command, as in merge.alpha=0.9, candidates.math.weight=2. Repeatable.",
    )
    # Not `exists=True`: reading the manifest reports a missing file like every other problem.
    argument = click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path, allow_dash=True))
    decorated: Callable[..., Any] = argument(option(with_source))
    return decorated
