"""The command that a person may want next, as it is typed into a shell."""

import shlex
from pathlib import Path

from regstream.manifest.schema import Manifest
from regstream_cli.manifest_source import ManifestSource


def command_after_run(source: ManifestSource, manifest: Manifest) -> str:
    """What follows a merge: its evaluation, if the manifest has held-out rows, or else its report."""
    if any(candidate.evaluation is not None for candidate in manifest.candidates):
        return f"regstream evaluate {source.arguments}"
    return report_command(manifest.merge.output)


def report_command(output: Path) -> str:
    """What shows a result to people."""
    return f"regstream report {shlex.quote(str(output))}"
