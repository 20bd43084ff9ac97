"""From two fine-tunes to a published merge with the installed command alone, as a new user goes, with one interrupt."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import checkpoints
from hub_server import Hub, serving
from regstream import __version__

REPO = "me/merged"
SECONDS = 300  # after which a command counts as stuck


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.writer = "secret"
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base, two fine-tunes, and rows for each. There are blocks enough that an interrupt finds some left."""
    checkpoints.make_family(tmp_path, "llama", candidates=2, layers=24)
    for name in ("math", "code"):
        checkpoints.write_texts(tmp_path / f"{name}.jsonl", checkpoints.SENTENCES)
        checkpoints.write_texts(tmp_path / f"{name}.heldout.jsonl", checkpoints.SENTENCES[::-2])
    return tmp_path


class User:
    """Someone in a folder, with a shell."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment

    def types(self, line: str) -> "subprocess.CompletedProcess[str]":
        """A command that is to succeed."""
        done = subprocess.run(
            line.split(), cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done

    def interrupts(self, line: str, after: str) -> tuple[int, str]:
        """Ctrl-C as soon as a line of the command's messages has `after` in it; the exit code and what it said then."""
        with subprocess.Popen(
            line.split(), cwd=self._folder, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            assert any(after in message for message in process.stderr)
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()
            return process.wait(SECONDS), told


def test_from_two_checkpoints_to_a_published_merge(folder: Path, environment: dict[str, str], hub: Hub) -> None:
    online = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "secret", "HF_HUB_OFFLINE": "0"}
    user = User(folder, environment | online)
    assert user.types("regstream --version").stdout.split()[-1] == __version__
    user.types(
        "regstream init --base base --candidate math=candidate-0 --candidate code=candidate-1"
        " --calibration math=math.jsonl --calibration code=code.jsonl -o merge.toml"
    )
    manifest = folder / "merge.toml"
    text, count = re.subn(r'(?m)^# (?=\[candidates\.evaluation\]|path = "\w+\.heldout)', "", manifest.read_text())
    assert count == 4
    manifest.write_text(text)

    assert ": fits" in user.types("regstream plan merge.toml").stdout
    assert not (folder / "merged").exists()
    code, told = user.interrupts("regstream run merge.toml", after="block 2 (")
    assert code == 130, told
    resumed = user.types("regstream run merge.toml")
    assert re.search(r"resuming after (\d+) of 26 steps", resumed.stderr)
    assert "block 1 (" not in resumed.stderr

    scores = json.loads(user.types("regstream evaluate merge.toml --json").stdout)
    assert {"base", "math", "code", "mean", "regmean++"} == {row["model"] for row in scores["rows"]}
    user.types("regstream report merged")
    assert (folder / "merged" / "report.html").exists()
    assert user.types(f"regstream push merged {REPO}").stdout == f"{hub.endpoint}/{REPO}/tree/main\n"
    assert "intact" in user.types("regstream verify merged").stdout
    published = hub.repos[REPO].commits[hub.repos[REPO].branches["main"]]
    assert {"config.json", "tokenizer.json", "README.md", "regstream.json", "report.html"} <= published.keys()
    checkpoints.load(folder / "merged")
