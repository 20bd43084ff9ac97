"""`regstream push`: a result onto the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from regstream_cli.options import debug_option, json_option
from regstream_cli.streams import note, write_json, writing_data
from regstream_cli.watching import watching

if TYPE_CHECKING:
    from regstream.hub.upload import UploadResult


def _repository(context: click.Context, parameter: click.Parameter, value: str) -> str:
    owner, _, name = value.partition("/")
    if not (owner and name) or "/" in name:
        raise click.BadParameter(f'expected "org/name", found {value!r}', context, parameter)
    return value


@click.command()
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.argument("repo", metavar="REPO", callback=_repository)
@click.option("--private", is_flag=True, help="Create the repository as private if it does not exist.")
@click.option("--revision", metavar="R", help="Commit to this branch; create it if it does not exist. Default: main.")
@json_option
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
    with watching() as listener:
        from regstream.output.push import push as publish

        sent = publish(output, repo, revision=revision, private=private, listener=listener)
    note(_summary(sent))
    if as_json:
        write_json({"url": sent.url, "commit": sent.commit, "sent": sent.files, "removed": sent.removed})
    else:
        with writing_data():
            click.echo(sent.url)


def _summary(sent: "UploadResult") -> str:
    if not sent.files and not sent.removed:
        return f"{sent.url}: stands there already, at {sent.commit[:12]}"
    removed = f", {len(sent.removed)} files of weights of another model removed" if sent.removed else ""
    return f"{sent.url}: {len(sent.files)} files sent{removed}, at {sent.commit[:12]}"
