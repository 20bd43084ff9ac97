"""A mistake on the command line is one line in the style of all errors, and --quiet leaves warnings and errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from regstream_cli.app import cli

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fly",), 'no command "fly"; `regstream --help`'),
        (("evalaute", "x"), 'no command "evalaute"; did you mean evaluate?'),
        (("merge.toml",), 'no command "merge.toml"; to merge, write `regstream run merge.toml`'),
        (("run",), "MANIFEST is missing; `regstream run --help`"),
        (("run", "a.toml", "--devcie", "cpu"), "no option --devcie; did you mean --device?"),
        (("run", "a.toml", "--device"), "option '--device' requires an argument"),
        (("init",), "--candidate NAME=MODEL is missing"),
        (("plan", "a.toml", "--machines", "2"), "--machines: 2 machines cannot share 1 ranks"),
        (("evaluate", "a.toml", "--also", "x=nowhere"), "--also: x: found no folder nowhere; "),
        (("push", "merged", "name"), "REPO: expected \"org/name\", found 'name'"),
    ],
)
def test_a_mistake_is_one_line(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"regstream: error: {message}")
    assert result.stdout == ""


def test_without_arguments_there_is_help_in_the_order_of_work(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 0
    assert result.stdout == invoke("--help").stdout
    listed = [line.split()[0] for line in result.stdout.rpartition("Commands:\n")[2].splitlines()]
    order = ["init", "plan", "run", "status", "tune", "evaluate", "bias", "report", "verify", "push"]
    assert listed == order == list(cli.commands)


def test_a_manifest_that_is_not_there_names_what_is_near(invoke: Invoke, fresh: Path) -> None:
    for named, message in (
        (fresh.with_name("manifst.toml"), f"No such file or directory; the nearest path is {fresh}"),
        (fresh.parent, "Is a directory; in it are manifest.toml; name a manifest"),
    ):
        result = invoke("plan", named)
        assert result.exit_code == 2
        assert result.stderr == f"regstream: error: {named}: cannot be read: {message}\n"


def test_quiet_leaves_data_and_errors(invoke: Invoke, fresh: Path) -> None:
    assert "fits" in invoke("plan", fresh, "--quiet").stdout
    failed = invoke("run", "--quiet", fresh, "--set", "resources.host_memory=1MiB")
    assert failed.exit_code == 3
    assert failed.stderr.startswith("regstream: error: ")


@pytest.mark.slow
def test_a_quiet_run_says_nothing_but_its_result(invoke: Invoke, half_done: Path) -> None:
    result = invoke("run", half_done, "-q")
    assert result.exit_code == 0
    assert result.stdout == f"{half_done.parent / 'merged'}\n"
    assert all(line.startswith("regstream: warning: ") for line in result.stderr.splitlines())


def test_init_writes_the_folder_of_an_adapter_as_one(invoke: Invoke, fresh: Path) -> None:
    folder = fresh.parent / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    written = fresh.with_name("first.toml")
    invoke("init", "--base", fresh.parent / "base", "--candidate", f"math={folder}", "-o", written)
    assert f'adapter = "{folder}"' in written.read_text()
