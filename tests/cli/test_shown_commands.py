"""What the first page shows runs as shown, on small models with the names that it uses."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from merging import make_merge

README = Path(__file__).parents[2] / "README.md"
PLACES = ("org/llama", "org/llama-math", "runs/code")


def shown(language: str) -> list[str]:
    """The page's blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README.read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models and rows of the page; what exists here is a folder, and not the hub's."""
    merge = make_merge(tmp_path / "made", layers=2, candidates=2)
    for made, name in zip([merge.folders.base, *merge.folders.candidates], PLACES, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        made.rename(tmp_path / name)
    for index, name in enumerate(("math", "code")):
        rows = (tmp_path / f"made/task{index}.jsonl").read_text()
        (tmp_path / f"{name}.jsonl").write_text(rows)
        (tmp_path / f"{name}.heldout.jsonl").write_text((tmp_path / f"made/task{1 - index}.jsonl").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill_in(manifest: Path) -> None:
    """What a person fills in after `init`: these rows are token ids, and there are held-out ones."""
    text = re.sub(r"(?m)^# (?=\[candidates.evaluation\]|path = )", "", manifest.read_text())
    text = text.replace('# field = "text" ', 'field = "input_ids" ')
    manifest.write_text(re.sub(r"(?m)^# (label = .*)$", r'field = "input_ids"', text))


def test_the_commands(invoke: Callable[..., Result], here: Path) -> None:
    [lines] = [block for block in shown("sh") if "regstream init" in block]
    commands = [shlex.split(line, comments=True) for line in lines.replace("\\\n", "").splitlines()]
    commands = [words[1:] for words in commands if words[0] == "regstream"]
    assert [words[0] for words in commands] == [
        "init",
        "plan",
        "tune",
        "run",
        "status",
        "evaluate",
        "report",
        "verify",
        "push",
    ]
    for words in commands[:-1]:  # publishing takes a hub, which tests/hub has
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        if words[0] == "init":
            fill_in(here / "merge.toml")
    assert "merged: intact" in result.stdout


def test_the_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = shown("python")
    program = program.replace('.jsonl"}', '.jsonl", "field": "input_ids"}')  # these rows are token ids
    exec(compile(program, "README.md", "exec"), {})
    *events, problems = capsys.readouterr().out.splitlines()
    assert events[-1].startswith("RunFinished(")
    assert problems == "()"
    assert '[merge]\nmethod = "regmean++"' in json.loads((here / "merged/regstream.json").read_text())["manifest"]
