"""`regstream push`: uploads a result to the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from regstream import api
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, json_option, quiet_option
from regstream_cli.streams import stdout_boundary, write_json, write_note

if TYPE_CHECKING:
    from regstream.hub.upload import UploadResult


def _parse_repo(context: click.Context, parameter: click.Parameter, value: str) -> str:
    owner, _, name = value.partition("/")
    if not (owner and name) or "/" in name:
        raise click.BadParameter(f'expected "org/name", found {value!r}', context, parameter)
    return value


@click.command()
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.argument("repo", metavar="REPO", callback=_parse_repo)
@click.option("--private", is_flag=True, help="Create the repository as private if it does not exist.")
@click.option("--revision", metavar="R", help="Commit to this branch; create it if it does not exist. Default: main.")
@json_option
@quiet_option
@debug_option
def push(*, output: Path, repo: str, private: bool, revision: str | None, as_json: bool) -> None:
    """Publish a result on the hub.

    Uploads the files of OUTPUT to REPO ("org/name"), and creates the repository if it does not exist. First compares
    every byte with the result's record; refuses an unfinished or altered result with exit code 4. Uploads file by file
    and makes one commit; rerun an interrupted push to upload what is missing. Takes the token from HF_TOKEN or from
    `hf auth login`.

    \b
    Example:
      regstream push merged/llama me/llama-merged
      regstream push merged/llama me/llama-merged --private --revision v2
    """
    with observe_progress() as listener:
        upload = api.push(output, repo, revision=revision, private=private, listener=listener)
    write_note(_summary(upload))
    if as_json:
        write_json({"url": upload.url, "commit": upload.commit, "sent": upload.files, "removed": upload.removed})
    else:
        with stdout_boundary():
            click.echo(upload.url)


def _summary(upload: "UploadResult") -> str:
    if not upload.files and not upload.removed:
        return f"{upload.url}: up to date at commit {upload.commit[:12]}"
    removed = f", {len(upload.removed)} weight files of another model removed" if upload.removed else ""
    return f"{upload.url}: {len(upload.files)} files uploaded{removed}, at commit {upload.commit[:12]}"
